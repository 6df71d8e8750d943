"""Contact sheet of the chosen reference frames, and the search for scene cuts with ComfyUI's progress bar."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

import comfy.utils
import numpy as np
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import ui
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from ....infinitetalk_core.chunks.job import Reference, plan_video, scene_cuts
from ....infinitetalk_core.chunks.plan import CHUNK_FRAMES, CONTEXT_FRAMES
from ....infinitetalk_core.chunks.reference import PlannedChunk, Policy, ReferenceSettings
from ....infinitetalk_core.rate import FRAMES_PER_SECOND
from ....infinitetalk_core.video.source import FrameSource
from ....infinitetalk_core.wording import counted

MOST_COLUMNS, MAX_CELLS = 6, 36
CELL_PIXELS, MARGIN, FONT_PIXELS, LINE_PIXELS = 256, 6, 24, 28
BACKGROUND, INK = (24, 24, 24), (235, 235, 235)
PROGRESS_STEPS = 100


def cuts_of(source: FrameSource, settings: ReferenceSettings, frames: int | None) -> tuple[int, ...]:
    """Find the scene cuts in the part of the source that is used, with a progress bar that can be interrupted.

    frames: of the video, None where that is not known.
    """
    bar = comfy.utils.ProgressBar(PROGRESS_STEPS)

    def report(done: float) -> None:
        throw_exception_if_processing_interrupted()
        bar.update_absolute(round(done * PROGRESS_STEPS), PROGRESS_STEPS)

    return scene_cuts(source, settings, frames, report)


@dataclass(frozen=True)
class Picks:
    """The reference frames of a video's chunks, to be shown before it is made.

    frames: of the video; None where no voice is known, then those for the source's own length are shown. chunk_frames,
    context_frames: of the Chunk Sampler.
    """

    reference: Reference
    frames: int | None
    chunk_frames: int = CHUNK_FRAMES
    context_frames: int = CONTEXT_FRAMES

    @property
    def shown_frames(self) -> int:
        """The frames whose chunks are shown."""
        return self.reference.source.length if self.frames is None else self.frames

    @cached_property
    def chunks(self) -> int:
        """The number of chunks, whatever is said about their references."""
        settings = replace(self.reference.settings, policy=Policy.CHUNK_START)
        still = self.reference.settings.policy is Policy.STILL
        reference = replace(self.reference, settings=settings, cuts=() if still else self.reference.cuts)
        return len(plan_video(reference, self.shown_frames, self.chunk_frames, self.context_frames))

    def in_words(self) -> str:
        """Return for example `5 chunks, 4.9 s, 640 x 640`."""
        size = f"{self.reference.width} x {self.reference.height}"
        hint = "connect the voice to see its chunks"
        if self.frames is None and self.reference.source.length == 1:
            return f"{size}; {hint}"
        words = f"{counted(self.chunks, 'chunk')}, {_clock(self.shown_frames)}, {size}"
        given = len(self.reference.settings.times_seconds)
        if self.reference.settings.policy is Policy.BY_HAND and given < self.chunks:
            words += f"; by hand has only {counted(given, 'time')} for them"
        return f"{words}; as long as the source, {hint}" if self.frames is None else words

    def sheet(self) -> Tensor:
        """Draw the reference frames, with their chunks and times, as one picture (1, H, W, 3): up to 36 frames."""
        cells = list(islice(self._cells(), MAX_CELLS))
        columns = min(math.ceil(math.sqrt(len(cells))), MOST_COLUMNS)
        height = cells[0].height
        sheet = Image.new("RGB", (columns * CELL_PIXELS, -(-len(cells) // columns) * height), BACKGROUND)
        for number, cell in enumerate(cells):
            sheet.paste(cell, (number % columns * CELL_PIXELS, number // columns * height))
        return torch.from_numpy(np.asarray(sheet).copy()).float()[None] / 255

    def _cells(self) -> Iterator[Image.Image]:
        frames = self.shown_frames
        if self.reference.settings.policy is Policy.BY_HAND:
            # Only the chunks with a given time; the Chunk Sampler checks whether there are enough.
            times = max(len(self.reference.settings.times_seconds), 1)
            frames = min(frames, times * (self.chunk_frames - self.context_frames))

        @lru_cache(maxsize=1)  # a still is the same in each chunk
        def small(frame: int) -> Image.Image:
            picture = (self.reference.picture(frame) * 255).round().to(torch.uint8).cpu().numpy()
            return ImageOps.contain(Image.fromarray(picture), (CELL_PIXELS - 2 * MARGIN, CELL_PIXELS - 2 * MARGIN))

        for planned in plan_video(self.reference, frames, self.chunk_frames, self.context_frames):
            choice = planned.choice
            yield _cell(small(choice.frames[0]), planned, _looks_at(planned))
            if choice.last is not None:
                yield _cell(small(choice.last), planned, f"ends at {_clock(choice.last)}")


def _looks_at(planned: PlannedChunk) -> str:
    choice = planned.choice
    if choice.previous and planned.chunk.index:
        return "continues the video"
    others = f", {len(choice.frames) - 1} more" if len(choice.frames) > 1 else ""
    return f"looks at {_clock(choice.frames[0])}{others}"


def _cell(picture: Image.Image, planned: PlannedChunk, second_line: str) -> Image.Image:
    chunk = planned.chunk
    cell = Image.new("RGB", (CELL_PIXELS, picture.height + 2 * LINE_PIXELS + 2 * MARGIN), BACKGROUND)
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(FONT_PIXELS)
    lines = (f"chunk {chunk.index + 1}, at {_clock(chunk.start)}", second_line)
    for number, line in enumerate(lines):
        draw.text((MARGIN, number * LINE_PIXELS), line, INK, font=font)
    cell.paste(picture, ((CELL_PIXELS - picture.width) // 2, 2 * LINE_PIXELS + MARGIN))
    return cell


def _clock(frame: int) -> str:
    """Return the time of a frame: seconds below a minute, then minutes and seconds."""
    tenths = round(frame * 10 / FRAMES_PER_SECOND)
    return f"{tenths / 10:.1f} s" if tenths < 600 else f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def shown(picks: Picks, sheet: Tensor, node: Any) -> dict[str, Any]:
    """Return the UI output that shows a contact sheet on the node, with its words for those who read the output."""
    return {**ui.PreviewImage(sheet, cls=node).as_dict(), "text": (picks.in_words(),)}

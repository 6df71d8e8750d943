"""Contact sheet of the chosen reference frames, and the search for scene cuts with ComfyUI's progress bar."""

from __future__ import annotations

from itertools import islice
from typing import Any

import comfy.utils
import numpy as np
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import ui
from PIL import Image, ImageDraw
from torch import Tensor

from ....infinitetalk_core.chunks.job import Reference, plan_video, scene_cuts
from ....infinitetalk_core.chunks.plan import CHUNK_FRAMES, CONTEXT_FRAMES
from ....infinitetalk_core.chunks.reference import PlannedChunk, Policy, ReferenceSettings
from ....infinitetalk_core.rate import FRAMES_PER_SECOND
from ....infinitetalk_core.speech import Speech
from ....infinitetalk_core.video.source import FrameSource

COLUMNS, CELL_PIXELS, LABEL_PIXELS, MAX_CELLS = 6, 160, 18, 36
PROGRESS_STEPS = 100


def cuts_of(source: FrameSource, settings: ReferenceSettings, speech: Speech | None) -> tuple[int, ...]:
    """Find the scene cuts in the part of the source that is used, with a progress bar that can be interrupted."""
    bar = comfy.utils.ProgressBar(PROGRESS_STEPS)

    def report(done: float) -> None:
        throw_exception_if_processing_interrupted()
        bar.update_absolute(round(done * PROGRESS_STEPS), PROGRESS_STEPS)

    return scene_cuts(source, settings, None if speech is None else speech.frames, report)


def contact_sheet(reference: Reference, speech: Speech | None) -> Tensor:
    """Draw the reference frames with their times as one picture (1, H, W, 3): up to 36 frames.

    Plans the chunks of the speech, or without one of the source's own length; with 81 frames and 9 context frames each,
    which the Chunk Sampler may change.
    """
    frames = reference.source.length if speech is None else speech.frames
    times = reference.settings.times_seconds
    if reference.settings.policy is Policy.BY_HAND:
        # Only the chunks with a given time; the Chunk Sampler checks whether there are enough.
        frames = min(frames, max(len(times), 1) * (CHUNK_FRAMES - CONTEXT_FRAMES))
    all_cells = (
        _cell(reference, planned, frame)
        for planned in plan_video(reference, frames)
        for frame in (*planned.choice.frames[:1], *([] if planned.choice.last is None else [planned.choice.last]))
    )
    cells = list(islice(all_cells, MAX_CELLS))
    rows = -(-len(cells) // COLUMNS)
    width = CELL_PIXELS * min(len(cells), COLUMNS)
    height = cells[0].height
    sheet = Image.new("RGB", (width, rows * height), (24, 24, 24))
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % COLUMNS * CELL_PIXELS, number // COLUMNS * height))
    return torch.from_numpy(np.asarray(sheet).copy()).float()[None] / 255


def _cell(reference: Reference, planned: PlannedChunk, frame: int) -> Image.Image:
    chunk, choice = planned.chunk, planned.choice
    picture = (reference.picture(frame) * 255).round().to(torch.uint8).cpu().numpy()
    small = Image.fromarray(picture)
    small.thumbnail((CELL_PIXELS - 4, CELL_PIXELS - 4))
    cell = Image.new("RGB", (CELL_PIXELS, small.height + LABEL_PIXELS + 4), (24, 24, 24))
    cell.paste(small, ((CELL_PIXELS - small.width) // 2, LABEL_PIXELS))
    what = "made" if choice.previous and chunk.index else f"{frame / FRAMES_PER_SECOND:.2f} s"
    more = f" of {len(choice.frames)}" if len(choice.frames) > 1 else ""
    ImageDraw.Draw(cell).text((4, 3), f"{chunk.start / FRAMES_PER_SECOND:.2f} s: {what}{more}", (230, 230, 230))
    return cell


def shown(sheet: Tensor, node: Any) -> Any:
    """Return the UI output that shows a contact sheet on the node."""
    return ui.PreviewImage(sheet, cls=node)

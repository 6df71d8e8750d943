"""Reports the progress of a job in ComfyUI: a progress bar, a line of text on the node, a preview picture."""

from __future__ import annotations

import json
import time
from typing import Any

import comfy.utils
import latent_preview
import psutil
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from PIL import Image
from torch import Tensor

from ....infinitetalk_core.chunks.dub import ChunkOutput
from ....infinitetalk_core.chunks.lip_tries import LipTries
from ....infinitetalk_core.chunks.plan import Chunk
from ....infinitetalk_core.log import log
from ....infinitetalk_core.progress import Progress, seconds_left
from ....infinitetalk_core.rate import FRAMES_PER_SECOND
from ....infinitetalk_core.runs.readable_report import done_in_words, existed_in_words
from ....infinitetalk_core.runs.session import Outcome
from ....infinitetalk_core.runs.store import RunStore
from ....infinitetalk_core.wording import counted
from ..messages import say, warn, write_on_node
from .watching import WatchedRun


class JobProgress:
    """Counts the steps of all chunks. Most of its callbacks also check for an interrupt.

    A chunk is reported as made while the next one is made. The text is that of the chunk in the sampler: the chunks
    before it count as finished.

    Previews show the newest finished frame after each chunk and, if ComfyUI's previews are switched on, the denoised
    estimate of each step.
    """

    def __init__(self, model: Any, chunks: int, steps: int, watched: WatchedRun):
        """watched: hears of the chunks that are joined; of those that are made, the store tells it at once."""
        self.chunks, self.steps, self.watched = chunks, steps, watched
        self.bar = comfy.utils.ProgressBar(chunks * steps)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.done = 0  # steps
        self.frames = 0  # of finished video
        self.missing = chunks
        self.attempt = 1  # to make the chunk in the sampler
        self.begun: set[int] = set()  # chunks that are or were in the sampler, by index
        self.measured: list[float] = []
        self.store: RunStore | None = None
        self.started = self.began = self.latest = time.monotonic()  # the job; the current chunk; the callback before
        self.first_step: float | None = None  # when the first step of the job ended, which also loads the models
        self.steps_measured = 0
        self.unfinished_before = 0  # unfinished videos of earlier executions that the user has changed, and so keeps

    def found(self, done: int, missing: int, store: RunStore) -> None:
        """Record that `done` chunks are finished and `missing` are to be made; report it where a run is continued."""
        self.store, self.missing = store, missing
        self.unfinished_before = len(store.manifest.get("interrupted", []))
        if missing == self.chunks:
            return
        going_on = f"continuing at chunk {done + 1} of {self.chunks}" if missing else "joining the finished chunks"
        there = self.chunks - missing
        say(
            f"{going_on} ({there} of {counted(self.chunks, 'chunk')} {'is' if there == 1 else 'are'} there from before)"
        )

    def warn(self, text: str) -> None:
        """Write a warning to the log and the node."""
        warn(text)

    def check_interrupted(self) -> None:
        """Raise if the user has interrupted; called during long operations."""
        throw_exception_if_processing_interrupted()

    def chunk_joined(self, chunk: Chunk, metrics: dict[str, Any]) -> None:
        """Count a chunk of an earlier session that was added to the video."""
        throw_exception_if_processing_interrupted()
        self._count(chunk, metrics)
        self.watched.chunk_stored(chunk, metrics)
        self.latest = time.monotonic()

    def chunk_made_again(self, tries: LipTries) -> None:
        """Begin to count the steps of a chunk once more, and say so."""
        throw_exception_if_processing_interrupted()
        self.attempt = len(tries.scores) + 1
        self.done, self.began = tries.chunk.index * self.steps, time.monotonic()
        self.bar.update_absolute(self.done, self.chunks * self.steps)
        say(f"{tries}; making it again")

    def chunk_made(self, finished: ChunkOutput, metrics: dict[str, Any]) -> None:
        """Count and show a new chunk that was added to the video."""
        self.measured.append(metrics["seconds_taken"])
        self._begin(finished.chunk)
        self._count(finished.chunk, metrics)
        self.show(finished.frames[-1])
        attempt = 1 if finished.tries is None else len(finished.tries.scores)
        log.info("%s", self._progress(finished.chunk, self.steps, attempt))

    def _count(self, chunk: Chunk, metrics: dict[str, Any]) -> None:
        self.frames += metrics["frames"]
        self.done = max(self.done, (chunk.index + 1) * self.steps)
        self.bar.update_absolute(self.done, self.chunks * self.steps)

    def after_step(self, chunk: Chunk, step: int, denoised: Tensor) -> None:
        """Report that a step (from 0) of `chunk` is done; denoised: its denoised estimate (1, 16, T, h, w)."""
        throw_exception_if_processing_interrupted()
        self._begin(chunk)
        self.steps_measured += 1
        self.first_step = self.first_step or time.monotonic()
        self.done = max(self.done, chunk.index * self.steps + step + 1)
        preview = None
        if self.previewer is not None:
            # Preview the middle of the chunk, since its context frames at the beginning never change.
            middle = denoised[:, :, denoised.shape[2] // 2 :]
            preview = self.previewer.decode_latent_to_preview_image("JPEG", middle)
        self.bar.update_absolute(self.done, self.chunks * self.steps, preview)
        write_on_node(str(self._progress(chunk, step + 1, self.attempt)))
        self.latest = time.monotonic()

    def _begin(self, chunk: Chunk) -> None:
        """Count the time of a chunk from the callback before its first one."""
        if chunk.index not in self.begun:
            self.begun.add(chunk.index)
            self.began, self.attempt = self.latest, 1

    def show(self, frame: Tensor) -> None:
        """Show a finished frame (H, W, 3), or the reference before there is one, as the preview."""
        picture = Image.fromarray((frame.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy())
        preview = ("JPEG", picture, latent_preview.MAX_PREVIEW_RESOLUTION)
        self.bar.update_absolute(self.done, self.chunks * self.steps, preview)

    def end_in_words(self, outcome: Outcome) -> str:
        """Return what the node says at the end of the job."""
        if outcome.existed:
            return existed_in_words(outcome.whole)
        return done_in_words(json.loads(outcome.report), time.monotonic() - self.started, outcome.made)

    def _seconds_left(self, step: int) -> float | None:
        """Estimate the seconds that are left, when `step` steps of the current chunk are done.

        None before the second step of the job: the first one also loads the models and compiles, and so tells nothing.
        """
        if self.first_step is None or self.steps_measured < 2:
            return None
        now = time.monotonic()
        # As long as no chunk is measured, as if its steps had all taken as long as those after the first.
        of_steps = step * (now - self.first_step) / (self.steps_measured - 1)
        elapsed = now - self.began if self.measured else of_steps
        return seconds_left(self.measured, max(self.missing - len(self.begun), 0), elapsed, step / self.steps)

    def _progress(self, chunk: Chunk, step: int, attempt: int) -> Progress:
        return Progress(
            chunk=chunk.index + 1,
            chunks=self.chunks,
            step=step,
            steps=self.steps,
            attempt=attempt,
            seconds_done=max(self.frames, chunk.first) / FRAMES_PER_SECOND,
            seconds_left=self._seconds_left(step),
            memory=psutil.Process().memory_info().rss,
            gpu=torch.cuda.memory_reserved() if torch.cuda.is_available() else None,
            disk=0 if self.store is None else self.store.bytes_used,
        )

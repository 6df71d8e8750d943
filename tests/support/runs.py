"""Execute a run of small pictures like the host does, on a disk that can fail."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks.conditioning import ChunkConditioning
from infinitetalk_core.chunks.job import ColorHold, Job, Output
from infinitetalk_core.chunks.redo import AfterRedo, Redo
from infinitetalk_core.runs.disk import Disk
from infinitetalk_core.runs.runner import Run
from infinitetalk_core.runs.session import Outcome, OutputSpec, RunOptions, execute_run
from infinitetalk_core.runs.store import RunStore
from infinitetalk_core.sampling.euler import pin
from infinitetalk_core.video.format import VideoFormat
from infinitetalk_core.video.source import PictureBatch

from .models import PlainModels, make_job

TOTAL = 25  # frames: 13 + 8 + 4 new ones in three chunks
KEY = "0123456789abcdef"


class InputSensitiveModels(PlainModels):
    """Make each chunk depend on its noise, reference and context, so that an error in any of them is visible."""

    def denoise(self, conditioning: ChunkConditioning, after_step: Callable[[int, Tensor], None]) -> Tensor:
        """Return a mixture of all inputs."""
        self.seen.append(conditioning)
        latents = 0.4 + 0.2 * conditioning.noise + 0.3 * conditioning.context.mean() + 0.1 * conditioning.reference
        after_step(0, latents)
        return pin(latents, conditioning.context)


class FailingDisk(Disk):
    """Count all operations, and call `how` at operation number `fails_at`.

    lasting: also call it at each later writing operation.
    """

    def __init__(
        self, fails_at: int | None = None, how: Callable[[], None] | None = None, lasting: bool = False
    ) -> None:
        self.count, self.fails_at, self.how, self.lasting = 0, fails_at, how or no_space, lasting

    def _count_operation(self, writes: bool = True) -> None:
        self.count += 1
        happened = self.fails_at is not None and self.count > self.fails_at
        if self.count == self.fails_at or (happened and self.lasting and writes):
            self.how()

    def make_folder(self, path: Path) -> None:
        self._count_operation()
        super().make_folder(path)

    def remove(self, path: Path) -> None:
        self._count_operation(writes=False)
        super().remove(path)

    def _open(self, path):
        self._count_operation()
        return super()._open(path)

    def _put(self, file, data):
        self._count_operation()
        super()._put(file, data[: len(data) // 2])
        self._count_operation()
        super()._put(file, data[len(data) // 2 :])

    def _sync(self, file):
        self._count_operation()
        super()._sync(file)

    def _move(self, scratch, path):
        self._count_operation()
        super()._move(scratch, path)
        self._count_operation()


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def power_cut() -> None:
    """End the process without any cleanup."""
    os._exit(137)


@dataclass
class SessionLog:
    """Listener that records the calls of an execution."""

    found_done: int | None = None
    made: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    on_chunk: Callable[[int], None] = lambda chunk: None

    def found(self, done: int, missing: int, store: RunStore) -> None:
        self.found_done = done

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def check_interrupted(self) -> None:
        pass

    def after_step(self, chunk, step, denoised) -> None:
        self.on_chunk(chunk.index + 1)

    def chunk_made_again(self, tries) -> None:
        self.again.append(str(tries))

    def chunk_made(self, finished, metrics) -> None:
        self.made.append(finished.chunk.index + 1)

    def chunk_joined(self, chunk, metrics) -> None:
        self.joined.append(chunk.index + 1)


def portrait() -> PictureBatch:
    generator = torch.Generator().manual_seed(5)
    return PictureBatch(torch.rand(30, 32, 48, 3, generator=generator))


def small_job(total: int = TOTAL, **options: Any) -> Job:
    """Return a job with color hold, as by default."""
    job = make_job(options.pop("source", None) or portrait(), total, color=ColorHold(0.7, over=1), **options)
    sound = Sound(torch.sin(torch.arange(total * 640) * 0.05)[None] * 0.3, 16000)
    return replace(job, speech=replace(job.speech, sound=sound), output=Output(VideoFormat(crf=20)))


@dataclass
class RunFolder:
    """A folder with runs and videos; `dub` executes a run."""

    root: Path
    job: Job = field(default_factory=small_job)
    name: str = "v.mp4"
    key: str = KEY
    key_contents: dict[str, Any] = field(default_factory=lambda: {"job": {"seed": 0}, "versions": {"torch": "1"}})
    keep: bool = False
    readable: bool = False
    models: PlainModels = field(default_factory=InputSensitiveModels)

    @property
    def folder(self) -> Path:
        return self.root / "runs" / self.key

    def new_path(self) -> Path:
        """Return an unused path like the host does."""
        path, number = self.root / self.name, 2
        while path.exists() or path.with_suffix(".json").exists():
            path, number = (self.root / self.name).with_stem(f"{Path(self.name).stem}_{number}"), number + 1
        return path

    def dub(
        self,
        disk: Disk | None = None,
        notes: SessionLog | None = None,
        redo: str = "",
        after_redo: AfterRedo = AfterRedo.CONTINUE,
        start_over: bool = False,
        first_chunk_only: bool = False,
    ) -> Outcome:
        output = replace(self.job.output, first_chunk_only=first_chunk_only)
        job = replace(self.job, redo=Redo(redo, after_redo), output=output)
        wanted = OutputSpec(
            key_contents=self.key_contents,
            filename_prefix=self.name,
            root=self.root,
            new_path=self.new_path,
            metadata={"prompt": "{}"},
            sound=job.speech.sound,
            report=lambda metrics, complete, began: json.dumps(
                {"run": f"runs/{self.key}", "complete": complete, "chunks": metrics}
            ),
            readable=self.readable,
        )
        options = RunOptions(start_over, self.keep or bool(redo))
        return execute_run(
            self.folder, wanted, lambda store: Run(job, self.models, store), notes or SessionLog(), options, disk
        )

    def interrupt_at(self, chunk: int, **options: Any) -> None:
        """Execute the run, and interrupt it in this chunk, counted from 1. options: of `dub`."""

        def strike(now: int) -> None:
            if now == chunk:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.dub(notes=SessionLog(on_chunk=strike), **options)

    def videos(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*.mp4"))

"""Measure how much of a chunk's work beside the GPU is hidden behind the next chunk, with and without the worker.

    .venv/bin/python benchmarks/overlap.py [--seconds 9 25 --chunks 3 --height 480 --width 832 --sdedit]

The sampler sleeps, as Python does while a GPU computes: 9 s a chunk are an H100 at 480p and 4 steps, 25 s a 4090.
Everything else is a run's own work on real frames: reading the source (a 720p file), numbers, H.264, hashing, the
files. Colors and VAE are off: they are the GPU's. Waits are counted from the end of a chunk's sampling to the beginning
of the next one's; what follows the last chunk is not hidden.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks.conditioning import LATENT_CHANNELS, VAE_STRIDE
from infinitetalk_core.chunks.job import ColorHold, Job, Reference, Sampling
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.chunks.sizes import fit_to
from infinitetalk_core.runs import runner
from infinitetalk_core.runs.runner import Run
from infinitetalk_core.runs.session import OutputSpec, RunOptions, execute_run
from infinitetalk_core.runs.worker import Worker
from infinitetalk_core.speech import Speech
from infinitetalk_core.video.format import VideoFormat
from infinitetalk_core.video.segment import encode_segment
from infinitetalk_core.video.source import VideoFile

PORTRAIT = Path(__file__).resolve().parent.parent / "samples" / "portrait.png"
STEPS = 4


def moving_picture(count: int, height: int, width: int) -> Tensor:
    """Return a photograph under a slowly moving camera, with a little grain: (count, height, width, 3)."""
    picture = torch.from_numpy(np.array(Image.open(PORTRAIT).convert("RGB")))
    large = fit_to(picture, height + 64, width + 64)
    generator = torch.Generator().manual_seed(0)
    frames = [
        large[i % 64 : i % 64 + height, i * 2 % 64 : i * 2 % 64 + width]
        + 0.01 * torch.randn(height, width, 1, generator=generator)
        for i in range(count)
    ]
    return torch.stack(frames).clamp(0, 1)


@dataclass
class SleepingModels:
    """Models that take no CPU time: a sampler that sleeps, a VAE that returns the same frames."""

    seconds: float
    frames: Tensor
    sampled: list[tuple[float, float]] = field(default_factory=list)

    def encode(self, frames: Tensor) -> Tensor:
        """Return gray latents."""
        height, width = frames.shape[1] // VAE_STRIDE, frames.shape[2] // VAE_STRIDE
        return torch.zeros(1, LATENT_CHANNELS, 1 + (len(frames) - 1) // 4, height, width)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the frames."""
        return self.frames

    def encode_image(self, picture: Tensor) -> None:
        """Return nothing, as without CLIP vision."""

    def denoise(self, conditioning: Any, after_step: Callable[[int, Tensor], None]) -> Tensor:
        """Sleep, step by step."""
        began = time.monotonic()
        for step in range(STEPS):
            time.sleep(self.seconds / STEPS)
            after_step(step, conditioning.noise)
        self.sampled.append((began, time.monotonic()))
        return conditioning.noise


class SameThread(Worker):
    """A worker that does everything at once, as the pack did before it had one."""

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        """Run `task` now."""
        future: Future[Any] = Future()
        future.set_result(task())
        return future


class Silent:
    """A listener that does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


def make_video(folder: Path, job: Job, models: SleepingModels, worker: type[Worker]) -> tuple[float, bytes]:
    """Return the seconds that a run takes, and its video."""
    folder.mkdir()
    runner.Worker = worker  # type: ignore[misc]
    output = OutputSpec(
        key_contents={},
        filename_prefix="v",
        root=folder,
        new_path=lambda: folder / "v.mp4",
        metadata={},
        sound=job.speech.sound,
        report=lambda metrics, complete, began: json.dumps({"run": "runs/run", "chunks": metrics}),
    )
    began = time.monotonic()
    outcome = execute_run(
        folder / "runs" / "run", output, lambda store: Run(job, models, store), Silent(), RunOptions()
    )
    return time.monotonic() - began, outcome.path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[9.0, 25.0], help="of the sampler, a chunk")
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--sdedit", action="store_true", help="read all frames of the source for each chunk")
    options = parser.parse_args()
    total = 81 + 72 * (options.chunks - 1)
    frames = moving_picture(81, options.height, options.width)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        film.write_bytes(encode_segment(moving_picture(total, 720, 1280), VideoFormat()))
        print(f"{total} frames of {options.width} x {options.height} in {options.chunks} chunks")
        print("sampler  worker    waits between chunks   after the last one   in all   hidden")
        for seconds in options.seconds:
            visible: dict[str, float] = {}
            videos = set()
            for name, worker in (("none", SameThread), ("thread", Worker)):
                models = SleepingModels(seconds, frames)
                job = Job(
                    Speech((torch.zeros(total, 1, 2),), Sound(torch.zeros(1, total * 640), 16000)),
                    Reference(VideoFile(film), options.height, options.width, ReferenceSettings(Policy.CHUNK_START)),
                    Sampling(color=ColorHold(0.0), seam_fade=0, sdedit=(0.9,) if options.sdedit else ()),
                )
                taken, video = make_video(Path(folder) / f"{seconds:g} {name}", job, models, worker)
                waits = [later[0] - earlier[1] for earlier, later in pairwise(models.sampled)]
                visible[name] = sum(waits)
                videos.add(video)
                after = taken - (models.sampled[-1][1] - models.sampled[0][0])
                hidden = f"{1 - visible[name] / visible['none']:7.1%}" if name == "thread" else ""
                each = " ".join(f"{wait:5.2f} s" for wait in waits)
                print(f"{seconds:5.1f} s  {name:6} {each:>24} {after:18.2f} s {taken:7.1f} s {hidden}", flush=True)
            assert len(videos) == 1, "the same video"


if __name__ == "__main__":
    main()

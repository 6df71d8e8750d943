"""Progress of a whole job as text, and the estimate of the remaining time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .rate import FRAMES_PER_SECOND

LATEST = 5  # chunks whose median time predicts that of the others


@dataclass(frozen=True)
class Progress:
    """Progress of a job. chunk, step and attempt count from 1; sizes in bytes; gpu is None without a GPU."""

    chunk: int
    chunks: int
    step: int
    steps: int
    seconds_done: float  # of video that is finished
    seconds_left: float | None  # None as long as nothing was measured that tells it
    memory: int
    gpu: int | None
    disk: int  # of the run's folder and the video
    attempt: int = 1  # to make this chunk

    def __str__(self) -> str:
        """For example `chunk 3/12, step 7/40, 5.8 s of video, memory 3.1 GB, disk 41 MB, 4 min 10 s left`."""
        parts = [
            f"chunk {self.chunk}/{self.chunks}{'' if self.attempt == 1 else f' (try {self.attempt})'}",
            f"step {self.step}/{self.steps}",
            f"{self.seconds_done:.1f} s of video",
            f"memory {describe_bytes(self.memory)}",
            *([] if self.gpu is None else [f"GPU {describe_bytes(self.gpu)}"]),
            f"disk {describe_bytes(self.disk)}",
            *([] if self.seconds_left is None else [f"{describe_seconds(self.seconds_left)} left"]),
        ]
        return ", ".join(parts)


def seconds_left(measured: Sequence[float], chunks_left: int, elapsed: float, share: float) -> float:
    """Estimate the seconds that a job still takes.

    measured: seconds of each chunk made so far; chunks_left: chunks to make after the current one; elapsed: seconds
    since the current one began; share: finished share of its steps, above 0, used only while `measured` is empty.
    """
    chunk = median(measured[-LATEST:]) if measured else elapsed / share
    return max(chunk - elapsed, 0.0) + chunk * chunks_left


def describe_length(frames: int) -> str:
    """Format the length of a video: seconds with two decimals below a minute, then as `describe_seconds` does."""
    seconds = frames / FRAMES_PER_SECOND
    return f"{seconds:.2f} s" if seconds < 60 else describe_seconds(seconds)


def describe_seconds(seconds: float) -> str:
    """Format as seconds below a minute, then as minutes and seconds, then as hours and minutes."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def describe_bytes(count: int) -> str:
    """Format in MB below a gigabyte, else in GB with one decimal; decimal units (powers of 1000)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

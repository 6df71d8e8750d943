"""Camera control: the guidance video that tells Uni3C how the camera moves, window by window, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from ..fingerprint import Component
from ..video.source import FrameSource
from .plan import Chunk
from .reference import AfterEnd, shown_frames
from .sizes import fit_to


@dataclass(frozen=True)
class View:
    """The guidance of one chunk.

    frames (F, H, W, 3); of a rendered path also mask (1, 1, F, H, W), 1 where nothing was rendered, and rays
    (1, 6, F, H, W), the camera embedding. A filmed video has neither: its camera is not known.
    """

    frames: Tensor
    mask: Tensor | None = None
    rays: Tensor | None = None


@dataclass(frozen=True)
class CameraConditioning:
    """What the ControlNet gets for a chunk: latents (1, 16, T, h, w) of the guidance, and its view."""

    latents: Tensor
    mask: Tensor | None
    rays: Tensor | None


class CameraGuide(Protocol):
    """A guidance video of any length."""

    def view(self, chunk: Chunk, height: int, width: int) -> View:
        """The guidance at the chunk's time and at the video's size."""


@dataclass(frozen=True)
class FilmedGuide:
    """The camera of a video, read by time: the source itself or one that was rendered elsewhere."""

    source: FrameSource
    after_end: AfterEnd = AfterEnd.HOLD

    def view(self, chunk: Chunk, height: int, width: int) -> View:
        """The frames of the chunk's time; of a still picture, the picture."""
        return View(source_window(self.source, chunk, self.after_end, height, width))


def source_window(source: FrameSource, chunk: Chunk, after_end: AfterEnd, height: int, width: int) -> Tensor:
    """The frames of `source` at the chunk's time and at the video's size: (length, height, width, 3)."""
    shown = shown_frames(chunk, source.length, after_end)
    # Each frame once and in order: a file is read forwards, and a held frame is fitted once.
    pictures = {n: fit_to(source.frame(n), height, width) for n in sorted(set(shown))}
    return torch.stack([pictures[n] for n in shown])


@dataclass(frozen=True)
class CameraControl:
    """Uni3C for a job. guide: None for the source itself; start, end: shares of the schedule between which it acts."""

    controlnet: Component
    guide: CameraGuide | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise InputError(
                f"start and end must be between 0 and 1 and in this order, got {self.start:g} and {self.end:g}"
            )

    def acts_at(self, sigma: float, sigmas: Tensor) -> bool:
        """Whether the noise level `sigma` lies in the asked part of the schedule `sigmas` (steps + 1,).

        From the start and to the end are without a bound: samplers that add noise go above the schedule.
        """
        low = 0.0 if self.end == 1 else level_at(sigmas, self.end) - 1e-6
        high = float("inf") if self.start == 0 else level_at(sigmas, self.start) + 1e-6
        return low <= sigma <= high


def level_at(sigmas: Tensor, share: float) -> float:
    """The noise level after `share` of the steps, between steps in proportion."""
    place = share * (len(sigmas) - 1)
    low = min(int(place), len(sigmas) - 2)
    return float(sigmas[low] + (sigmas[low + 1] - sigmas[low]) * (place - low))

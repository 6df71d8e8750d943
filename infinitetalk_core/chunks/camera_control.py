"""Camera control with Uni3C: the guidance video of each chunk, and strength and schedule range of the ControlNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..fingerprint import Component
from ..sampling.schedule import acts_at, check_range
from ..video.source import FrameSource, pixels_of
from .plan import Chunk
from .reference import AfterEnd, shown_frames
from .sizes import fit_to


@dataclass(frozen=True)
class View:
    """The guidance video of one chunk.

    frames: (F, H, W, 3); mask: (1, 1, F, H, W), 1 where nothing was rendered; rays: (1, 6, F, H, W), the camera
    embedding. mask and rays exist for a rendered camera path only, because the camera of a filmed video is unknown.
    """

    frames: Tensor
    mask: Tensor | None = None
    rays: Tensor | None = None


@dataclass(frozen=True)
class CameraConditioning:
    """Input of the ControlNet for a chunk: latents (1, 16, T, h, w) of the guidance, mask and rays as in `View`."""

    latents: Tensor
    mask: Tensor | None
    rays: Tensor | None


class CameraGuide(Protocol):
    """Source of guidance for videos of any length."""

    def view(self, chunk: Chunk, height: int, width: int) -> View:
        """Return the guidance for the chunk's frames at the video's size."""


@dataclass(frozen=True)
class FilmedGuide:
    """Guidance from a video, read by time: the source itself or a video rendered elsewhere."""

    source: FrameSource
    after_end: AfterEnd = AfterEnd.HOLD

    def view(self, chunk: Chunk, height: int, width: int) -> View:
        """Return the video's frames for the chunk; a still picture is repeated."""
        shown = shown_frames(chunk, self.source.length, self.after_end)
        return View(stack_shown(shown, lambda frame: fit_to(pixels_of(self.source, frame), height, width)))


def stack_shown(shown: Sequence[int], picture: Callable[[int], Tensor]) -> Tensor:
    """Read the source frames `shown` with `picture`: (frames, height, width, 3)."""
    # Each frame once and in order, so that a file is read forward and a repeated frame is resized once.
    pictures = {frame: picture(frame) for frame in sorted(set(shown))}
    return torch.stack([pictures[frame] for frame in shown])


@dataclass(frozen=True)
class CameraControl:
    """Settings of Uni3C.

    guide: None for the source itself; start, end: range of its effect, as shares of the schedule.
    """

    controlnet: Component
    guide: CameraGuide | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_range("start and end", self.start, self.end)

    def acts_at(self, sigma: float, sigmas: Tensor) -> bool:
        """Return whether it acts at noise level `sigma` of the schedule `sigmas`, see `acts_at` of the schedule."""
        return acts_at(sigma, sigmas, self.start, self.end)

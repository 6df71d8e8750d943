"""The guidance video that tells Uni3C how the camera moves, window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

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

"""Provide a drawn speaker as a video whose frames are rendered on demand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .articulation import Articulation
from .characters import Character, make_character
from .performance import CameraMove, Performance, move_camera, perform, silent_performance, still_camera
from .render import part_masks, render


@dataclass(frozen=True)
class DrawnVideo:
    """A `FrameSource` (video/source.py) with exact ground truth: character, performance and camera."""

    character: Character
    performance: Performance
    camera: CameraMove
    size: int = 96

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return self.size

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return self.size

    @property
    def length(self) -> int:
        """Return the number of frames, at 25 fps."""
        return len(self.performance)

    def frame(self, index: int) -> Tensor:
        """Return the frame (H, W, 3) at index/25 s."""
        return self.frames(index, index + 1)[0]

    def frames(self, start: int, stop: int) -> Tensor:
        """Return frames start … stop-1: (F, H, W, 3) in [0, 1]."""
        pixels = render(
            self.character, self.performance.window(start, stop), self.camera.window(start, stop), self.size
        )
        return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255

    def parts(self, start: int, stop: int) -> Tensor:
        """Return which of PARTS covers each pixel of frames start … stop-1: (F, len(PARTS), H, W), bool."""
        masks = part_masks(
            self.character, self.performance.window(start, stop), self.camera.window(start, stop), self.size
        )
        return torch.from_numpy(masks)

    def close(self) -> None:
        """Do nothing: the source holds no open file."""


def speaking(articulation: Articulation, seed: int, *, moving_camera: bool, size: int = 96) -> DrawnVideo:
    """Return a video of the character `seed` speaking with the given articulation."""
    performance = perform(articulation, seed)
    camera = move_camera(seed, len(performance)) if moving_camera else still_camera(len(performance))
    return DrawnVideo(make_character(seed), performance, camera, size)


def listening(frames: int, seed: int, *, moving_camera: bool, size: int = 96) -> DrawnVideo:
    """Return a video of the character `seed` moving and blinking with a closed mouth: a source to dub."""
    camera = move_camera(seed, frames) if moving_camera else still_camera(frames)
    return DrawnVideo(make_character(seed), silent_performance(frames, seed), camera, size)

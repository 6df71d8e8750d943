"""Clips of drawn speakers to train the autoencoder on, and pixel weights for its loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .articulation import Articulation
from .characters import make_character
from .performance import move_camera, perform, still_camera
from .render import MOUTH_INTERIOR, render

FASTEST_MOUTH = 6.0  # Hz
MOUTH_WEIGHT, MOTION_WEIGHT, EDGE_WEIGHT = 6.0, 3.0, 2.0
MOUTH_REACH = 9  # pixels around the inside of a mouth that also count as mouth


@dataclass(frozen=True)
class ClipShape:
    """The size of a training batch: clips, frames per clip, side of the square crop."""

    batch: int
    frames: int
    side: int


def random_mouth(frames: int, seed: int) -> Articulation:
    """Return a mouth that moves faster than speech: waves of up to 6 Hz with pauses, so that it covers all speech."""
    rng = np.random.default_rng([seed, 0x6D6F75])
    seconds = np.arange(frames) / 25.0
    waves = rng.uniform(0.5, FASTEST_MOUTH, 5)
    phases = rng.uniform(0, 2 * np.pi, (2, 5))
    swing = np.sin(2 * np.pi * seconds[:, None] * waves + phases[0]).sum(1) / 2.2
    speaking = np.sin(2 * np.pi * seconds * rng.uniform(0.3, 1.5) + phases[1, 0]) > rng.uniform(-1.2, 0.2)
    opening = np.where(speaking, np.clip(0.4 + 0.45 * swing, 0, 1), 0.0)
    width = np.clip(0.6 * np.sin(2 * np.pi * seconds * waves[0] / 2 + phases[1, 1]), -1, 1)
    tracks = [np.asarray(t, np.float32) for t in (opening, width, 0.8 * speaking * (0.5 + 0.5 * opening))]
    return Articulation(*tracks)


def draw_clip(seed: int, frames: int, size: int) -> NDArray[np.uint8]:
    """Return a video (F, size, size, 3) of the speaker of a seed; the camera moves for every other seed."""
    camera = move_camera(seed, frames) if seed % 2 else still_camera(frames)
    return render(make_character(seed), perform(random_mouth(frames, seed), seed), camera, size)


class ClipPool:
    """Drawn clips in memory, from which random batches are cropped."""

    def __init__(self, clips: int, frames: int, size: int, first_seed: int = 0) -> None:
        drawn = [draw_clip(first_seed + i, frames, size) for i in range(clips)]
        self.clips = torch.from_numpy(np.stack(drawn))

    def batch(self, shape: ClipShape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return pictures (B, 3, F, s, s) in [-1, 1] and the weight of each pixel (B, 1, F, s, s)."""
        pieces = torch.stack([self._piece(shape, rng) for _ in range(shape.batch)])
        pieces = pieces.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        weight = importance(pieces)
        return torch.stack([_augment(clip, rng) for clip in pieces]), weight

    def _piece(self, shape: ClipShape, rng: np.random.Generator) -> Tensor:
        _, frames, height, width, _ = self.clips.shape
        start = rng.integers(frames - shape.frames + 1)
        # Crops near the middle are more frequent, since the face is there.
        top, left = (round(float(rng.beta(1.6, 1.6)) * (side - shape.side)) for side in (height, width))
        clip = self.clips[rng.integers(len(self.clips)), start : start + shape.frames]
        clip = clip[:, top : top + shape.side, left : left + shape.side]
        return clip.flip(2) if rng.random() < 0.5 else clip


def _augment(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a clip (3, F, s, s) with varied colors; one in ten is a frame followed by mid-gray, as references are."""
    if rng.random() < 0.1:
        clip = torch.cat((clip[:, :1], torch.zeros_like(clip[:, 1:])), dim=1)
    if rng.random() < 0.5:
        # Permute the channels, so that all directions in color space are equally frequent.
        clip = clip[torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.5:
        return clip
    gain = clip.new_tensor(rng.normal(1.0, 0.06, (3, 1, 1, 1)))
    level = clip.new_tensor(rng.normal(0.0, 0.05, (3, 1, 1, 1)))
    return (clip * gain + level).clamp(-1.0, 1.0)


def importance(clips: Tensor) -> Tensor:
    """Return the weight (B, 1, F, s, s) of each pixel, at least 1: mouths most, then motion, then edges."""
    color = clips.new_tensor(MOUTH_INTERIOR).view(1, 3, 1, 1, 1) / 127.5 - 1.0
    inside = ((clips - color).abs().amax(1, keepdim=True) < 0.2).float().amax(2, keepdim=True)
    near = F.max_pool3d(inside, (1, MOUTH_REACH, MOUTH_REACH), 1, (0, MOUTH_REACH // 2, MOUTH_REACH // 2))
    change = (clips.amax(2, keepdim=True) - clips.amin(2, keepdim=True)).amax(1, keepdim=True)
    spread = F.max_pool3d(clips, (1, 3, 3), 1, (0, 1, 1)) + F.max_pool3d(-clips, (1, 3, 3), 1, (0, 1, 1))
    edge = spread.amax(1, keepdim=True)
    weight = 1.0 + MOTION_WEIGHT * change.clamp(0, 0.5) + EDGE_WEIGHT * edge.clamp(0, 0.5)
    return torch.maximum(weight, MOUTH_WEIGHT * near).expand(-1, -1, clips.shape[2], -1, -1)

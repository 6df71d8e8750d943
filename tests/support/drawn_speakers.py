"""Drawn speakers with random mouth movements, for tests of the metrics. Needs OpenCV."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evaluation.camera_motion import CameraTrack
from training.articulation import Articulation
from training.characters import make_character
from training.performance import CameraMove, move_camera, perform, still_camera
from training.render import render

UNSEEN = 1_000_000  # first seed of the characters that are never trained on
_BACKDROP_FOLLOWS = 0.85  # factor on the camera's movement: far objects move less


def random_voice(frames: int, seed: int) -> Articulation:
    """Return a mouth that opens and closes at random, about as fast as in speech."""
    rng = np.random.default_rng(seed)
    track, width = (np.convolve(rng.normal(size=frames + 8), np.hanning(9), "valid")[:frames] for _ in range(2))
    opening = np.clip(0.3 + 0.35 * track / max(track.std(), 1e-6), 0, 1)
    energy = np.convolve(opening, np.ones(5) / 5, "same")
    return Articulation(*(np.asarray(t, np.float32) for t in (opening, np.clip(0.4 * width, -1, 1), energy)))


def draw(character: int, voice: Articulation, acting: int, camera: CameraMove | None = None) -> Tensor:
    """Draw the character with the mouth of `voice` and movements of seed `acting`: (F, 96, 96, 3) in [0, 1]."""
    pixels = render(make_character(character), perform(voice, acting), camera or still_camera(len(voice)))
    return torch.from_numpy(pixels).float() / 255


def true_camera(seed: int, frames: int) -> tuple[CameraMove, CameraTrack]:
    """Return a camera movement, and the resulting movement of the wall behind a speaker relative to the first frame."""
    move = move_camera(seed, frames)
    turned = move.zoom.astype(float) ** _BACKDROP_FOLLOWS * np.exp(1j * move.roll)
    moved = _BACKDROP_FOLLOWS * (move.pan_x + 1j * move.pan_y)
    whole = turned / turned[0]
    position = moved - whole * moved[0]
    return move, CameraTrack(position.real, position.imag, abs(whole), np.angle(whole))

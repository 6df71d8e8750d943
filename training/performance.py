"""Generate the movements of a drawn speaker and of the camera at 25 fps: the ground truth of a video."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infinitetalk_core.errors import InputError
from infinitetalk_core.rate import FRAMES_PER_SECOND

from .articulation import Articulation

_BLINK = np.array([0.35, 0.85, 1.0, 0.85, 0.5, 0.2], np.float32)

Track = NDArray[np.float32]
_Tracks = TypeVar("_Tracks", bound="_FrameTracks")


@dataclass(frozen=True)
class _FrameTracks:
    """Tracks of equal length that are indexed and cut together."""

    def __len__(self) -> int:
        first: Track = getattr(self, fields(self)[0].name)
        return len(first)

    def at(self: _Tracks, frames: ArrayLike) -> _Tracks:
        """Return the frames with these indices, in the given order; an index may repeat."""
        index = np.asarray(frames, np.int64)
        return type(self)(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def window(self: _Tracks, start: int, stop: int) -> _Tracks:
        """Return frames start … stop - 1. Raises InputError if some of them do not exist."""
        if not 0 <= start < stop <= len(self):
            raise InputError(f"Frames {start} to {stop - 1} are not in a performance of {len(self)} frames.")
        return self.at(np.arange(start, stop))


@dataclass(frozen=True)
class Performance(_FrameTracks):
    """The movements of a drawn speaker, one value per frame; all fields (F,) float32."""

    opening: Track  # of the mouth, 0 closed … 1 wide open
    width: Track  # of the mouth, -1 rounded … 1 spread
    yaw: Track  # radians, positive to the right of the picture
    pitch: Track  # radians, positive down
    roll: Track  # radians, positive clockwise
    shift_x: Track  # of the head, in picture widths
    shift_y: Track
    blink: Track  # 0 eyes open … 1 shut
    gaze_x: Track  # -1 left … 1 right
    gaze_y: Track
    brow: Track  # -1 lowered … 1 raised
    shoulders: Track  # lift, in picture widths
    hand: Track  # how far a hand is raised into the picture; negative: the left hand


@dataclass(frozen=True)
class CameraMove(_FrameTracks):
    """The camera's view, one value per frame; all fields (F,) float32."""

    pan_x: Track  # how far the scene moves to the right, in picture widths
    pan_y: Track  # how far it moves down
    zoom: Track  # enlargement about the middle of the picture, 1 = none
    roll: Track  # radians that the scene turns clockwise about the middle


def _wander(rng: np.random.Generator, frames: int, slowest: float, fastest: float) -> NDArray[np.float64]:
    """Return a smooth, aperiodic movement of about -1 to 1: a sum of five waves, frequencies in Hz."""
    seconds = np.arange(frames) / FRAMES_PER_SECOND
    frequency = np.exp(rng.uniform(np.log(slowest), np.log(fastest), 5))
    strength = frequency**-0.5
    waves = np.sin(2 * np.pi * (np.outer(seconds, frequency) + rng.random(5))) @ strength
    return waves / (2.2 * np.linalg.norm(strength) / np.sqrt(2))


def _smooth(track: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Return a Hann-weighted running mean over about `frames` frames; the end values are repeated beyond the ends."""
    window = np.hanning(2 * frames + 1)
    padded = np.pad(track, frames, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _stress(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the voice is louder than around it: 0 to about 1, as smooth as a nod."""
    rise = np.clip(_smooth(energy, 3) - _smooth(energy, 16), 0, None)
    return np.clip(_smooth(rise, 8) * 5, 0, 1)


def _blinks(rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """Return a blink about every three seconds, never two within a second."""
    track = np.zeros(frames + len(_BLINK))
    start = int(rng.uniform(0, 75))
    while start < frames:
        track[start : start + len(_BLINK)] = _BLINK
        start += int(25 + rng.gamma(2.0, 25.0))
    return track[:frames]


def _gaze(rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """Return the gaze (2, F): mostly into the camera, sometimes aside, with quick changes."""
    track = np.zeros((2, frames))
    start = 0
    while start < frames:
        stop = start + int(rng.uniform(18, 70))
        track[:, start:stop] = rng.normal(0, (0.45, 0.25), 2)[:, None] * (rng.random() < 0.6)
        start = stop
    return np.clip(np.stack([_smooth(row, 3) for row in track]), -1, 1)


def _raised_hand(rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """Return a hand that is raised for two or three seconds, on average once in half a minute."""
    track = np.zeros(frames)
    start = int(rng.exponential(700))
    while start < frames:
        stop = start + int(rng.uniform(40, 80))
        track[start:stop] = rng.choice((-1.0, 1.0)) * rng.uniform(0.75, 1.0)
        start = stop + int(40 + rng.exponential(700))
    return _smooth(track, 8)


def perform(articulation: Articulation, seed: int) -> Performance:
    """Return a speaker's performance (F frames): the mouth as articulated, all other movements drawn by `seed`."""
    frames = len(articulation)
    if frames < 1:
        raise InputError("A performance needs at least one frame of articulation.")
    rng = np.random.Generator(np.random.PCG64([seed, 0x706572]))
    seconds = np.arange(frames) / FRAMES_PER_SECOND
    stress = _stress(np.asarray(articulation.energy, np.float64))
    liveliness = rng.uniform(0.7, 1.15)
    breath = np.sin(2 * np.pi * (seconds * rng.uniform(0.22, 0.32) + rng.random()))
    gaze = _gaze(rng, frames)
    yaw = 0.28 * liveliness * _wander(rng, frames, 0.08, 0.45) + rng.uniform(-0.1, 0.1)
    tracks = {
        "opening": np.clip(articulation.opening, 0, 1),
        "width": np.clip(articulation.width, -1, 1),
        "yaw": 0.34 * np.tanh(yaw / 0.34),
        "pitch": 0.09 * liveliness * _wander(rng, frames, 0.08, 0.5) + 0.13 * stress - 0.02,
        "roll": 0.055 * liveliness * _wander(rng, frames, 0.06, 0.4) + 0.1 * yaw,
        "shift_x": 0.014 * liveliness * _wander(rng, frames, 0.06, 0.35) + 0.03 * yaw,
        "shift_y": 0.008 * _wander(rng, frames, 0.06, 0.4) + 0.008 * stress,
        "blink": _blinks(rng, frames),
        "gaze_x": gaze[0],
        "gaze_y": gaze[1],
        "brow": np.clip(0.35 * _wander(rng, frames, 0.08, 0.3) + 0.8 * stress, -1, 1),
        "shoulders": 0.006 * breath + 0.012 * stress,
        "hand": _raised_hand(rng, frames),
    }
    return Performance(**{name: np.asarray(track, np.float32) for name, track in tracks.items()})


def silent_performance(frames: int, seed: int) -> Performance:
    """Return a listener's performance (F frames): head, eyes and breath move, the mouth stays closed."""
    still = np.zeros(max(frames, 0), np.float32)
    return perform(Articulation(opening=still, width=still, energy=still), seed)


def still_camera(frames: int) -> CameraMove:
    """Return a static camera."""
    zero = np.zeros(frames, np.float32)
    return CameraMove(pan_x=zero, pan_y=zero, zoom=np.ones(frames, np.float32), roll=zero)


def move_camera(seed: int, frames: int) -> CameraMove:
    """Return a camera movement drawn by `seed`: a pan, a zoom, a hand-held shake, or two of them."""
    rng = np.random.Generator(np.random.PCG64([seed, 0x63616D]))
    pan, zoom, shake = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)][rng.integers(6)]
    pace = rng.uniform(0.05, 0.16)
    sweep = np.stack([_wander(rng, frames, pace, 1.6 * pace) for _ in range(2)])
    tremble = np.stack([_wander(rng, frames, 0.5, 3.0) for _ in range(3)])
    reach = np.array([rng.uniform(0.05, 0.09), rng.uniform(0.01, 0.035)])[:, None]
    path = pan * reach * sweep + shake * rng.uniform(0.006, 0.014) * tremble[:2]
    closer = rng.uniform(0.06, 0.12) * (1 + _wander(rng, frames, pace, 1.6 * pace))
    tracks = {
        "pan_x": path[0],
        "pan_y": path[1],
        "zoom": np.exp(zoom * closer),
        "roll": shake * rng.uniform(0.004, 0.012) * tremble[2],
    }
    return CameraMove(**{name: np.asarray(track, np.float32) for name, track in tracks.items()})

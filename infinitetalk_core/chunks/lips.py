"""Lip sync of a real face: how well its mouth follows the voice.

The mouth: the gap between the inner lips, the gap between the outer lips, and how far the chin is from the bridge of
the nose, by the points of the face (face_points.py), which are found in every second frame.

What the voice asks for: loudness where vowels are loud, minus loudness where an almost closed mouth is (the voice's
lowest tones, a hissing s), in six bands of frequency over five frames. The weights were fitted to seven recorded
speakers (benchmarks/lips.py --fit), each of whom is measured as well with weights that are fitted to the others.

lip sync: the correlation of the two, the mean of those of the tracks and of their changes from frame to frame, over
the three distances, at the best lag. 1 is perfect; recorded speakers have 0.3 to 0.65, a wrong voice has about 0.2.

lag: the frames of 1/25 s by which the mouth is late there, -4 … 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..audio.sound import Sound, resample_mono
from ..errors import InputError
from ..rate import FRAMES_PER_SECOND
from .face_points import face_points

MAX_LAG = 4  # frames
SHORTEST = 25  # frames; fewer say nothing
_EVERY = 2  # frames; every third would do with three quarters of the time, and jitter weighs more
_RATE_HZ = 16000
_FRAME = _RATE_HZ // FRAMES_PER_SECOND
_WINDOW, _HOP = 512, _FRAME // 2
_BANDS_HZ = (100.0, 7000.0)  # of the bands, which are equal on the mel scale
_QUIET = 1e-4  # of the mean of a band, added before the logarithm
_SILENT = 1e-6  # mean square of a silent frame: -60 dB of full scale
_SPOKEN = 12  # frames that are not, below which a voice says too little
SILENT = "the voice is silent"
# Rows: frames from -2 to 2. Columns: bands around 410, 830, 1410, 2220, 3330 and 4870 Hz.
WEIGHTS: NDArray[np.float64] = np.array(
    [
        [-0.04, 0.05, 0.00, -0.03, 0.08, -0.06],
        [-0.08, 0.09, -0.03, 0.02, 0.08, -0.05],
        [-0.09, 0.12, -0.02, 0.00, 0.13, -0.07],
        [-0.05, 0.06, -0.03, 0.03, 0.04, -0.03],
        [-0.02, 0.02, -0.02, 0.03, 0.02, -0.01],
    ]
)
# Pairs of points, and their weights, whose distances are the gap of the inner lips, of the outer lips, and the chin's.
_GAPS = (((61, 67), (62, 66), (63, 65)), ((50, 58), (51, 57), (52, 56)), ((27, 8),))


@dataclass(frozen=True)
class LipSync:
    """How well the lips follow the voice, as the module's docstring defines it."""

    score: float
    lag: int  # frames; positive: the mouth is late


@dataclass(frozen=True)
class SpeakerLips:
    """The lips of one speaker. absent: why there is no `sync`."""

    sync: LipSync | None = None
    absent: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers under the names of the report."""
        if self.sync is None:
            return {"lips_absent": self.absent}
        return {"lip_sync": self.sync.score, "lip_lag": self.sync.lag}


@dataclass(frozen=True)
class ChunkLips:
    """The lips of all speakers in a chunk."""

    speakers: tuple[SpeakerLips, ...]

    @property
    def measured(self) -> list[bool]:
        """For each speaker whether there is a lip sync."""
        return [speaker.sync is not None for speaker in self.speakers]

    @property
    def worst(self) -> LipSync | None:
        """The lip sync of the speaker whose lips follow the voice least; None without any."""
        found = [speaker.sync for speaker in self.speakers if speaker.sync is not None]
        return min(found, key=lambda sync: sync.score, default=None)

    @property
    def absent(self) -> str | None:
        """Why there is no lip sync at all; None if there is one."""
        if any(self.measured):
            return None
        if len(self.speakers) == 1:
            return self.speakers[0].absent
        return "; ".join(f"speaker {number}: {lips.absent}" for number, lips in enumerate(self.speakers, start=1))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers under the names of the report; `lips_by_speaker` only for two."""
        several = [lips.to_json() for lips in self.speakers] if len(self.speakers) > 1 else None
        return {**SpeakerLips(self.worst, self.absent).to_json(), "lips_by_speaker": several}


def mouth_gaps(frames: Tensor, every: int = _EVERY, area: Tensor | None = None) -> NDArray[np.float64]:
    """Return the gaps (F, 3), in heights of the face, of the one real face in `frames` (F, H, W, 3) in [0, 1].

    every: frames of which one is looked at; the others are interpolated. area: as in `face_points`, which raises
    InputError for what cannot be measured.
    """
    points = face_points(frames[::every], area)
    gaps = np.stack(
        [np.mean([np.linalg.norm(points[:, a] - points[:, b], axis=1) for a, b in pairs], 0) for pairs in _GAPS], 1
    )
    gaps /= np.median(gaps[:, -1])
    times = np.arange(len(points)) * every
    return np.stack([np.interp(np.arange(len(frames)), times, gap) for gap in gaps.T], 1)


def voice_bands(sound: Sound, first: int, frames: int) -> NDArray[np.float64]:
    """Return the loudness (frames, 6) of the bands of a voice from video frame `first` on, each around its mean.

    Before its beginning and after its end there is silence. Raises InputError for a voice that is silent there, or
    speaks for less than half a second.
    """
    start, stop = (round(frame * sound.sample_rate_hz / FRAMES_PER_SECOND) for frame in (first, first + frames + 1))
    part = sound.waveform[:, max(start, 0) : max(stop, 0)]
    voice = torch.zeros(1)
    if part.shape[-1]:
        voice = resample_mono(Sound(part, sound.sample_rate_hz), _RATE_HZ).waveform[0]
    before = max(-first, 0) * _FRAME
    samples = torch.nn.functional.pad(voice, (before, max(frames * _FRAME + _WINDOW - before - len(voice), 0)))
    if (samples[: frames * _FRAME].view(-1, _FRAME).square().mean(1) > _SILENT).sum() < _SPOKEN:
        raise InputError(SILENT)
    power = torch.stft(
        samples[: frames * _FRAME + _WINDOW], _WINDOW, _HOP, window=torch.hann_window(_WINDOW), center=False,
        return_complex=True,
    ).abs().square()  # fmt: skip
    bands = _filters() @ power.double().numpy()[:, : 2 * frames].reshape(-1, frames, 2).mean(2)
    loud = np.log(bands + _QUIET * bands.mean() + 1e-12)
    return (loud - loud.mean(1, keepdims=True)).T


def wanted_opening(bands: NDArray[np.float64], weights: NDArray[np.float64] = WEIGHTS) -> NDArray[np.float64]:
    """Return the mouth opening (F,), without a unit, that a voice with these bands (F, 6) asks for."""
    reach = len(weights) // 2
    around = np.pad(bands, ((reach, reach), (0, 0)), mode="edge")
    return np.einsum("fbt,tb->f", np.lib.stride_tricks.sliding_window_view(around, len(weights), axis=0), weights)


def lip_sync(gaps: ArrayLike, wanted: ArrayLike, near: int | None = None) -> LipSync:
    """Measure gaps (F, 3) against what the voice asks for (F + 2 · MAX_LAG,), from MAX_LAG frames before them on.

    near: the lag of the video, if it is known; only lags within a frame of it are tried. Of equally good lags the one
    nearest to 0 is taken. Raises InputError for fewer than SHORTEST frames.
    """
    mouth, voice = np.asarray(gaps, np.float64), np.asarray(wanted, np.float64)
    if len(mouth) < SHORTEST:
        raise InputError(f"{len(mouth)} frames are too few to measure lips: at least {SHORTEST} are needed")
    tracks = np.stack([_smooth(track - _slow(track)) for track in mouth.T])
    # Row k is the voice MAX_LAG - k frames earlier than the mouth.
    shifted = np.lib.stride_tricks.sliding_window_view(voice, len(mouth))
    scores = (_correlations(tracks, shifted) + _correlations(*(np.gradient(x, axis=1) for x in (tracks, shifted)))) / 2
    means = scores.mean(0)
    lags = MAX_LAG - np.arange(len(means))
    if near is not None:
        means = np.where(np.abs(lags - near) <= 1, means, -1)
    best = min(np.flatnonzero(means >= means.max() - 1e-3), key=lambda index: abs(lags[index]))
    return LipSync(float(means[best]), int(lags[best]))


def measure_lips(frames: Tensor, first: int, sound: Sound, area: Tensor | None = None) -> LipSync:
    """Measure `frames` (F, H, W, 3), which begin at frame `first` of the video, against the sound of one voice.

    area: where the speaker is, as in `face_points`. Raises InputError, with the reason, for what cannot be measured.
    """
    if len(frames) < SHORTEST:
        raise InputError(f"{len(frames)} frames are too few to measure lips: at least {SHORTEST} are needed")
    bands = voice_bands(sound, first - MAX_LAG, len(frames) + 2 * MAX_LAG)
    return lip_sync(mouth_gaps(frames, area=area), wanted_opening(bands))


def _filters() -> NDArray[np.float64]:
    """Return triangles (6, _WINDOW / 2 + 1) over the frequencies, equal on the mel scale."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in _BANDS_HZ)
    edges = 700 * (10 ** (np.linspace(low, high, WEIGHTS.shape[1] + 2) / 2595) - 1)
    hz = np.arange(_WINDOW // 2 + 1) * _RATE_HZ / _WINDOW
    rising, falling = (
        (hz - a[:, None]) / (b - a)[:, None] for a, b in ((edges[:-2], edges[1:-1]), (edges[2:], edges[1:-1]))
    )
    return np.clip(np.minimum(rising, falling), 0, None)


def _smooth(track: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take jitter of the points out of a track (F,)."""
    return np.convolve(np.pad(track, 1, mode="edge"), (0.25, 0.5, 0.25), "valid")


def _slow(track: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is slower than about a second in a track (F,): a smile, a turning head."""
    window = np.hanning(2 * FRAMES_PER_SECOND + 1)
    return (
        np.convolve(track, window, "full")[FRAMES_PER_SECOND:][: len(track)]
        / np.convolve(np.ones(len(track)), window, "full")[FRAMES_PER_SECOND:][: len(track)]
    )


def _correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson's correlations (A, B) of the rows of (A, F) and (B, F); 0 for a row that never changes."""
    rows = []
    for tracks in (first, second):
        tracks = tracks - tracks.mean(1, keepdims=True)
        size = np.linalg.norm(tracks, axis=1, keepdims=True)
        rows.append(np.where(size > 1e-9, tracks / np.maximum(size, 1e-9), 0))
    return rows[0] @ rows[1].T

"""Make clips of synthetic speech to train the speech encoder on, and simulate rooms and microphones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from infinitetalk_core.audio.sound import Sound, resample
from infinitetalk_core.audio.voice import SAMPLE_RATE_HZ, prepare_voice

from .articulation import articulate, viseme_classes
from .voices import FRAME_SAMPLES, SPARE_SAMPLES, Utterance, on_whole_frames, speak

REVERB_SAMPLES = SAMPLE_RATE_HZ // 2
SPOKEN_LEVEL = 0.07  # root mean square of speech at the encoder's input loudness, about -23 dB


@dataclass(frozen=True)
class Clip:
    """The encoder's input, and the visemes and mouth movements as targets."""

    samples: Tensor  # (FRAME_SAMPLES · F + SPARE_SAMPLES,) float32 at 16 kHz, -23 LUFS
    classes: Tensor  # (F,) int64: numbers of VISEMES
    mouth: Tensor  # (F, 3) float32: opening, width, energy


@dataclass(frozen=True)
class Batch:
    """Clips of equal length: samples (B, n), classes (B, F), mouth (B, F, 3)."""

    samples: Tensor
    classes: Tensor
    mouth: Tensor


def make_clip(seed: int, seconds: float, *, unseen: bool = False) -> Clip:
    """Return the speech of `speak` for this seed as a clip. Training voices are also played slower or faster.

    This shifts the formants, so that the encoder is trained on more vocal tracts than espeak-ng has variants.
    """
    utterance = speak(seed, seconds, unseen)
    if not unseen:
        utterance = change_speed(utterance, float(np.random.default_rng((31, seed)).uniform(0.82, 1.22)))
    mouth = articulate(utterance)
    return Clip(
        samples=prepare_voice(utterance.sound).waveform[0],
        classes=torch.from_numpy(viseme_classes(utterance)),
        mouth=torch.from_numpy(np.stack([mouth.opening, mouth.width, mouth.energy], axis=1)),
    )


def change_speed(utterance: Utterance, factor: float) -> Utterance:
    """Return the utterance played `factor` times as fast: shorter, and all frequencies higher."""
    played = Sound(utterance.sound.waveform, round(SAMPLE_RATE_HZ * factor))
    factor = played.sample_rate_hz / SAMPLE_RATE_HZ
    phonemes = tuple(replace(phoneme, seconds=phoneme.seconds / factor) for phoneme in utterance.phonemes)
    return on_whole_frames(Utterance(resample(played, SAMPLE_RATE_HZ), phonemes))


def draw_batch(clips: list[Clip], size: int, frames: int, rng: np.random.Generator) -> Batch:
    """Return `size` random pieces of `frames` frames (at most the shortest clip's), each as another recording."""
    drawn = [clips[index] for index in rng.integers(len(clips), size=size)]
    frames = min(frames, *(len(clip.classes) for clip in drawn))
    pieces = []
    for clip in drawn:
        start = int(rng.integers(max(1, len(clip.classes) - frames + 1)))
        begin, stop = start * FRAME_SAMPLES, (start + frames) * FRAME_SAMPLES + SPARE_SAMPLES
        part = slice(start, start + frames)
        pieces.append(Clip(clip.samples[begin:stop], clip.classes[part], clip.mouth[part]))
    samples = simulate_recording(torch.stack([piece.samples for piece in pieces]), rng)
    return Batch(
        samples, torch.stack([piece.classes for piece in pieces]), torch.stack([piece.mouth for piece in pieces])
    )


def simulate_recording(samples: Tensor, rng: np.random.Generator) -> Tensor:
    """Simulate another microphone and room for each row of `samples` (B, n): tone, echo, noise, level."""
    rows, count = samples.shape
    length = next_fast_len(count + REVERB_SAMPLES)  # padding, so that the echo does not wrap around
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ)
    spectrum = torch.fft.rfft(samples, n=length)
    for row in range(rows):
        spectrum[row] *= torch.from_numpy(_tone(frequencies, rng))
        if rng.random() < 0.3:
            spectrum[row] *= _echo(length, rng)
        if rng.random() < 0.8:
            level = SPOKEN_LEVEL * 10 ** (-rng.uniform(12, 55) / 20)
            spectrum[row] += torch.from_numpy(_noise(frequencies, rng) * np.float32(level * math.sqrt(length)))
    gain = torch.from_numpy(10 ** (rng.uniform(-8, 6, (rows, 1)).astype(np.float32) / 20))
    return torch.fft.irfft(spectrum, n=length)[:, :count] * gain


def _tone(frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the gain at each frequency: an uneven response, sometimes with a lower or upper limit (telephone)."""
    octaves = np.log2(np.maximum(frequencies, 50.0) / 50.0)  # 0 … 7.3
    gain = 10 ** (np.interp(octaves, np.arange(9), rng.normal(0.0, 3.5, 9)) / 20)
    if rng.random() < 0.3:
        gain /= np.sqrt(1 + (frequencies / rng.uniform(2800, 7500)) ** 8)
    if rng.random() < 0.3:
        gain /= np.sqrt(1 + (rng.uniform(60, 300) / np.maximum(frequencies, 1.0)) ** 6)
    return gain.astype(np.float32)


def _echo(length: int, rng: np.random.Generator) -> Tensor:
    """Return the impulse response of a room: the direct sound, and echoes that decay within 0.05 to 0.4 s."""
    seconds = np.arange(REVERB_SAMPLES) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(REVERB_SAMPLES) * 10 ** (-3 * seconds / rng.uniform(0.05, 0.4))
    tail *= 10 ** (rng.uniform(-20, -5) / 20) / np.linalg.norm(tail)
    tail[0] += 1.0
    return torch.fft.rfft(torch.from_numpy(tail.astype(np.float32)), n=length)


def _noise(frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a noise spectrum between white (hiss) and brown (traffic), with about unit power per frequency."""
    slope = np.maximum(frequencies, 50.0) ** -rng.uniform(0, 1)
    slope *= math.sqrt(len(frequencies) / np.square(slope).sum() / 2)
    parts = rng.standard_normal((2, len(frequencies)), dtype=np.float32)
    return (slope * (parts[0] + 1j * parts[1])).astype(np.complex64)

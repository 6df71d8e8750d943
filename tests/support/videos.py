"""Write test videos with a flash and a click at every full second, and find these in a file."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import torch

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.video.format import VideoFormat
from infinitetalk_core.video.segment import encode_segment
from infinitetalk_core.video.soundtrack import encode_sound
from infinitetalk_core.video.writer import VideoWriter

WIDTH, HEIGHT = 96, 64


def gray(frames: int, value: float = 0.1) -> torch.Tensor:
    return torch.full((frames, HEIGHT, WIDTH, 3), value)


def flashing(frames: int) -> torch.Tensor:
    """Return a video that is white for one frame at every full second after the first."""
    video = gray(frames)
    video[25::25] = 1
    return video


def clicking(seconds: float, rate: int = 48000, channels: int = 1) -> Sound:
    """Return a sound that is loud for two milliseconds at every full second after the first."""
    waveform = torch.zeros(channels, int(seconds * rate))
    for second in range(1, int(seconds) + 1):
        waveform[:, second * rate : second * rate + rate // 500] = 0.8
    return Sound(waveform, rate)


def write(path: Path, video: torch.Tensor, sound: Sound | None, chunk: int = 36, **options: object) -> None:
    crf = options.pop("crf", 18)
    with writer_of(path, sound, **options) as writer:
        for start in range(0, len(video), chunk):
            append(writer, video[start : start + chunk], crf)
        assert writer.frames_written == len(video)


def writer_of(path: Path, sound: Sound | None, **options: object) -> VideoWriter:
    return VideoWriter(path, None if sound is None else encode_sound(sound), **options)  # type: ignore[arg-type]


def append(writer: VideoWriter, video: torch.Tensor, crf: int = 18) -> None:
    writer.append(encode_segment(video, VideoFormat(crf=crf)))


def pictures_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as file:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]


def sound_of(path: Path) -> tuple[float, np.ndarray, int]:
    """Return the start time, the samples (channels, n) and the sample rate."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
    return (
        float(frames[0].pts * frames[0].time_base),
        np.concatenate([f.to_ndarray() for f in frames], axis=1),
        frames[0].sample_rate,
    )


def flash_times(path: Path) -> list[float]:
    return [time for time, picture in pictures_of(path) if picture.mean() > 128]


def click_times(path: Path) -> list[float]:
    start, samples, rate = sound_of(path)
    loud = np.flatnonzero(np.abs(samples[0]) > 0.25)
    first = [n for i, n in enumerate(loud) if i == 0 or n - loud[i - 1] > rate // 2]
    return [start + n / rate for n in first]


def declared_seconds(path: Path, kind: str) -> float:
    with av.open(str(path)) as file:
        stream = next(s for s in file.streams if s.type == kind)
        return float(stream.duration * stream.time_base)

"""Videos whose frames contain their own number in their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from infinitetalk_core.video.source import VideoFile

BITS, BLOCK = 12, 8
WIDTH, HEIGHT = BITS * BLOCK, 24


def numbered(number: int) -> np.ndarray:
    """Return a picture (24, 96, 3) uint8 with `number` in 12 black and white blocks, in the upper two thirds only."""
    bits = [(number >> i) & 1 for i in range(BITS)]
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    picture[:16] = np.repeat(np.array(bits, np.uint8) * 255, BLOCK)[None, :, None]
    return picture


def number_in(picture: torch.Tensor) -> int:
    """Return the number in a frame (24, 96, 3)."""
    row = picture[8, BLOCK // 2 :: BLOCK, 0] > 0.5
    return sum(1 << i for i in range(BITS) if row[i])


def make_video(
    file: Path,
    starts: Sequence[Fraction],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    tick: Fraction = Fraction(1, 90000),
    height: int = HEIGHT,
) -> None:
    """Write a video whose frame n starts at starts[n] seconds and shows n."""
    with av.open(str(file), "w") as container:
        rate = (len(starts) - 1) / (starts[-1] - starts[0]) if len(starts) > 1 else Fraction(25)
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, height, pixels
        stream.time_base = stream.codec_context.time_base = tick
        stream.codec_context.thread_count = 1
        for number, start in enumerate(starts):
            picture = np.pad(numbered(number), ((0, height - HEIGHT), (0, 0), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = round(start / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def steady(count: int, rate: Fraction | int, first: Fraction | int = 0) -> list[Fraction]:
    """Return the start times, in seconds, of `count` frames at a constant rate."""
    return [first + Fraction(n) / rate for n in range(count)]


def shown(starts: Sequence[Fraction], index: int) -> int:
    """Return the expected frame: the last one that starts at or before index / 25 s after the first one."""
    return max(n for n, start in enumerate(starts) if n == 0 or start - starts[0] <= Fraction(index, 25))


def numbers_of(video: VideoFile) -> list[int]:
    """Return the number shown at each 25th of a second."""
    return [number_in(video.frame(i)) for i in range(video.length)]

"""A part of a video, without copying it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError
from ..rate import FRAMES_PER_SECOND
from .source import FrameSource


@dataclass(frozen=True)
class Cut:
    """The frames first … first+length−1 (at 25 fps) of another source."""

    source: FrameSource
    first: int
    length: int

    @property
    def height(self) -> int:
        """Pixels as displayed."""
        return self.source.height

    @property
    def width(self) -> int:
        """Pixels as displayed."""
        return self.source.width

    def frame(self, index: int) -> Tensor:
        """(H, W, 3): the picture shown index / 25 seconds after the cut's beginning."""
        return self.source.frame(self.first + index)

    def fingerprint(self) -> str:
        """Of the whole, and which part."""
        return f"{self.source.fingerprint()} from {self.first} for {self.length}"

    def changed(self) -> bool:
        """Whether the source was."""
        return self.source.changed()

    def close(self) -> None:
        """Close the source."""
        self.source.close()


def cut(source: FrameSource, start_seconds: float, seconds: float) -> Cut:
    """The part of `source` from `start_seconds` on, `seconds` long; 0 seconds means up to its end."""
    first = round(start_seconds * FRAMES_PER_SECOND)
    if not 0 <= first < source.length:
        raise InputError(
            f"the cut starts at {start_seconds:g} s, but the video has {source.length / FRAMES_PER_SECOND:g} s"
        )
    left = source.length - first
    wanted = max(round(seconds * FRAMES_PER_SECOND), 1) if seconds else left
    return Cut(source, first, min(wanted, left))

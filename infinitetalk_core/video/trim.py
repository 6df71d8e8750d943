"""A part of a video as a frame source, without copying it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError
from ..rate import FRAMES_PER_SECOND
from .source import FrameSource, pixels_of


@dataclass(frozen=True)
class Cut:
    """A FrameSource of frames first … first+length-1 (at 25 fps) of another source."""

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
        """Return the picture shown index / 25 seconds after the cut's beginning, (H, W, 3)."""
        return self.source.frame(self.first + index)

    def pixels(self, index: int) -> Tensor:
        """Return the same as the source has it."""
        return pixels_of(self.source, self.first + index)

    def fingerprint(self) -> str:
        """Return the fingerprint of the whole source and the range of frames."""
        return f"{self.source.fingerprint()} from {self.first} for {self.length}"

    def changed(self) -> bool:
        """Return whether the source has changed."""
        return self.source.changed()

    def close(self) -> None:
        """Close the source."""
        self.source.close()


def cut(source: FrameSource, start_seconds: float, seconds: float) -> Cut:
    """Return the part of `source` from `start_seconds` on, `seconds` long; 0 seconds: up to its end.

    Raises InputError if the start lies outside the source.
    """
    first = round(start_seconds * FRAMES_PER_SECOND)
    if not 0 <= first < source.length:
        raise InputError(
            f"the cut starts at {start_seconds:g} s, but the video has {source.length / FRAMES_PER_SECOND:g} s"
        )
    remaining = source.length - first
    length = max(round(seconds * FRAMES_PER_SECOND), 1) if seconds else remaining
    return Cut(source, first, min(length, remaining))

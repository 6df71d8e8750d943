"""Animated WebP files, as ComfyUI's SaveAnimatedWEBP writes them. FFmpeg cannot decode these, Pillow can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import BinaryIO

import av

from ..errors import InputError
from ..log import log
from .picture import SAVE_AGAIN, open_picture, pixels_of
from .pixels import Pose

SIGNATURE_BYTES = 16
_UNTIMED_MS = 100  # what players give a picture with a duration of 0


def is_webp(start: bytes) -> bool:
    """Return whether a file that begins with these 16 bytes is a WebP picture or animation."""
    return start[:4] == b"RIFF" and start[8:15] == b"WEBPVP8"


class WebpDecoder:
    """A `FrameDecoder` of the pictures of a WebP file, each with its own duration. Times are in milliseconds.

    check_interrupted: called before each picture; an exception from it stops the decoding.
    Raises InputError if the file cannot be opened or its first picture cannot be decoded.
    """

    time_base = Fraction(1, 1000)
    notes: tuple[str, ...] = ()

    def __init__(self, file: BinaryIO, name: str, check_interrupted: Callable[[], None] = lambda: None) -> None:
        self._name, self._check = name, check_interrupted
        image = open_picture(file, name)
        if image is None:
            raise InputError(f"the picture {name} cannot be read: {SAVE_AGAIN}")
        self._image = image
        self._count: int = getattr(image, "n_frames", 1)
        self._starts = [0]
        first = self._picture(0)
        self.first_time = 0
        self.pose = Pose(first.height, first.width)
        for index in range(1, self._count):  # their durations are known by decoding them only
            try:
                self._picture(index)
            except InputError:
                log.warning("%s is damaged from picture %d on, which is left out", name, index + 1)
                self._count = index
                break
        self.end_time = self._starts[self._count]

    def _picture(self, index: int) -> av.VideoFrame:
        """Decode picture `index`, and note when it ends."""
        self._check()
        try:
            self._image.seek(index)
            self._image.load()
        except (OSError, EOFError, SyntaxError, ValueError) as error:
            raise InputError(f"picture {index + 1} of {self._name} cannot be read ({error}): {SAVE_AGAIN}") from error
        if len(self._starts) == index + 1:
            self._starts.append(self._starts[index] + (int(self._image.info.get("duration") or 0) or _UNTIMED_MS))
        return av.VideoFrame.from_ndarray(pixels_of(self._image, self._name), format="rgb24")

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (time, picture) from the first on."""
        for index in range(self._count):
            yield self._starts[index], self._picture(index)

    def seek(self, time: int) -> bool:
        """Return False: a picture is decoded from those before it."""
        return False

    def rewind(self) -> None:
        """Do nothing: `frames` begins at the first picture."""

    def close(self) -> None:
        """Do nothing: Pillow has its own copy of the content."""

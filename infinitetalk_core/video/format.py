"""How a video is encoded: one table, from what an artist chooses to what the encoders are told.

Every encoder here gives the same bytes for the same pictures, in any process, on any number of cores (measured: x264,
x265 and SVT-AV1 as in PyAV 18.1). So nothing is left to them that they would choose by the machine.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import av

from ..errors import InputError

# Key frames every second for seeking.
_KEY = "25"
# The number of threads changes what x264 gives, so it is the same everywhere.
# Without mbtree: with it x264's vector code reads memory that nobody wrote, and the same pictures give other bytes
# now and then (the x264 in PyAV 18.1; MALLOC_PERTURB_ shows it).
_X264 = {
    "preset": "medium",
    "g": _KEY,
    "bf": "2",
    "rc-lookahead": "20",
    "threads": "4",
    "x264-params": "open-gop=0:mbtree=0",
}
_X265 = "log-level=error:keyint=25:min-keyint=1:bframes=2:open-gop=0:frame-threads=2:rc-lookahead=20"


class Codec(enum.Enum):
    """What an artist can choose."""

    H264 = "H.264"
    HEVC = "HEVC"
    AV1 = "AV1"
    LOSSLESS = "lossless"


@dataclass(frozen=True)
class Encoder:
    """An encoder of FFmpeg and what it is told.

    kind: FFmpeg's name of what it writes; pixels: its formats with 8 and with 10 bits; worst: the highest crf;
    reordered: frames by which decoding runs ahead of showing, at most; tag: the name in MP4 that players want, None for
    FFmpeg's own choice; smallest: pixels either way.
    """

    kind: str
    library: str
    pixels: tuple[str, str]
    options: Mapping[str, str]
    worst: int = 51
    reordered: int = 2  # the most that two B-frames need
    tag: str | None = None
    smallest: int = 16


ENCODERS = {
    Codec.H264: Encoder("h264", "libx264", ("yuv420p", "yuv420p10le"), _X264),
    # Apple plays hvc1 only. The x265 in PyAV 18.1 writes beyond its memory in pictures narrower than 64.
    Codec.HEVC: Encoder(
        "hevc",
        "libx265",
        ("yuv420p", "yuv420p10le"),
        {"preset": "medium", "x265-params": _X265},
        tag="hvc1",
        smallest=64,
    ),
    Codec.AV1: Encoder(
        "av1",
        "libsvtav1",
        ("yuv420p", "yuv420p10le"),
        {"preset": "8", "g": _KEY, "svtav1-params": "lp=4"},
        worst=63,
        reordered=0,
        smallest=64,
    ),
    # H.264 too, since it plays in browsers and stays in MP4 when ComfyUI saves it anew, which FFV1 does not. In 10 bits
    # without shared colors, from which every 8-bit picture comes back exactly; 8 bits would lose some.
    Codec.LOSSLESS: Encoder("h264", "libx264", ("yuv444p10le", "yuv444p10le"), {**_X264, "qp": "0"}),
}


@dataclass(frozen=True)
class VideoFormat:
    """codec; bits a color, 8 or 10; crf: quality, 0 the best (without effect where nothing is lost)."""

    codec: Codec = Codec.H264
    bits: int = 8
    crf: int = 18

    @property
    def encoder(self) -> Encoder:
        """What it is encoded with."""
        return ENCODERS[self.codec]

    @property
    def pixels(self) -> str:
        """FFmpeg's name of the pixel format."""
        return self.encoder.pixels[self.bits == 10]

    @property
    def options(self) -> dict[str, str]:
        """What the encoder is told."""
        options = dict(self.encoder.options)
        if self.codec is not Codec.LOSSLESS:
            options["crf"] = str(self.crf)
        return options

    def check(self, height: int | None = None, width: int | None = None) -> VideoFormat:
        """This format if it can be written, in this size, by this FFmpeg; else InputError."""
        encoder = self.encoder
        if self.bits not in (8, 10):
            raise InputError(f"a video has 8 or 10 bits a color, got {self.bits}")
        if self.codec is not Codec.LOSSLESS and not 0 <= self.crf <= encoder.worst:
            raise InputError(
                f"crf must be between 0 (best) and {encoder.worst} (worst) for {self.codec.value}, got {self.crf}"
            )
        for side in (height, width):
            if side is not None and side < encoder.smallest:
                raise InputError(
                    f"{self.codec.value} cannot be {width} x {height}: it needs at least {encoder.smallest} pixels "
                    "either way; choose H.264 or a larger size"
                )
        if not _can_encode(encoder.library, self.pixels):
            raise InputError(
                f"the FFmpeg in this Python environment cannot write {self.codec.value} with {self.bits} bits "
                f"({encoder.library}, {self.pixels}): choose H.264 with 8 bits, or update the package av"
            )
        return self

    def fingerprint(self) -> list[str | int]:
        """Equal for formats that give the same file."""
        return self.to_json()

    def to_json(self) -> list[str | int]:
        """For reading: the codec, and of those with losses bits a color and crf."""
        if self.codec is Codec.LOSSLESS:
            return [self.codec.value]
        return [self.codec.value, self.bits, self.crf]


def _can_encode(library: str, pixels: str) -> bool:
    try:
        formats = av.codec.Codec(library, "w").video_formats
    except ValueError:  # UnknownCodecError
        return False
    return any(known.name == pixels for known in formats or ())

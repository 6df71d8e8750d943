"""Video formats: one table from the user's choice to the options of FFmpeg's encoders.

Every encoder here produces the same bytes for the same frames, in any process, on any number of cores (measured: x264,
x265 and SVT-AV1 as in PyAV 18.1). For this, all options that an encoder would choose by the machine are set.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import av

from ..errors import InputError

# Key frames are where a segment begins (chunks/groups.py); within longer ones there is one in ten seconds.
_KEY = "250"
# A key frame as good as what the frames before it have become: at the usual 1.4, what stands still changes by one level
# of 255 at each (benchmarks/joins.py).
_KEY_QUALITY = "ipratio=4"
# The number of threads changes the output of x264, so it is fixed.
# mbtree is off: with it, x264's vector code reads uninitialized memory, and the same frames sometimes give other bytes
# (the x264 in PyAV 18.1; reproducible with MALLOC_PERTURB_).
_X264 = {
    "preset": "medium",
    "g": _KEY,
    "bf": "2",
    "rc-lookahead": "20",
    "threads": "4",
    "x264-params": f"open-gop=0:mbtree=0:{_KEY_QUALITY}",
}
_X265 = (
    f"log-level=error:keyint={_KEY}:min-keyint=1:bframes=2:open-gop=0:frame-threads=2:rc-lookahead=20:{_KEY_QUALITY}"
)


class Codec(enum.Enum):
    """Codecs offered to the user."""

    H264 = "H.264"
    HEVC = "HEVC"
    AV1 = "AV1"
    LOSSLESS = "lossless"


@dataclass(frozen=True)
class Encoder:
    """An FFmpeg encoder and its options.

    kind: FFmpeg's name of the codec; library: of the encoder; pixels: its pixel formats with 8 and with 10 bits; worst:
    the highest crf; reordered: maximum number of frames by which decoding precedes display; tag: the codec tag in MP4
    that players expect, None for FFmpeg's default; smallest: minimum height and width in pixels.
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
    # Apple players accept hvc1 only. The x265 in PyAV 18.1 writes out of bounds in pictures narrower than 64.
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
    # Also H.264: unlike FFV1 it plays in browsers and stays in MP4 when ComfyUI saves it again. 10 bits without chroma
    # subsampling (4:4:4) restore every 8-bit picture exactly; 8 bits would not.
    Codec.LOSSLESS: Encoder("h264", "libx264", ("yuv444p10le", "yuv444p10le"), {**_X264, "qp": "0"}),
}


@dataclass(frozen=True)
class VideoFormat:
    """Format of a video. bits: per color, 8 or 10; crf: quality, 0 is best (ignored by the lossless codec)."""

    codec: Codec = Codec.H264
    bits: int = 8
    crf: int = 18

    @property
    def encoder(self) -> Encoder:
        """The encoder of the codec."""
        return ENCODERS[self.codec]

    @property
    def pixels(self) -> str:
        """FFmpeg's name of the pixel format for `bits`."""
        return self.encoder.pixels[self.bits == 10]

    @property
    def options(self) -> dict[str, str]:
        """The encoder's options, with crf unless lossless."""
        options = dict(self.encoder.options)
        if self.codec is not Codec.LOSSLESS:
            options["crf"] = str(self.crf)
        return options

    def check(self, height: int | None = None, width: int | None = None) -> VideoFormat:
        """Return this format if the installed FFmpeg can write it in this size, else raise InputError."""
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
        """Return JSON that is equal for formats that give the same file."""
        return self.to_json()

    def to_json(self) -> list[str | int]:
        """Return the codec name, followed by bits and crf unless lossless."""
        if self.codec is Codec.LOSSLESS:
            return [self.codec.value]
        return [self.codec.value, self.bits, self.crf]


def _can_encode(library: str, pixels: str) -> bool:
    try:
        formats = av.codec.Codec(library, "w").video_formats
    except ValueError:  # UnknownCodecError
        return False
    return any(known.name == pixels for known in formats or ())

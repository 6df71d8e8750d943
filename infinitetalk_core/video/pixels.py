"""Conversion of decoded frames to RGB as a player shows them: rotated, mirrored, with square pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..errors import InputError

# swscale's flags; PyAV takes their sum as a number. Without the last two, yuv -> rgb comes out one level too dark.
_BILINEAR, _FULL_CHROMA, _ACCURATE_ROUNDING = 0x2, 0x2000, 0x40000
_TO_RGB = _BILINEAR | _FULL_CHROMA | _ACCURATE_ROUNDING
_BT2020 = 9  # swscale's number; PyAV 14 has no name for it
_BT601, _BT709 = int(Colorspace.ITU601), int(Colorspace.ITU709)
# RGB has no matrix, but PyAV before 17 passes on the source's matrix only if the target's is another one.
_OTHER = (_BT601, _BT709)
_COEFFICIENTS = {  # by AVColorSpace
    1: _BT709,
    4: int(Colorspace.FCC),
    5: _BT601,
    6: _BT601,
    7: int(Colorspace.SMPTE240M),
    9: _BT2020,
    10: _BT2020,
}
_LIMITED, _FULL = int(ColorRange.MPEG), int(ColorRange.JPEG)
_SQUARE_ENOUGH = Fraction(1, 100)  # encoders round pixel aspect ratios; a smaller difference is invisible
_LEAST_SQUARE = 8  # times as wide as high, or as high as wide; films have up to 3
_SIDE_DATA_TYPES = 64  # more than FFmpeg has


@dataclass(frozen=True)
class Pose:
    """Transformation of stored frames to the shown picture: first scaled to height x width, then turned."""

    height: int
    width: int
    transpose: bool = False
    mirror: bool = False
    upside_down: bool = False

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) of the shown picture."""
        return (self.width, self.height) if self.transpose else (self.height, self.width)


def pose_of(frame: av.VideoFrame, pixel_shape: Fraction | None) -> Pose:
    """Return the pose from a frame's display matrix (phone videos) and the aspect ratio of its pixels.

    pixel_shape: width / height of one pixel, None or 0 where unknown. Raises InputError if no film has such pixels.
    """
    width = frame.width
    if pixel_shape and abs(pixel_shape - 1) > _SQUARE_ENOUGH:
        if not Fraction(1, _LEAST_SQUARE) <= pixel_shape <= _LEAST_SQUARE:
            raise InputError(
                f"the video says that its pixels are {pixel_shape.numerator} : {pixel_shape.denominator}, which no "
                "film has: save it again with square pixels"
            )
        width = max(round(frame.width * pixel_shape), 1)
    matrix = _display_matrix(frame)
    if matrix is None:
        return Pose(frame.height, width)
    # x' = a x + c y, y' = b x + d y; only the signs matter for turns by 90 degrees and mirrors.
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(a) + abs(d) < abs(b) + abs(c):
        return Pose(frame.height, width, transpose=True, mirror=c < 0, upside_down=b < 0)
    return Pose(frame.height, width, mirror=a < 0, upside_down=d < 0)


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    try:
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    except ValueError:
        # PyAV cannot list side data of a type that it has no name for, such as EXIF in PyAV 18.
        matrix = _without_unnamed(frame).side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    return None if matrix is None else bytes(matrix)


def _without_unnamed(frame: av.VideoFrame) -> av.VideoFrame:
    """Return the frame without side data of types that PyAV has no name for."""
    named = {kind.value for kind in Type}
    graph = Graph()
    steps = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))]
    steps += [
        graph.add("sidedata", mode="delete", type=str(number))
        for number in range(_SIDE_DATA_TYPES)
        if number not in named
    ]
    steps.append(graph.add("buffersink"))
    for before, after in pairwise(steps):
        before.link_to(after)
    graph.configure()
    graph.push(frame)
    found = graph.pull()
    assert isinstance(found, av.VideoFrame)
    return found


def to_rgb(frame: av.VideoFrame, pose: Pose, reformatter: VideoReformatter) -> np.ndarray:
    """Convert a frame to (H, W, 3) uint8 full-range RGB as shown.

    Drops alpha, reduces 10 and 12 bits to 8, does not tone map HDR. A frame without a declared matrix counts as BT.709
    if it is larger than standard definition, else as BT.601, and its range as limited, as in players. reformatter:
    reuse one per video, because creating one costs more than using it.
    """
    large = frame.width >= 1280 or frame.height > 576
    coefficients = _COEFFICIENTS.get(int(frame.colorspace), _BT709 if large else _BT601)
    full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj") or frame.format.is_rgb
    image = reformatter.reformat(
        frame,
        width=pose.width,
        height=pose.height,
        format="rgb24",
        src_colorspace=coefficients,
        dst_colorspace=_OTHER[coefficients == _BT601],
        src_color_range=_FULL if full else _LIMITED,
        dst_color_range=_FULL,
        interpolation=_TO_RGB,
    ).to_ndarray()
    if pose.transpose:
        image = image.transpose(1, 0, 2)
    if pose.mirror:
        image = image[:, ::-1]
    if pose.upside_down:
        image = image[::-1]
    return np.ascontiguousarray(image)

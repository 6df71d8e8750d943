"""The pictures of one chunk as a small film of its own, which can be joined to others without encoding them again.

An encoder cannot be stopped and taken up again to the bit. So every chunk gets a fresh one: it starts with a key frame
and refers to nothing outside. A video that was made in one go and one that was resumed are joined from the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction

import av
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from torch import Tensor

from ..errors import InputError
from ..rate import FRAMES_PER_SECOND

_BT709, _LIMITED = 1, 1  # AVCOL_{PRI,TRC,SPC}_BT709 and AVCOL_RANGE_MPEG
# Key frames every second for seeking. The number of threads changes what comes out, so it is the same everywhere.
# Without mbtree: with it x264's vector code reads memory that nobody wrote, and the same pictures give other bytes
# now and then (the x264 in PyAV 18.1; MALLOC_PERTURB_ shows it).
_ENCODER = {
    "preset": "medium",
    "g": "25",
    "bf": "2",
    "rc-lookahead": "20",
    "threads": "4",
    "x264-params": "open-gop=0:mbtree=0",
}
REORDERED = 2  # frames by which decoding may run ahead of showing: the most that bf=2 needs


def check_crf(crf: int) -> int:
    """`crf` if x264 knows it, else InputError."""
    if not 0 <= crf <= 51:
        raise InputError(f"crf must be between 0 (lossless) and 51 (worst), got {crf}")
    return crf


def encode_segment(frames: Tensor, crf: int) -> bytes:
    """Frames (F, height, width, 3) in [0, 1], any device → H.264 (yuv420p, BT.709, 25 fps) in MP4.

    The same frames give the same bytes. height and width must be even, F at least 1.
    """
    file = io.BytesIO()
    reformatter = VideoReformatter()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={**_ENCODER, "crf": str(crf)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        for number, frame in enumerate(frames):
            container.mux(stream.encode(_encodable(frame, number, reformatter)))
        container.mux(stream.encode(None))
    return file.getvalue()


def _encodable(frame: Tensor, number: int, reformatter: VideoReformatter) -> av.VideoFrame:
    """(height, width, 3) in [0, 1] → a frame of the encoder's format, at its time."""
    pixels = (frame.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    picture = reformatter.reformat(
        av.VideoFrame.from_ndarray(pixels, format="rgb24"),
        format="yuv420p",
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA,  # exact means of 2 x 2 pixels; the default aliases colour
    )
    picture.pts = number
    picture.time_base = Fraction(1, FRAMES_PER_SECOND)
    return picture


class Segment:
    """A segment to be joined: its stream and its packets. A context manager."""

    def __init__(self, data: bytes) -> None:
        self._container = av.open(io.BytesIO(data), "r")
        self.stream = self._container.streams.video[0]

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.stream.height, self.stream.width

    def packets(self, first: int) -> Iterator[av.Packet]:
        """The packets with times as if `first` frames had come before, in units of a frame.

        Times of decoding are counted anew: an encoder that sees one or two frames only does not delay them.
        """
        unit = Fraction(1, FRAMES_PER_SECOND)
        number = 0
        for packet in self._container.demux(self.stream):
            if packet.pts is None or self.stream.time_base is None:
                continue  # the empty packet at the end
            shown = round(packet.pts * self.stream.time_base / unit)
            packet.time_base = unit
            packet.pts = first + shown
            packet.dts = first + number - REORDERED
            packet.duration = 1
            number += 1
            yield packet

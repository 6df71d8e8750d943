"""Segments: the frames of one chunk encoded as an MP4 of its own, which can be joined without encoding again.

An encoder cannot be resumed bit-exactly. So every chunk gets a new one: it starts with a key frame and refers to no
other chunk. A resumed video is joined from the same bytes as one made without interruption.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from torch import Tensor

from ..rate import FRAMES_PER_SECOND
from .format import ENCODERS, Encoder, VideoFormat

_BT709, _LIMITED = 1, 1  # AVCOL_{PRI,TRC,SPC}_BT709 and AVCOL_RANGE_MPEG
# White in 16 bits as in swscale: 8 bits shifted left. With it, a 10-bit picture restores the 8-bit one exactly.
_WHITE = 255 << 8


def encode_segment(frames: Tensor, video_format: VideoFormat) -> bytes:
    """Encode frames (F, height, width, 3) in [0, 1], any device, as MP4 (BT.709, limited range, 25 fps).

    The same frames give the same bytes. height and width must be even, F at least 1.
    """
    file = io.BytesIO()
    reformatter = VideoReformatter()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(
            video_format.encoder.library, rate=FRAMES_PER_SECOND, options=video_format.options
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = video_format.pixels
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        pictures = (_encodable(frame, number, video_format.pixels, reformatter) for number, frame in enumerate(frames))
        packets = (packet for picture in chain(pictures, [None]) for packet in stream.encode(picture))
        for number, packet in enumerate(packets):
            packet.dts = number - video_format.encoder.reordered  # x265 returns an arbitrary dts for one or two frames
            container.mux(packet)
    return file.getvalue()


def _encodable(frame: Tensor, number: int, pixels: str, reformatter: VideoReformatter) -> av.VideoFrame:
    """Convert (height, width, 3) in [0, 1] to a frame in pixel format `pixels` with pts `number`."""
    picture = reformatter.reformat(
        _to_rgb48(frame) if pixels.endswith("10le") else _to_rgb24(frame),
        format=pixels,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA,  # exact means of 2 x 2 pixels; the default filter aliases color
    )
    picture.pts = number
    picture.time_base = Fraction(1, FRAMES_PER_SECOND)
    return picture


def _to_rgb24(frame: Tensor) -> av.VideoFrame:
    """Convert (height, width, 3) in [0, 1] to RGB with 8 bits per color."""
    pixels = (frame.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")


def _to_rgb48(frame: Tensor) -> av.VideoFrame:
    """Convert (height, width, 3) in [0, 1] to RGB with 16 bits per color."""
    pixels = (frame.detach().float() * _WHITE).round().clamp(0, _WHITE).to(torch.int32).cpu().numpy()
    return av.VideoFrame.from_ndarray(pixels.astype(np.uint16), format="rgb48le")


class Segment:
    """Context manager that reads an encoded segment: its stream and its packets."""

    def __init__(self, data: bytes) -> None:
        self._container = av.open(io.BytesIO(data), "r")
        self.stream = self._container.streams.video[0]

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def encoder(self) -> Encoder:
        """The first encoder in the table that writes this codec."""
        kind = self.stream.codec_context.codec.canonical_name
        return next(encoder for encoder in ENCODERS.values() if encoder.kind == kind)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.stream.height, self.stream.width

    def packets(self, first: int) -> Iterator[av.Packet]:
        """Yield the packets with times shifted by `first` frames, in units of a frame.

        Decoding times are recomputed: with one or two frames only, an encoder does not delay them.
        """
        unit = Fraction(1, FRAMES_PER_SECOND)
        ahead = self.encoder.reordered
        number = 0
        for packet in self._container.demux(self.stream):
            if packet.pts is None or self.stream.time_base is None:
                continue  # the empty packet at the end
            shown = round(packet.pts * self.stream.time_base / unit)
            packet.time_base = unit
            packet.pts = first + shown
            packet.dts = first + number - ahead
            packet.duration = 1
            number += 1
            yield packet

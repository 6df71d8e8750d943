"""The pictures of one chunk as a small film of its own, which can be joined to others without encoding them again.

An encoder cannot be stopped and taken up again to the bit. So every chunk gets a fresh one: it starts with a key frame
and refers to nothing outside. A video that was made in one go and one that was resumed are joined from the same bytes.
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
# White in 16 bits, as swscale takes it: 8 bits moved up. Then a 10-bit picture gives back the 8-bit one exactly.
_WHITE = 255 << 8


def encode_segment(frames: Tensor, form: VideoFormat) -> bytes:
    """Frames (F, height, width, 3) in [0, 1], any device → a film in `form` (BT.709, limited range, 25 fps) in MP4.

    The same frames give the same bytes. height and width must be even, F at least 1.
    """
    file = io.BytesIO()
    reformatter = VideoReformatter()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(form.encoder.library, rate=FRAMES_PER_SECOND, options=form.options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = form.pixels
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        pictures = (_encodable(frame, number, form.pixels, reformatter) for number, frame in enumerate(frames))
        packets = (packet for picture in chain(pictures, [None]) for packet in stream.encode(picture))
        for number, packet in enumerate(packets):
            packet.dts = number - form.encoder.reordered  # of one or two frames, x265 gives a time of chance
            container.mux(packet)
    return file.getvalue()


def _encodable(frame: Tensor, number: int, pixels: str, reformatter: VideoReformatter) -> av.VideoFrame:
    """(height, width, 3) in [0, 1] → a frame of the encoder's format, at its time."""
    picture = reformatter.reformat(
        _deep(frame) if pixels.endswith("10le") else _shallow(frame),
        format=pixels,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA,  # exact means of 2 x 2 pixels; the default aliases color
    )
    picture.pts = number
    picture.time_base = Fraction(1, FRAMES_PER_SECOND)
    return picture


def _shallow(frame: Tensor) -> av.VideoFrame:
    """In 8 bits a color."""
    pixels = (frame.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")


def _deep(frame: Tensor) -> av.VideoFrame:
    """In 16 bits a color."""
    pixels = (frame.detach().float() * _WHITE).round().clamp(0, _WHITE).to(torch.int32).cpu().numpy()
    return av.VideoFrame.from_ndarray(pixels.astype(np.uint16), format="rgb48le")


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
    def encoder(self) -> Encoder:
        """What it was made with, as far as joining is concerned."""
        kind = self.stream.codec_context.codec.canonical_name
        return next(encoder for encoder in ENCODERS.values() if encoder.kind == kind)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.stream.height, self.stream.width

    def packets(self, first: int) -> Iterator[av.Packet]:
        """The packets with times as if `first` frames had come before, in units of a frame.

        Times of decoding are counted anew: an encoder that sees one or two frames only does not delay them.
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

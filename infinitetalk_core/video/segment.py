"""Segments: a group of pictures encoded as an MP4 of its own, which can be joined without encoding again.

An encoder cannot be resumed bit-exactly. So every group (chunks/groups.py) gets a new one: it starts with a key frame
and refers to no other group. A resumed video is joined from the same bytes as one made without interruption; the frames
of a group that is not complete are stored without loss (`encode_lossless`) and given to an encoder again.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from torch import Tensor

from ..rate import FRAMES_PER_SECOND
from .format import ENCODERS, Codec, Encoder, VideoFormat

_BT709, _LIMITED = 1, 1  # AVCOL_{PRI,TRC,SPC}_BT709 and AVCOL_RANGE_MPEG
# White in 16 bits as in swscale: 8 bits shifted left. With it, a 10-bit picture restores the 8-bit one exactly.
_WHITE = 255 << 8
_LOSSLESS = {"preset": "ultrafast", "qp": "0", "g": "25"}


def to_pictures(frames: Tensor, video_format: VideoFormat) -> list[av.VideoFrame]:
    """Convert frames (F, height, width, 3) in [0, 1], any device, to what the encoder takes (BT.709, limited range)."""
    reformatter = VideoReformatter()
    return [_to_picture(frame, video_format.pixels, reformatter) for frame in frames]


def _to_picture(frame: Tensor, pixels: str, reformatter: VideoReformatter) -> av.VideoFrame:
    """Convert (height, width, 3) in [0, 1] to a frame in pixel format `pixels`."""
    return reformatter.reformat(
        _to_rgb48(frame) if pixels.endswith("10le") else _to_rgb24(frame),
        format=pixels,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA,  # exact means of 2 x 2 pixels; the default filter aliases color
    )


def encode_segment(frames: Tensor, video_format: VideoFormat) -> bytes:
    """Encode frames (F, height, width, 3) in [0, 1], any device, as MP4 (BT.709, limited range, 25 fps).

    The same frames give the same bytes. height and width must be even, F at least 1.
    """
    encoder = SegmentEncoder(video_format.encoder, video_format.pixels, video_format.options)
    encoder.add(to_pictures(frames, video_format))
    return encoder.finish()


def encode_lossless(pictures: Sequence[av.VideoFrame]) -> bytes:
    """Encode pictures from `to_pictures` so that `decode_lossless` restores them exactly, fast and rather small."""
    encoder = SegmentEncoder(ENCODERS[Codec.H264], pictures[0].format.name, _LOSSLESS)
    encoder.add(pictures)
    return encoder.finish()


def decode_lossless(data: bytes) -> list[av.VideoFrame] | None:
    """Return the pictures of a segment, exact if `encode_lossless` made it; None for data that cannot be decoded."""
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            return list(container.decode(video=0))
    except (OSError, IndexError, ValueError, av.error.FFmpegError):
        return None


class SegmentEncoder:
    """Encodes pictures, given in any number of parts, as one MP4 at 25 fps."""

    def __init__(self, encoder: Encoder, pixels: str, options: Mapping[str, str]) -> None:
        self._encoder, self._pixels, self._options = encoder, pixels, options
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="mp4")
        self._stream: av.VideoStream | None = None
        self._packets = 0
        self.frames = 0

    def add(self, pictures: Iterable[av.VideoFrame]) -> None:
        """Encode pictures of one size with even sides."""
        for picture in pictures:
            if self._stream is None:
                self._stream = self._open(picture.height, picture.width)
            own = _bare_copy(picture)
            own.pts, own.time_base = self.frames, Fraction(1, FRAMES_PER_SECOND)
            self._mux(self._stream.encode(own))
            self.frames += 1

    def finish(self) -> bytes:
        """Return the segment of all pictures, of which there must be one at least."""
        assert self._stream is not None
        self._mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()

    def _open(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream(self._encoder.library, rate=FRAMES_PER_SECOND, options=dict(self._options))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = height, width
        stream.pix_fmt = self._pixels
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        return stream

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        for packet in packets:
            # x265 returns an arbitrary dts for one or two frames.
            packet.dts = self._packets - self._encoder.reordered
            self._container.mux(packet)
            self._packets += 1


def _bare_copy(picture: av.VideoFrame) -> av.VideoFrame:
    """Copy the pixels without what a decoder adds, such as the kind of picture, which the encoder would follow."""
    own = av.VideoFrame(picture.width, picture.height, picture.format.name)
    for plane, target in zip(picture.planes, own.planes, strict=True):
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]
        used = min(plane.line_size, target.line_size)
        copied = np.zeros((target.buffer_size // target.line_size, target.line_size), np.uint8)
        copied[: plane.height, :used] = rows[:, :used]
        target.update(copied.tobytes())
    return own


def _to_rgb24(frame: Tensor) -> av.VideoFrame:
    """Convert (height, width, 3) in [0, 1] to RGB with 8 bits per color."""
    pixels = (frame.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")


def _to_rgb48(frame: Tensor) -> av.VideoFrame:
    """Convert (height, width, 3) in [0, 1] to RGB with 16 bits per color."""
    pixels = (frame.detach().float() * _WHITE).round().clamp(0, _WHITE).to(torch.int32).cpu().numpy()
    return av.VideoFrame.from_ndarray(pixels.astype(np.uint16), format="rgb48le")


def is_segment(data: bytes, size: tuple[int, int], frames: int) -> bool:
    """Return whether `data` is a segment of this (height, width) and number of frames."""
    try:
        with Segment(data) as segment:
            return segment.size == size and sum(1 for _ in segment.packets(0)) == frames
    except (OSError, IndexError, ValueError, StopIteration, av.error.FFmpegError):
        return False


class Segment:
    """Context manager that reads an encoded segment: its stream and its packets."""

    def __init__(self, data: bytes) -> None:
        # The format is given, since data from a folder is not trusted: a playlist would open other files.
        self._container = av.open(io.BytesIO(data), "r", format="mp4")
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

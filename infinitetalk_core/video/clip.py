"""A piece of a growing video for a browser: a stretch of its frames and sound as fragmented MP4, made in memory.

A browser joins such pieces to one video that it can seek in (Media Source Extensions). Every browser with MSE plays
H.264 in 4:2:0 with 8 bits, so frames of any format become that, fast: the pieces are for looking at, not for keeping.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from ..rate import FRAMES_PER_SECOND
from .format import ENCODERS, Codec
from .segment import Segment, SegmentEncoder

PIXELS = "yuv420p"
# Without B-frames frames are decoded in the order in which they are shown, so a piece needs nothing outside of it.
_FAST = {"preset": "ultrafast", "crf": "20", "bf": "0", "g": str(FRAMES_PER_SECOND), "threads": "2"}
# The last two keep the times of the whole video: FFmpeg would let each file begin at 0.
_MUXER = {"movflags": "empty_moov+frag_keyframe+default_base_moof+frag_discont", "avoid_negative_ts": "disabled"}
_AAC = "mp4a.40.2"


def encode_clip(pictures: Sequence[av.VideoFrame], first: int, sound: Path | None) -> tuple[bytes, str]:
    """Return frames of a video as fragmented MP4, and its MIME type with the codecs, as a SourceBuffer wants it.

    pictures: at least one, of one size with even sides, any pixel format. first: the frame of the video at which they
    begin; the times in the piece are those of the video. sound: a file from `encode_sound` with the sound of the whole
    video, of which the piece gets the packets that begin within its frames; None for a video without sound.
    """
    encoder = SegmentEncoder(ENCODERS[Codec.H264], PIXELS, _FAST)
    encoder.add(picture.reformat(format=PIXELS) for picture in pictures)
    file = io.BytesIO()
    with Segment(encoder.finish()) as segment, av.open(file, "w", format="mp4", options=_MUXER) as container:
        stream = container.add_stream_from_template(segment.stream, opaque=True)
        video = [packet for packet in segment.packets(first)]
        tracks = [(stream, video)]
        if sound is not None:
            with av.open(str(sound.resolve()), "r", format="mp4") as source:
                heard = container.add_stream_from_template(source.streams.audio[0], opaque=True)
                tracks.append((heard, _packets(source, first, first + len(pictures))))
        for target, packets in tracks:
            for packet in packets:
                if target is stream:
                    packet.dts = packet.pts
                packet.stream = target
                container.mux(packet)
    data = file.getvalue()
    codecs = [_h264_of(data), *([] if sound is None else [_AAC])]
    return data, f'video/mp4; codecs="{", ".join(codecs)}"'


def _packets(source: av.container.InputContainer, first: int, stop: int) -> list[av.Packet]:
    """Return the packets of sound that begin within frames first … stop-1 of the video."""
    stream = source.streams.audio[0]
    assert stream.time_base is not None
    begin, end = (Fraction(frame, FRAMES_PER_SECOND) / stream.time_base for frame in (first, stop))
    source.seek(int(begin), stream=stream)
    found = []
    for packet in source.demux(stream):
        if packet.pts is None or packet.pts >= end:
            break
        if packet.pts >= begin:
            found.append(packet)
    return found


def _h264_of(data: bytes) -> str:
    """Return the codec of the H.264 track of an MP4 file, such as `avc1.42c01e`, from its decoder configuration."""
    at = data.index(b"avcC") + 5  # the name, and the version
    return f"avc1.{data[at : at + 3].hex()}"

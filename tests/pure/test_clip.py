"""Pieces of a growing video for a browser: the right frames and sound, at the times of the whole video."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest
import torch

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.video.clip import encode_clip
from infinitetalk_core.video.format import Codec, VideoFormat
from infinitetalk_core.video.segment import to_pictures
from infinitetalk_core.video.soundtrack import encode_sound

RATE_HZ = 16000
LENGTHS = [13, 8, 1, 20]  # frames of the pieces of one video


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.mp4"
    path.write_bytes(encode_sound(Sound(torch.rand(1, RATE_HZ * 2) - 0.5, RATE_HZ)))
    return path


def read(clip: bytes) -> tuple[list[float], list[float]]:
    """The times in seconds of pictures and of packets of sound."""
    with av.open(io.BytesIO(clip)) as container:
        video = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    with av.open(io.BytesIO(clip)) as container:
        if not container.streams.audio:
            return video, []
        heard = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.pts is not None]
    return video, heard


def test_pieces_join_to_the_whole_video(sound):
    first, pictures, heard = 0, [], []
    for length in LENGTHS:
        clip, kind = encode_clip(to_pictures(torch.rand(length, 32, 48, 3), VideoFormat()), first, sound)
        shown, sounds = read(clip)
        assert shown == pytest.approx([(first + i) / 25 for i in range(length)], abs=1e-3)
        assert all(first / 25 <= time < (first + length) / 25 for time in sounds)
        pictures += shown
        heard += sounds
        first += length
        assert kind.startswith('video/mp4; codecs="avc1.') and kind.endswith(', mp4a.40.2"')
    packet = Fraction(1024, RATE_HZ)
    assert heard == pytest.approx([float(i * packet) for i in range(len(heard))], abs=2e-3), "each packet once"
    assert len(heard) == -(-sum(LENGTHS) * RATE_HZ // 25 // 1024)


@pytest.mark.parametrize(
    "video_format", [VideoFormat(codec) for codec in Codec] + [VideoFormat(Codec.HEVC, bits=10)], ids=str
)
def test_any_format_becomes_what_browsers_play(video_format):
    frames = torch.full((3, 64, 64, 3), 0.5)
    frames[..., 0] = 0.8
    clip, kind = encode_clip(to_pictures(frames, video_format), 50, None)
    with av.open(io.BytesIO(clip)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        shown = [frame.to_ndarray(format="rgb24")[32, 32].tolist() for frame in container.decode(stream)]
    assert shown == [pytest.approx([204, 128, 128], abs=6)] * 3
    assert kind.count(",") == 0, "no sound, no codec of sound"


def test_a_file_that_ends_early_has_no_sound_there(sound):
    clip, _ = encode_clip(to_pictures(torch.rand(5, 32, 32, 3), VideoFormat()), 1000, sound)
    assert read(clip)[1] == []

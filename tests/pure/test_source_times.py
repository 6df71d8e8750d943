"""Which picture is on the screen at i / 25 seconds, whatever the rate, the kind of file and the order of reading."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infinitetalk_core.errors import InputError
from infinitetalk_core.video.source import PictureBatch, VideoFile
from tests.support.numbered_video import HEIGHT, WIDTH, make_video, number_in, numbers_of, shown, steady


@pytest.mark.parametrize(
    ("rate", "length"),
    [
        (Fraction(25), 60),
        (Fraction(30), 50),
        (Fraction(24000, 1001), 62),
        (Fraction(30000, 1001), 50),
        (Fraction(60), 25),
        (Fraction(10), 150),
        (Fraction(50), 30),
    ],
)
def test_any_constant_rate_is_read_by_time(tmp_path, rate, length):
    starts = steady(60, rate)
    make_video(tmp_path / "v.mp4", starts)
    with VideoFile(tmp_path / "v.mp4") as video:
        assert (video.height, video.width, video.length) == (HEIGHT, WIDTH, length)
        assert numbers_of(video) == [shown(starts, i) for i in range(length)]


def test_a_variable_rate_is_read_by_time(tmp_path):
    gaps = [1, 3, 7, 2, 40, 1, 1, 1, 12, 90, 5, 5]  # hundredths of a second
    starts = [Fraction(sum(gaps[:n]), 100) for n in range(len(gaps) + 1)]
    for name in ("v.mp4", "v.mkv"):
        make_video(tmp_path / name, starts)
        with VideoFile(tmp_path / name) as video:
            assert numbers_of(video) == [shown(starts, i) for i in range(video.length)], name
            assert video.length >= 25 * starts[-1]


def test_the_clock_starts_at_the_first_picture(tmp_path):
    starts = steady(20, 25, first=Fraction(7, 2))
    make_video(tmp_path / "v.ts", starts)
    with VideoFile(tmp_path / "v.ts") as video:
        assert numbers_of(video) == list(range(20))


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("v.avi", "mpeg4", "yuv420p"),
        ("v.mpg", "mpeg2video", "yuv420p"),
        ("v.webm", "libvpx-vp9", "yuv420p"),
        ("v.mov", "prores_ks", "yuv422p10le"),
        ("a.mov", "qtrle", "argb"),
        ("v.mp4", "libx264", "yuv420p10le"),
        ("g.mp4", "libx264", "gray"),
        ("v.mkv", "ffv1", "yuva420p"),
        ("j.avi", "mjpeg", "yuvj420p"),
        ("v.gif", "gif", "rgb8"),
        ("v.h264", "libx264", "yuv420p"),
        ("h.mp4", "libx265", "yuv420p"),
        ("a.mp4", "libsvtav1", "yuv420p"),
        ("a.mkv", "libsvtav1", "yuv420p10le"),
        ("a.webm", "libaom-av1", "yuv420p"),
        ("p4.mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_every_kind_of_file_is_read_forwards_and_backwards(tmp_path, name, codec, pixels):
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV cannot write {codec}, so there is no such file to read")
    starts = steady(30, 25)
    options = {"x265-params": "log-level=none:pools=none:frame-threads=1"} if codec == "libx265" else {}
    if codec in ("mpeg4", "mpeg2video"):
        options = {"bf": "2"}
    tick = Fraction(1, 25) if codec in ("mpeg4", "mpeg2video", "mjpeg") else Fraction(1, 100)
    height = 64 if "av1" in codec else HEIGHT  # SVT-AV1 stops for ever at smaller ones
    make_video(tmp_path / name, starts, codec=codec, pixels=pixels, options=options, tick=tick, height=height)
    with VideoFile(tmp_path / name) as video:
        assert abs(video.length - 30) <= (name == "v.gif")
        assert numbers_of(video)[:30] == list(range(30))
        assert [number_in(video.frame(i)) for i in (29, 3, 17, 0, 28)] == [29, 3, 17, 0, 28]


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """30 fps, 20 s, B-frames, open groups of pictures: the hardest to seek in."""
    path = tmp_path_factory.mktemp("long") / "v.mp4"
    make_video(path, steady(600, 30), options={"x264-params": "open-gop=1:keyint=45:bframes=3:b-adapt=0"})
    with VideoFile(path) as video:
        return path, numbers_of(video)


def test_the_long_video_is_right_from_front_to_back(long_video):
    _, sequential = long_video
    assert sequential == [i * 30 // 25 for i in range(500)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, 499), min_size=1, max_size=12))
def test_any_order_gives_what_reading_forward_gives(long_video, order):
    path, sequential = long_video
    with VideoFile(path) as video:
        assert [number_in(video.frame(i)) for i in order] == [sequential[i] for i in order]


def test_a_stream_in_memory_is_a_file_too(long_video):
    path, sequential = long_video
    with VideoFile(io.BytesIO(path.read_bytes())) as video:
        assert [number_in(video.frame(i)) for i in (499, 0, 250, 249)] == [sequential[i] for i in (499, 0, 250, 249)]


def test_reading_on_does_not_seek_and_a_jump_does(long_video):
    path, _ = long_video
    with VideoFile(path) as video:
        seeks: list[int] = []
        seek = video._decoder.seek
        video._decoder.seek = lambda time: (seeks.append(time), seek(time))[1]  # type: ignore[method-assign]
        for index in [*range(40), 35, 32, 110, 180, 181, 180]:  # gaps up to 3 s, and a little back
            video.frame(index)
        assert not seeks
        video.frame(400)
        video.frame(10)
        assert len(seeks) == 2


def test_one_frame_is_a_video_of_length_one(tmp_path):
    make_video(tmp_path / "v.mp4", [Fraction(0)])
    with VideoFile(tmp_path / "v.mp4") as video:
        assert video.length == 1 and number_in(video.frame(0)) == 0
        for wrong in (-1, 1):
            with pytest.raises(IndexError, match="0 to 0"):
                video.frame(wrong)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.sampled_from([25, 24, 30, 60, 12.5, 23.976, 29.97, Fraction(30000, 1001)]))
def test_pictures_in_memory_are_read_by_time(count, fps):
    source = PictureBatch(torch.arange(count).view(-1, 1, 1, 1).expand(-1, 1, 1, 3), fps)
    exact = Fraction(fps).limit_denominator(100_000)
    assert source.length == (1 if count == 1 else max(int(count / exact * 25 + Fraction(1, 20)), 1))
    for index in range(source.length):
        shown = int(source.frame(index)[0, 0, 0])
        assert Fraction(shown) / exact <= Fraction(index, 25)
        assert shown == count - 1 or Fraction(shown + 1) / exact > Fraction(index, 25)


def test_one_picture_is_a_still():
    source = PictureBatch(torch.rand(1, 4, 6, 3), fps=1)
    assert (source.length, source.height, source.width) == (1, 4, 6)
    source.close()


@pytest.mark.parametrize(
    ("shape", "fps", "words"),
    [
        ((0, 4, 4, 3), 25, "at least one"),
        ((4, 4, 3), 25, "count, height, width"),
        ((2, 4, 4, 4), 25, "3 colors"),
        ((2, 4, 4, 3), 0, "above 0, got 0"),
        ((2, 4, 4, 3), float("nan"), "above 0, got nan"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused(shape, fps, words):
    with pytest.raises(InputError, match=words):
        PictureBatch(torch.zeros(shape), fps)

"""Which picture is on the screen at i / 25 seconds: every frame carries its own number in its pixels."""

from __future__ import annotations

import gc
import io
import struct
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infinitetalk_core.errors import InputError
from infinitetalk_core.video.source import KEPT_FRAMES, PictureBatch, VideoFile

BITS, BLOCK = 12, 8
WIDTH, HEIGHT = BITS * BLOCK, 24


def _picture(number: int) -> np.ndarray:
    """(24, 96, 3) uint8: `number` in 12 blocks of black and white, on the upper two thirds only."""
    bits = [(number >> i) & 1 for i in range(BITS)]
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    picture[:16] = np.repeat(np.array(bits, np.uint8) * 255, BLOCK)[None, :, None]
    return picture


def _number(picture: torch.Tensor) -> int:
    row = picture[8, BLOCK // 2 :: BLOCK, 0] > 0.5
    return sum(1 << i for i in range(BITS) if row[i])


def _make(
    file: Path | io.BytesIO,
    starts: Sequence[Fraction],
    *,
    end: Fraction | None = None,
    codec: str = "libx264",
    kind: str | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    tick: Fraction = Fraction(1, 90000),
    height: int = HEIGHT,
) -> None:
    """A video whose frame n starts at starts[n] seconds and shows n."""
    target = str(file) if isinstance(file, Path) else file
    with av.open(target, "w", format=kind) as container:
        rate = (len(starts) - 1) / (starts[-1] - starts[0]) if len(starts) > 1 else Fraction(25)
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, height, pixels
        stream.time_base = stream.codec_context.time_base = tick
        stream.codec_context.thread_count = 1
        for number, start in enumerate(starts):
            picture = np.pad(_picture(number), ((0, height - HEIGHT), (0, 0), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = round(start / tick), tick
            if end is not None and number == len(starts) - 1 and hasattr(frame, "duration"):
                frame.duration = round((end - start) / tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _steady(count: int, rate: Fraction | int, first: Fraction | int = 0) -> list[Fraction]:
    return [first + Fraction(n) / rate for n in range(count)]


def _shown(starts: Sequence[Fraction], index: int) -> int:
    """The contract, word for word: the last frame that starts at or before index / 25 s after the first one."""
    return max(n for n, start in enumerate(starts) if n == 0 or start - starts[0] <= Fraction(index, 25))


def _numbers(video: VideoFile) -> list[int]:
    return [_number(video.frame(i)) for i in range(video.length)]


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
    starts = _steady(60, rate)
    _make(tmp_path / "v.mp4", starts)
    with VideoFile(tmp_path / "v.mp4") as video:
        assert (video.height, video.width, video.length) == (HEIGHT, WIDTH, length)
        assert _numbers(video) == [_shown(starts, i) for i in range(length)]


def test_a_variable_rate_is_read_by_time(tmp_path):
    gaps = [1, 3, 7, 2, 40, 1, 1, 1, 12, 90, 5, 5]  # hundredths of a second
    starts = [Fraction(sum(gaps[:n]), 100) for n in range(len(gaps) + 1)]
    for name in ("v.mp4", "v.mkv"):
        _make(tmp_path / name, starts)
        with VideoFile(tmp_path / name) as video:
            assert _numbers(video) == [_shown(starts, i) for i in range(video.length)], name
            assert video.length >= 25 * starts[-1]


def test_the_clock_starts_at_the_first_picture(tmp_path):
    starts = _steady(20, 25, first=Fraction(7, 2))
    _make(tmp_path / "v.ts", starts)
    with VideoFile(tmp_path / "v.ts") as video:
        assert _numbers(video) == list(range(20))


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
    starts = _steady(30, 25)
    options = {"x265-params": "log-level=none:pools=none:frame-threads=1"} if codec == "libx265" else {}
    if codec in ("mpeg4", "mpeg2video"):
        options = {"bf": "2"}
    tick = Fraction(1, 25) if codec in ("mpeg4", "mpeg2video", "mjpeg") else Fraction(1, 100)
    height = 64 if "av1" in codec else HEIGHT  # SVT-AV1 stops for ever at smaller ones
    _make(tmp_path / name, starts, codec=codec, pixels=pixels, options=options, tick=tick, height=height)
    with VideoFile(tmp_path / name) as video:
        assert abs(video.length - 30) <= (name == "v.gif")
        assert _numbers(video)[:30] == list(range(30))
        assert [_number(video.frame(i)) for i in (29, 3, 17, 0, 28)] == [29, 3, 17, 0, 28]


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """30 fps, 20 s, B-frames, open groups of pictures: the hardest to seek in."""
    path = tmp_path_factory.mktemp("long") / "v.mp4"
    _make(path, _steady(600, 30), options={"x264-params": "open-gop=1:keyint=45:bframes=3:b-adapt=0"})
    with VideoFile(path) as video:
        return path, _numbers(video)


def test_the_long_video_is_right_from_front_to_back(long_video):
    _, sequential = long_video
    assert sequential == [i * 30 // 25 for i in range(500)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, 499), min_size=1, max_size=12))
def test_any_order_gives_what_reading_forward_gives(long_video, order):
    path, sequential = long_video
    with VideoFile(path) as video:
        assert [_number(video.frame(i)) for i in order] == [sequential[i] for i in order]


def test_a_stream_in_memory_is_a_file_too(long_video):
    path, sequential = long_video
    with VideoFile(io.BytesIO(path.read_bytes())) as video:
        assert [_number(video.frame(i)) for i in (499, 0, 250, 249)] == [sequential[i] for i in (499, 0, 250, 249)]


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


@pytest.mark.parametrize("turn", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_phones_rotation_and_mirror_are_honoured(tmp_path, turn):
    """The display matrix is written into the file; the picture must come out as a player shows it."""
    # (a, b, c, d): the pixel at (x, y) is shown at (a x + c y, b x + d y), moved back into the frame
    a, b, c, d = [
        (1, 0, 0, 1),
        (0, 1, -1, 0),
        (-1, 0, 0, -1),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ][turn]
    _make(tmp_path / "v.mp4", _steady(5, 25), options={"crf": "1"})
    data = (tmp_path / "v.mp4").read_bytes()
    at = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "r.mp4").write_bytes(data[:at] + matrix + data[at + 36 :])
    with VideoFile(tmp_path / "v.mp4") as plain, VideoFile(tmp_path / "r.mp4") as turned:
        stored, shown = plain.frame(3), turned.frame(3)
    assert (turned.height, turned.width) == shown.shape[:2] == ((HEIGHT, WIDTH) if a else (WIDTH, HEIGHT))
    for x, y in [(4, 8), (90, 3), (50, 20)]:
        across, down = a * x + c * y, b * x + d * y
        across += shown.shape[1] - 1 if a + c < 0 else 0
        down += shown.shape[0] - 1 if b + d < 0 else 0
        assert torch.equal(shown[down, across], stored[y, x])


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    _make(tmp_path / "v.mp4", _steady(3, 25), options={"x264-params": "sar=2/1"})
    with VideoFile(tmp_path / "v.mp4") as video:
        assert (video.height, video.width) == (HEIGHT, 2 * WIDTH) == video.frame(0).shape[:2]


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
def test_colours_are_those_that_were_meant(tmp_path, matrix, full, pixels):
    """Solid colours, turned into YUV by the textbook, in every matrix and range."""
    red, blue = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}[matrix]
    depth = 10 if "10" in pixels else 8
    for colour in [(0.8, 0.2, 0.1), (0.1, 0.7, 0.3), (0.2, 0.1, 0.9), (0.5, 0.5, 0.5)]:
        r, g, b = colour
        luma = red * r + (1 - red - blue) * g + blue * b
        chroma = ((b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red)))
        top = 2**depth - 1
        if full:
            values = [luma * top, *(c * top + 2 ** (depth - 1) for c in chroma)]
        else:
            values = [(v + 16) * 2 ** (depth - 8) for v in (219 * luma, *(224 * c + 112 for c in chroma))]
        path = tmp_path / f"{r}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"qp": "1"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            context = stream.codec_context
            context.colorspace = {"bt709": 1, "smpte170m": 6, "bt2020nc": 9}[matrix]
            context.color_range = 2 if full else 1
            frame = av.VideoFrame(64, 48, pixels)
            for plane, value in zip(frame.planes, values, strict=True):
                kind = np.uint16 if depth > 8 else np.uint8
                plane.update(np.full(plane.buffer_size // kind().itemsize, round(value), kind))
            frame.colorspace, frame.color_range = context.colorspace, context.color_range
            container.mux([*stream.encode(frame), *stream.encode(None)])
        with VideoFile(path) as video:
            error = (video.frame(0)[24, 32] - torch.tensor(colour)).abs().max().item()
        assert error < 2.5 / 255, f"{colour} came back {error * 255:.1f} levels off"


def test_one_frame_is_a_video_of_length_one(tmp_path):
    _make(tmp_path / "v.mp4", [Fraction(0)])
    with VideoFile(tmp_path / "v.mp4") as video:
        assert video.length == 1 and _number(video.frame(0)) == 0
        for wrong in (-1, 1):
            with pytest.raises(IndexError, match="0 to 0"):
                video.frame(wrong)


def test_values_are_in_zero_to_one_and_a_frame_belongs_to_the_caller(tmp_path):
    _make(tmp_path / "v.mp4", _steady(3, 25))
    with VideoFile(tmp_path / "v.mp4") as video:
        frame = video.frame(1)
        assert frame.dtype == torch.float32 and frame.min() >= 0 and frame.max() <= 1
        kept = frame.clone()
        frame.zero_()
        assert torch.equal(video.frame(1), kept)


def test_a_file_that_ends_early_holds_its_last_picture(tmp_path):
    """An index for 100 frames, data for fewer: as after a broken download."""
    _make(tmp_path / "v.mkv", _steady(100, 25), options={"g": "20"})
    whole = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    with VideoFile(tmp_path / "cut.mkv") as video:
        assert 20 < video.length < 90
        numbers = _numbers(video)
        known = numbers[-1] + 1
        assert numbers[:known] == list(range(known)) and set(numbers[known:]) <= {known - 1}


def test_a_damaged_place_holds_the_picture_before(tmp_path):
    _make(tmp_path / "v.mp4", _steady(50, 25), options={"g": "1"})
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    with av.open(str(tmp_path / "v.mp4")) as file:
        packets = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    assert packets[20][0] > start
    position, size = packets[20]
    data[position : position + size] = b"\xff" * size
    (tmp_path / "bad.mp4").write_bytes(data)
    with VideoFile(tmp_path / "bad.mp4") as video:
        assert video.length == 50
        numbers = _numbers(video)
    assert numbers[:20] == list(range(20)) and numbers[22:] == list(range(22, 50))


def _sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])


def test_what_is_no_video_is_refused_in_one_sentence(tmp_path):
    _sound_only(tmp_path / "sound.m4a")
    (tmp_path / "text.mp4").write_text("this is not a video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    _make(tmp_path / "v.mp4", _steady(9, 25))
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    start, stop = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:stop] = b"\xff" * (stop - start)
    (tmp_path / "noise.mp4").write_bytes(data)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "v.mp4").read_bytes()[:stop])
    for name, words in [
        ("sound.m4a", "no video in it, only audio"),
        ("text.mp4", "cannot be opened"),
        ("empty.mp4", "cannot be opened"),
        ("noise.mp4", "no picture in it can be decoded"),
        ("cut.mp4", "cannot be opened"),
        ("missing.mp4", "there is no video file"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            VideoFile(tmp_path / name)
        assert name in str(caught.value)
        advice = ("save it as MP4", "choose a video file", "check the name")
        assert any(what_next in str(caught.value) for what_next in advice)
    with pytest.raises(InputError, match="cannot be opened"):
        VideoFile(io.BytesIO(b"nothing"))


def test_memory_does_not_grow_with_the_frames_read(tmp_path):
    _make(tmp_path / "v.mp4", _steady(2000, 25), options={"preset": "ultrafast"})
    with VideoFile(tmp_path / "v.mp4") as video:
        assert video.length == 2000
        for index in range(2000):
            assert _number(video.frame(index)) == index
            assert len(video._kept) <= KEPT_FRAMES
        gc.collect()
        alive = [o for o in gc.get_objects() if type(o) in (av.VideoFrame, av.Packet)]
        assert len(alive) <= KEPT_FRAMES + 4, f"{len(alive)} decoded frames alive"


READ_ITS_END = """
import resource, sys
sys.path.insert(0, {root!r})
from infinitetalk_core.video.source import VideoFile
video = VideoFile({path!r})
video.frame(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for index in range(video.length - 81, video.length):
    video.frame(index)
print(video.length, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the most memory that a process had")
def test_the_end_of_two_minutes_is_read_in_the_memory_of_a_few_frames(tmp_path):
    """All its pictures would be 1.5 GB as IMAGE, 360 MB as bytes."""
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "250"})
        stream.width, stream.height = 256, 160
        picture = np.zeros((160, 256, 3), np.uint8)
        for number in range(3000):
            picture[:, number % 256] = number % 251
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
    code = READ_ITS_END.format(root=str(Path(__file__).parents[2]), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    length, more_mb = map(int, done.stdout.split())
    assert length == 3000
    assert more_mb < 30, f"reading on took {more_mb} MB"


def test_a_closed_video_lets_go_of_its_file(tmp_path):
    _make(tmp_path / "v.mp4", _steady(3, 25))
    video = VideoFile(tmp_path / "v.mp4")
    video.frame(1)
    video.close()
    (tmp_path / "v.mp4").unlink()
    assert not video._kept


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
        ((2, 4, 4, 4), 25, "3 colours"),
        ((2, 4, 4, 3), 0, "above 0, got 0"),
        ((2, 4, 4, 3), float("nan"), "above 0, got nan"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused(shape, fps, words):
    with pytest.raises(InputError, match=words):
        PictureBatch(torch.zeros(shape), fps)


def test_a_file_that_gets_another_content_is_noticed_and_a_copy_of_itself_is_not(tmp_path):
    path = tmp_path / "v.mp4"
    _make(path, [Fraction(n, 25) for n in range(5)])
    content = path.read_bytes()
    with VideoFile(path) as video:
        before = video.identity()
        assert not video.changed()
        path.write_bytes(content)
        assert not video.changed(), "the same once more"
        path.write_bytes(content + b"\0")
        assert video.changed()
        path.unlink()
        assert not video.changed() and _number(video.frame(3)) == 3, "deleted: it stays open"
    (tmp_path / "copy.mp4").write_bytes(content)
    with VideoFile(tmp_path / "copy.mp4") as copy, VideoFile(io.BytesIO(content)) as stream:
        assert copy.identity() == before == stream.identity()
        assert _number(stream.frame(2)) == 2, "reading goes on after it was asked what it is"

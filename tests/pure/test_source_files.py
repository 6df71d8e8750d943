"""Files as people have them: damaged, cut off, changed meanwhile, no video at all, longer than memory."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from infinitetalk_core.errors import InputError, RunError
from infinitetalk_core.fingerprint import file_fingerprint, stream_fingerprint
from infinitetalk_core.video.source import KEPT_FRAMES, VideoFile
from tests.support.numbered_video import make_video, number_in, numbers_of, steady


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
    make_video(tmp_path / "v.mp4", steady(9, 25))
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


def test_a_codec_that_ffmpeg_does_not_know_is_not_called_damage(tmp_path):
    make_video(tmp_path / "v.mp4", steady(3, 25))
    (tmp_path / "new.mp4").write_bytes((tmp_path / "v.mp4").read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(InputError, match=r"new.mp4 is a video of a kind that .* cannot decode: convert it to H.264"):
        VideoFile(tmp_path / "new.mp4")


@pytest.mark.parametrize("name", ["old.avi", "old.mov"])
def test_a_title_in_an_old_encoding_is_no_reason_to_refuse_a_video(tmp_path, name):
    make_video(tmp_path / name, steady(3, 25), codec="mpeg4", tick=Fraction(1, 25))
    with av.open(str(tmp_path / name)) as plain, av.open(str(tmp_path / f"titled_{name}"), "w") as titled:
        titled.metadata["title"] = "Cafe~ au lait"
        stream = titled.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                titled.mux(packet)
    content = (tmp_path / f"titled_{name}").read_bytes()
    assert b"Cafe~" in content
    (tmp_path / name).write_bytes(content.replace(b"Cafe~", "Café".encode("latin-1") + b" "))
    with VideoFile(tmp_path / name) as video:
        assert numbers_of(video) == [0, 1, 2]


def test_a_file_that_ends_early_holds_its_last_picture(tmp_path):
    """An index for 100 frames, data for fewer: as after a broken download."""
    make_video(tmp_path / "v.mkv", steady(100, 25), options={"g": "20"})
    whole = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    with VideoFile(tmp_path / "cut.mkv") as video:
        assert 20 < video.length < 90
        numbers = numbers_of(video)
        known = numbers[-1] + 1
        assert numbers[:known] == list(range(known)) and set(numbers[known:]) <= {known - 1}


def test_a_damaged_place_holds_the_picture_before(tmp_path):
    make_video(tmp_path / "v.mp4", steady(50, 25), options={"g": "1"})
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
        numbers = numbers_of(video)
    assert numbers[:20] == list(range(20)) and numbers[22:] == list(range(22, 50))


def test_a_file_that_gets_another_content_is_noticed_and_a_copy_of_itself_is_not(tmp_path):
    path = tmp_path / "v.mp4"
    make_video(path, [Fraction(n, 25) for n in range(5)])
    content = path.read_bytes()
    with VideoFile(path) as video:
        before = video.fingerprint()
        assert not video.changed()
        path.write_bytes(content)
        assert not video.changed(), "the same once more"
        path.write_bytes(content + b"\0")
        assert video.changed()
        path.write_bytes(content)
        path.unlink()
        assert not video.changed() and number_in(video.frame(3)) == 3, "deleted: it stays open"
    (tmp_path / "copy.mp4").write_bytes(content)
    with VideoFile(tmp_path / "copy.mp4") as copy, VideoFile(io.BytesIO(content)) as stream:
        assert copy.fingerprint() == before == stream.fingerprint()
        assert number_in(stream.frame(2)) == 2, "reading goes on after it was asked what it is"


def test_a_file_that_is_replaced_after_it_was_opened_stays_what_it_was(tmp_path):
    """By its content, its pictures and its name in the run: another film has only its place on the disk."""
    path, other = tmp_path / "v.mp4", tmp_path / "other.mp4"
    make_video(path, steady(300, 25))
    make_video(other, steady(20, 25))
    content = path.read_bytes()
    with VideoFile(path) as video:
        other.replace(path)
        assert video.fingerprint() == stream_fingerprint(io.BytesIO(content)) != file_fingerprint(path)
        assert not video.changed()
        assert [number_in(video.frame(index)) for index in (299, 0, 150)] == [299, 0, 150], "there and back"


@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_is_written_to_after_it_was_opened_is_refused(tmp_path, known):
    path = tmp_path / "v.mp4"
    make_video(path, steady(20, 25))
    with VideoFile(path) as video:
        if known:
            video.fingerprint()
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"?")
        assert video.changed()
        if not known:
            with pytest.raises(RunError, match="the source file was changed after it was opened: run again"):
                video.fingerprint()


def test_a_closed_video_lets_go_of_its_file(tmp_path):
    make_video(tmp_path / "v.mp4", steady(3, 25))
    video = VideoFile(tmp_path / "v.mp4")
    video.frame(1)
    video.close()
    (tmp_path / "v.mp4").unlink()
    assert not video._kept


def test_memory_does_not_grow_with_the_frames_read(tmp_path):
    make_video(tmp_path / "v.mp4", steady(2000, 25), options={"preset": "ultrafast"})
    with VideoFile(tmp_path / "v.mp4") as video:
        assert video.length == 2000
        for index in range(2000):
            assert number_in(video.frame(index)) == index
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


def test_an_interrupt_is_looked_for_in_the_thread_that_opened_the_file(tmp_path):
    """The host notices one once: a thread that reads ahead would take it away from the one that stops."""
    make_video(tmp_path / "v.mp4", steady(60, 25))
    asked: list[int] = []
    with VideoFile(tmp_path / "v.mp4", check_interrupted=lambda: asked.append(threading.get_ident())) as video:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: number_in(video.frame(30))).result() == 30
        assert set(asked) == {threading.get_ident()}
        before = len(asked)
        assert number_in(video.frame(50)) == 50 and len(asked) > before

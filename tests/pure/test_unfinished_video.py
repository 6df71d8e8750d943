"""What is left of a video that grows when it is stopped, killed or the disk is full: a file that plays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest

from infinitetalk_core.errors import InputError, RunError
from infinitetalk_core.video import writer as writer_module
from infinitetalk_core.video.partfile import PartFile, whole_fragments_end
from infinitetalk_core.video.soundtrack import encode_sound
from infinitetalk_core.video.writer import VideoWriter, free_path
from tests.support.videos import (
    append,
    click_times,
    clicking,
    flash_times,
    flashing,
    gray,
    pictures_of,
    sound_of,
    write,
    writer_of,
)

ROOT = Path(__file__).parents[2]


def test_the_part_file_can_be_played_while_it_grows(tmp_path):
    path = tmp_path / "v.mp4"
    with writer_of(path, clicking(12)) as writer:
        for chunk in range(1, 5):
            append(writer, flashing(72))
            seen = len(pictures_of(writer.part)) if chunk > 1 else 0
            assert seen == 72 * (chunk - 1), f"{seen} frames to see after {72 * chunk} written"
            assert not path.exists()
    assert not writer.part.exists() and len(pictures_of(path)) == 4 * 72


def test_an_interrupted_video_is_kept_with_its_sound_cut_there(tmp_path):
    path = tmp_path / "v.mp4"
    with pytest.raises(KeyboardInterrupt), writer_of(path, clicking(60)) as writer:
        append(writer, flashing(60))
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["v_interrupted.mp4"]
    kept = tmp_path / "v_interrupted.mp4"
    assert len(pictures_of(kept)) == 60
    start, samples, rate = sound_of(kept)  # what is heard: fragments declare the encoder's delay as well
    assert start == 0 and samples.shape[1] / rate == pytest.approx(2.4, abs=1024 / 48000)
    assert click_times(kept) == pytest.approx([1, 2], abs=0.001)


def test_an_interruption_before_the_first_frame_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), writer_of(tmp_path / "v.mp4", clicking(1)):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_second_interruption_does_not_replace_the_first(tmp_path):
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), writer_of(tmp_path / "v.mp4", None) as writer:
            append(writer, gray(3))
            raise KeyboardInterrupt
    assert {p.name for p in tmp_path.iterdir()} == {
        "v_interrupted.mp4",
        "v_interrupted_2.mp4",
        "v_interrupted_3.mp4",
    }
    assert free_path(tmp_path / "new.mp4") == tmp_path / "new.mp4"


CHILD = """
import os, resource, signal, sys
sys.path.insert(0, {root!r})
import torch
from pathlib import Path
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.video.format import VideoFormat
from infinitetalk_core.video.segment import encode_segment
from infinitetalk_core.video.soundtrack import encode_sound
from infinitetalk_core.video.writer import VideoWriter
video_format = VideoFormat()
torch.set_num_threads(1)
torch.manual_seed(0)
limit = {limit}
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with VideoWriter(Path({path!r}), encode_sound(Sound(torch.zeros(1, 16000 * 60), 16000))) as writer:
    for _ in range(20):
        frames = torch.rand(36, 64, 96, 3) if limit else torch.full((36, 64, 96, 3), 0.2)
        writer.append(encode_segment(frames, video_format))
        print(writer.frames_written, flush=True)
        if not limit and writer.frames_written >= 180:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def _run_child(path: Path, limit: int = 0) -> subprocess.CompletedProcess:
    code = CHILD.format(root=str(ROOT), path=str(path), limit=limit)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_leaves_a_video_that_plays_and_the_next_one_leaves_it_alone(tmp_path):
    path = tmp_path / "v.mp4"
    assert _run_child(path).returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == ["v.part.mp4"]
    seen = len(pictures_of(tmp_path / "v.part.mp4"))
    assert 180 - 60 <= seen <= 180
    sound_of(tmp_path / "v.part.mp4")
    write(path, gray(4), None)
    assert len(pictures_of(tmp_path / "v.part.mp4")) == seen, "it may be another process's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.mp4", "v.part.mp4"]
    assert len(pictures_of(path)) == 4


def test_a_part_file_that_another_process_has_replaced_is_not_touched(tmp_path):
    """Without shared file locks, two machines may write one video: the loser must not take the winner's file."""
    path = tmp_path / "v.mp4"
    with pytest.raises(RunError, match=r"v\.part\.mp4 was removed or replaced"), writer_of(path, None) as writer:
        append(writer, gray(40))
        writer.part.unlink()
        writer.part.write_bytes(b"the winner's")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"v.part.mp4": b"the winner's"}
    writer.part.unlink()
    with pytest.raises(RunError, match="was removed"), writer_of(path, None) as writer:
        append(writer, gray(40))
        writer.part.unlink()
    with pytest.raises(KeyboardInterrupt), writer_of(path, None) as writer:
        append(writer, gray(40))
        writer.part.unlink()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "v.mp4"
    writer = writer_of(path, None, on_closed=lambda part: path.write_bytes(b"mine"))
    with pytest.raises(InputError, match="appeared while the video was made"), writer:
        append(writer, gray(4))
    assert path.read_bytes() == b"mine" and len(pictures_of(tmp_path / "v_interrupted.mp4")) == 4


def no_links(*args: object, **options: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_the_last_rename_is_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("infinitetalk_core.file_access.os.fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    write(tmp_path / "v.mp4", gray(4), None)
    assert synced[-1] == tmp_path.stat().st_ino


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
@pytest.mark.parametrize("limit", [2000, 300_000])
def test_a_full_disk_is_named_and_leaves_nothing_broken(tmp_path, limit):
    path = tmp_path / "v.mp4"
    child = _run_child(path, limit)
    assert child.returncode == 1
    last = child.stderr.strip().splitlines()[-1]
    assert "OSError" in last and str(tmp_path) in last and "free some space" in last, child.stderr
    left = list(tmp_path.iterdir())
    assert [p.name for p in left] == (["v_interrupted.mp4"] if limit > 100_000 else [])
    for path in left:  # every picture and all sound in it decode
        assert len(pictures_of(path)) > 20
        sound_of(path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at the process's open files as Linux shows them")
def test_a_disk_that_fails_at_once_leaves_no_file_open(tmp_path, monkeypatch):
    """On Windows an open file cannot be removed, and the run's sound is removed with the run."""
    (tmp_path / "sound").write_bytes(encode_sound(clicking(1)))

    def fail(self: PartFile, data: bytes) -> int:
        self.failed = True
        raise OSError("no space")

    monkeypatch.setattr(PartFile, "write", fail)
    with pytest.raises(OSError, match="no space"), VideoWriter(tmp_path / "v.mp4", tmp_path / "sound") as writer:
        append(writer, flashing(3))
    assert [p.name for p in tmp_path.iterdir()] == ["sound"] and writer.kept is None
    held = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [name for name in held if name.startswith(str(tmp_path))]


def test_a_file_cut_anywhere_is_cut_back_to_what_decodes(tmp_path):
    """Whatever the byte at which the disk was full."""
    with pytest.raises(KeyboardInterrupt), writer_of(tmp_path / "v.mp4", clicking(9)) as writer:
        for _ in range(6):
            append(writer, flashing(25))
        grown = writer.part.read_bytes()
        raise KeyboardInterrupt
    for size in range(1000, len(grown), len(grown) // 12):
        broken = PartFile(tmp_path / "broken.mp4")
        broken.write(grown[:size])
        broken.close()
        broken.cut_to_whole_fragments()
        end = broken.path.stat().st_size
        assert end <= size
        pictures = pictures_of(broken.path) if end else []
        broken.path.unlink()
        assert len(pictures) % 25 == 0
    closed_as_one = writer_module._growing_flags() == writer_module._BEST
    assert (whole_fragments_end(tmp_path / "v_interrupted.mp4") == 0) == closed_as_one


def test_a_part_file_writes_nothing_after_its_first_failure(tmp_path):
    file = PartFile(tmp_path / "v.part.mp4")
    file.write(b"good")
    file.raw.close()
    with pytest.raises(ValueError):
        file.write(b"lost")
    assert file.failed and file.write(b"more") == 4
    assert file.path.read_bytes() == b"good"


def test_an_older_ffmpeg_writes_a_plain_fragmented_file(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "_survives_closing", lambda flags: False)
    path = tmp_path / "v.mp4"
    write(path, flashing(60), clicking(2.4), metadata={"prompt": "{}"})
    assert flash_times(path) == [1, 2]
    assert click_times(path) == pytest.approx([1, 2], abs=0.001)
    with av.open(str(path)) as file:
        assert file.metadata["prompt"] == "{}"


def test_both_ways_of_growing_are_tried_for_real():
    assert writer_module._survives_closing(writer_module._PLAIN)
    assert not writer_module._survives_closing("no_such_flag")

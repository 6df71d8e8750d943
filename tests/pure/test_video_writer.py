"""The file an artist gets: its pictures, its sound in time with them, and what is left when something goes wrong."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.errors import InputError
from infinitetalk_core.video import writer as writer_module
from infinitetalk_core.video.format import VideoFormat
from infinitetalk_core.video.partfile import PartFile, whole_fragments_end
from infinitetalk_core.video.segment import Segment, encode_segment
from infinitetalk_core.video.soundtrack import encode_sound, to_mono_or_stereo
from infinitetalk_core.video.writer import VideoWriter, free_path

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 96, 64


def _grey(frames: int, value: float = 0.1) -> torch.Tensor:
    return torch.full((frames, HEIGHT, WIDTH, 3), value)


def _flashes(frames: int) -> torch.Tensor:
    """White for one frame at every full second, after the first."""
    video = _grey(frames)
    video[25::25] = 1
    return video


def _clicks(seconds: float, rate: int = 48000, channels: int = 1) -> Sound:
    """Two milliseconds loud at every full second, after the first."""
    waveform = torch.zeros(channels, int(seconds * rate))
    for second in range(1, int(seconds) + 1):
        waveform[:, second * rate : second * rate + rate // 500] = 0.8
    return Sound(waveform, rate)


def _write(path: Path, video: torch.Tensor, sound: Sound | None, chunk: int = 36, **options: object) -> None:
    crf = options.pop("crf", 18)
    with _writer(path, sound, **options) as writer:
        for start in range(0, len(video), chunk):
            _append(writer, video[start : start + chunk], crf)
        assert writer.frames_written == len(video)


def _writer(path: Path, sound: Sound | None, **options: object) -> VideoWriter:
    return VideoWriter(path, None if sound is None else encode_sound(sound), **options)  # type: ignore[arg-type]


def _append(writer: VideoWriter, video: torch.Tensor, crf: int = 18) -> None:
    writer.append(encode_segment(video, VideoFormat(crf=crf)))


def _pictures(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as file:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]


def _sound(path: Path) -> tuple[float, np.ndarray, int]:
    """When it starts, its samples (channels, n), its rate."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
    return (
        float(frames[0].pts * frames[0].time_base),
        np.concatenate([f.to_ndarray() for f in frames], axis=1),
        frames[0].sample_rate,
    )


def _flash_times(path: Path) -> list[float]:
    return [time for time, picture in _pictures(path) if picture.mean() > 128]


def _click_times(path: Path) -> list[float]:
    start, samples, rate = _sound(path)
    loud = np.flatnonzero(np.abs(samples[0]) > 0.25)
    first = [n for i, n in enumerate(loud) if i == 0 or n - loud[i - 1] > rate // 2]
    return [start + n / rate for n in first]


def _declared_seconds(path: Path, kind: str) -> float:
    with av.open(str(path)) as file:
        stream = next(s for s in file.streams if s.type == kind)
        return float(stream.duration * stream.time_base)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (22050, 3), (44100, 2), (48000, 2), (96000, 6)])
def test_flash_and_click_come_together(tmp_path, rate, channels):
    path = tmp_path / "v.mp4"
    _write(path, _flashes(80), _clicks(3.2, rate, channels))
    flashes, clicks = _flash_times(path), _click_times(path)
    assert flashes == [1, 2, 3]
    assert np.abs(np.subtract(flashes, clicks)).max() < 0.001, f"clicks at {clicks}"


def test_the_first_picture_is_at_zero_and_every_frame_lasts_a_25th(tmp_path):
    path = tmp_path / "v.mp4"
    _write(path, _grey(53), _clicks(2))
    times = [time for time, _ in _pictures(path)]
    assert times == pytest.approx([n / 25 for n in range(53)])


@pytest.mark.parametrize("count", [1, 2, 24, 25, 26, 27, 28, 40, 50, 51, 54, 66, 75])
def test_no_picture_is_lost_whatever_the_length(tmp_path, count):
    _write(tmp_path / "v.mp4", _grey(count), _clicks(2, 16000))
    assert len(_pictures(tmp_path / "v.mp4")) == count


@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.517])
def test_the_sound_is_whole_and_as_long_as_it_was(tmp_path, seconds):
    """Also where it is longer or shorter than the pictures."""
    path = tmp_path / "v.mp4"
    rate = 48000
    tone = 0.4 * torch.sin(torch.arange(int(seconds * rate)) * 0.05)[None]
    _write(path, _grey(50), Sound(tone, rate))
    assert _declared_seconds(path, "audio") == pytest.approx(tone.shape[1] / rate, abs=0.025)
    assert _declared_seconds(path, "video") == pytest.approx(2)
    start, samples, _ = _sound(path)
    heard = samples[0][: tone.shape[1]]
    assert start == 0 and len(heard) == tone.shape[1]
    assert np.abs(heard - tone[0].numpy())[2000:-2000].max() < 0.05
    assert np.abs(heard[-1024:]).max() > 0.3, "the tail of the sound is there"


def test_a_video_without_sound_has_none(tmp_path):
    path = tmp_path / "v.mp4"
    _write(path, _grey(3), None)
    with av.open(str(path)) as file:
        assert not file.streams.audio
        assert file.streams.video[0].codec_context.name == "h264"
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert file.streams.video[0].average_rate == 25


def test_one_frame_is_a_video(tmp_path):
    _write(tmp_path / "v.mp4", _grey(1), _clicks(0.04))
    assert len(_pictures(tmp_path / "v.mp4")) == 1


def test_colours_are_tagged_and_come_back(tmp_path):
    path = tmp_path / "v.mp4"
    colours = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.2, 0.3, 0.9], [0.5, 0.5, 0.5], [1, 1, 1], [0, 0, 0]])
    video = colours[:, None, None].expand(-1, HEIGHT, WIDTH, 3)
    _write(path, video, None, crf=4)
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        for frame in frames:
            assert (int(frame.colorspace), int(frame.color_range)) == (1, 1), "BT.709, limited range"
        context = file.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc) == (1, 1)
    for frame, colour in zip(frames, colours, strict=True):
        got = frame.reformat(
            format="rgb24", src_colorspace=1, dst_colorspace=1, src_color_range=1, dst_color_range=2
        ).to_ndarray()
        assert np.abs(got[32, 48] - colour.numpy() * 255).max() <= 4


def test_the_graph_is_embedded_as_comfyui_embeds_it(tmp_path):
    path = tmp_path / "v.mp4"
    tags = {"prompt": '{"1": {"class_type": "ä"}}', "workflow": '{"nodes": []}'}
    _write(path, _grey(2), None, metadata=tags)
    with av.open(str(path)) as file:
        assert {name: file.metadata[name] for name in tags} == tags


@pytest.mark.parametrize("name", ["a:b %03d ü.mp4", "v.m4v", "v.mov", "V.MP4"])
def test_any_name_and_every_container(tmp_path, name):
    _write(tmp_path / name, _grey(5), _clicks(0.2))
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(_pictures(tmp_path / name)) == 5


def test_the_part_file_can_be_played_while_it_grows(tmp_path):
    path = tmp_path / "v.mp4"
    with _writer(path, _clicks(12)) as writer:
        for chunk in range(1, 5):
            _append(writer, _flashes(72))
            seen = len(_pictures(writer.part))
            assert seen >= 72 * chunk - 60, f"{seen} frames to see after {72 * chunk} written"
            assert not path.exists()
    assert not writer.part.exists() and len(_pictures(path)) == 4 * 72


def test_an_interrupted_video_is_kept_with_its_sound_cut_there(tmp_path):
    path = tmp_path / "v.mp4"
    with pytest.raises(KeyboardInterrupt), _writer(path, _clicks(60)) as writer:
        _append(writer, _flashes(60))
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["v_interrupted.mp4"]
    kept = tmp_path / "v_interrupted.mp4"
    assert len(_pictures(kept)) == 60
    assert _declared_seconds(kept, "audio") == pytest.approx(2.4, abs=0.025)
    assert _click_times(kept) == pytest.approx([1, 2], abs=0.001)


@pytest.mark.parametrize("lengths", [(75,), (1, 1, 2, 3, 68), (36, 39), (25, 50), (40, 1, 34)])
def test_however_it_is_cut_into_chunks_every_frame_has_its_time(tmp_path, lengths):
    """A chunk of a single frame too, where one shot follows the other."""
    video = torch.linspace(0, 1, 75)[:, None, None, None].expand(-1, HEIGHT, WIDTH, 3)
    with _writer(tmp_path / "v.mp4", _clicks(3)) as writer:
        for part in video.split(list(lengths)):
            _append(writer, part, 4)
    pictures = _pictures(tmp_path / "v.mp4")
    assert [time for time, _ in pictures] == pytest.approx([n / 25 for n in range(75)])
    levels = [picture.mean() / 255 for _, picture in pictures]
    assert np.abs(np.subtract(levels, video[:, 0, 0, 0].numpy())).max() < 0.02, "the right picture at each time"


def test_the_same_pictures_give_the_same_file_to_the_bit(tmp_path):
    """Also the parts, and also where the sound comes from a file."""
    torch.manual_seed(3)
    parts = torch.rand(50, HEIGHT, WIDTH, 3).split(20)
    (tmp_path / "sound").write_bytes(encode_sound(_clicks(2.5)))
    for name, sound in (("a.mp4", encode_sound(_clicks(2.5))), ("b.mp4", tmp_path / "sound")):
        with VideoWriter(tmp_path / name, sound) as writer:
            for part in parts:
                writer.append(encode_segment(part, VideoFormat()))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_segment_begins_with_a_key_frame_and_refers_to_nothing_outside():
    with Segment(encode_segment(_flashes(30), VideoFormat())) as segment:
        packets = list(segment.packets(100))
    assert packets[0].is_keyframe and packets[0].pts == 100
    assert sorted(p.pts for p in packets) == list(range(100, 130))
    assert all(p.dts <= p.pts for p in packets)


def test_an_interruption_before_the_first_frame_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), _writer(tmp_path / "v.mp4", _clicks(1)):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_second_interruption_does_not_replace_the_first(tmp_path):
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), _writer(tmp_path / "v.mp4", None) as writer:
            _append(writer, _grey(3))
            raise KeyboardInterrupt
    assert {p.name for p in tmp_path.iterdir()} == {
        "v_interrupted.mp4",
        "v_interrupted_2.mp4",
        "v_interrupted_3.mp4",
    }
    assert free_path(tmp_path / "new.mp4") == tmp_path / "new.mp4"


def test_no_frame_is_no_video(tmp_path):
    with (
        pytest.raises(InputError, match="no frame was written"),
        _writer(tmp_path / "v.mp4", _clicks(1)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_never_overwritten(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"), _writer(path, None):
        pass
    path.unlink()
    with (
        pytest.raises(InputError, match="appeared while"),
        _writer(path, None) as writer,
    ):
        _append(writer, _grey(2))
        path.write_text("mine")
    assert path.read_text() == "mine" and len(_pictures(writer.interrupted)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "v.avi"}, "not as v.avi"),
        ({"name": "nowhere/v.mp4"}, "no folder .*nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        VideoWriter(tmp_path / change["name"], None)
    with pytest.raises(InputError, match="crf must be between 0"):
        VideoFormat(crf=52).check()
    assert not list(tmp_path.iterdir())


def test_frames_of_another_size_are_refused(tmp_path):
    with (
        pytest.raises(InputError, match=r"a segment is \(64, 98\), and the video's"),
        _writer(tmp_path / "v.mp4", None) as writer,
    ):
        _append(writer, _grey(2))
        _append(writer, torch.zeros(1, 64, 98, 3))


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
form = VideoFormat()
torch.set_num_threads(1)
torch.manual_seed(0)
limit = {limit}
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with VideoWriter(Path({path!r}), encode_sound(Sound(torch.zeros(1, 16000 * 60), 16000))) as writer:
    for _ in range(20):
        writer.append(encode_segment(torch.rand(36, 64, 96, 3) if limit else torch.full((36, 64, 96, 3), 0.2), form))
        print(writer.frames_written, flush=True)
        if not limit and writer.frames_written >= 180:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def _run_child(path: Path, limit: int = 0) -> subprocess.CompletedProcess:
    code = CHILD.format(root=str(ROOT), path=str(path), limit=limit)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_leaves_a_video_that_plays_and_the_next_run_keeps_it(tmp_path):
    path = tmp_path / "v.mp4"
    assert _run_child(path).returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == ["v.part.mp4"]
    seen = len(_pictures(tmp_path / "v.part.mp4"))
    assert 180 - 60 <= seen <= 180
    _sound(tmp_path / "v.part.mp4")
    _write(path, _grey(4), None)
    assert len(_pictures(tmp_path / "v_interrupted.mp4")) == seen
    assert len(_pictures(path)) == 4


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
        assert len(_pictures(path)) > 20
        _sound(path)


def test_a_file_cut_anywhere_is_cut_back_to_what_decodes(tmp_path):
    """Whatever the byte at which the disk was full."""
    with pytest.raises(KeyboardInterrupt), _writer(tmp_path / "v.mp4", _clicks(9)) as writer:
        _append(writer, _flashes(150))
        grown = writer.part.read_bytes()
        raise KeyboardInterrupt
    for size in range(1000, len(grown), len(grown) // 12):
        broken = PartFile(tmp_path / "broken.mp4")
        broken.write(grown[:size])
        broken.close()
        broken.cut_to_whole_fragments()
        end = broken.path.stat().st_size
        assert end <= size
        pictures = _pictures(broken.path) if end else []
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
    _write(path, _flashes(60), _clicks(2.4), metadata={"prompt": "{}"})
    assert _flash_times(path) == [1, 2]
    assert _click_times(path) == pytest.approx([1, 2], abs=0.001)
    with av.open(str(path)) as file:
        assert file.metadata["prompt"] == "{}"


def test_both_ways_of_growing_are_tried_for_real():
    assert writer_module._survives_closing(writer_module._PLAIN)
    assert not writer_module._survives_closing("no_such_flag")


def test_frames_are_not_held(tmp_path):
    """What is alive after 40 chunks is what was alive after 4."""
    with _writer(tmp_path / "v.mp4", _clicks(60)) as writer:
        counts = []
        for chunk in range(40):
            _append(writer, _grey(25))
            if chunk in (3, 39):
                gc.collect()
                alive = (o for o in gc.get_objects() if type(o) in (torch.Tensor, np.ndarray))
                counts.append(sum(o.nbytes for o in alive))
    assert counts[1] <= counts[0] + WIDTH * HEIGHT * 3 * 4


def test_51_sound_is_folded_down_without_clipping():
    left_only = torch.zeros(6, 4)
    left_only[0] = 1
    folded = to_mono_or_stereo(left_only)
    assert folded.shape == (2, 4) and (folded[0] > 0).all() and not folded[1].any()
    centre = torch.zeros(6, 4)
    centre[2] = 1
    assert torch.equal(*to_mono_or_stereo(centre))
    assert to_mono_or_stereo(torch.ones(8, 4)).max() <= 1
    assert to_mono_or_stereo(torch.ones(3, 4)).shape == (1, 4)

"""The file an artist gets: its pictures, its sound in time with them, its name, and nothing that it replaces."""

from __future__ import annotations

import gc

import av
import numpy as np
import pytest
import torch

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.format import VideoFormat
from infinitetalk_core.video.segment import Segment, encode_segment
from infinitetalk_core.video.soundtrack import encode_sound, to_mono_or_stereo
from infinitetalk_core.video.writer import VideoWriter
from tests.support.videos import (
    HEIGHT,
    WIDTH,
    append,
    click_times,
    clicking,
    declared_seconds,
    flash_times,
    flashing,
    gray,
    pictures_of,
    sound_of,
    write,
    writer_of,
)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (22050, 3), (44100, 2), (48000, 2), (96000, 6)])
def test_flash_and_click_come_together(tmp_path, rate, channels):
    path = tmp_path / "v.mp4"
    write(path, flashing(80), clicking(3.2, rate, channels))
    flashes, clicks = flash_times(path), click_times(path)
    assert flashes == [1, 2, 3]
    assert np.abs(np.subtract(flashes, clicks)).max() < 0.001, f"clicks at {clicks}"


def test_the_first_picture_is_at_zero_and_every_frame_lasts_a_25th(tmp_path):
    path = tmp_path / "v.mp4"
    write(path, gray(53), clicking(2))
    times = [time for time, _ in pictures_of(path)]
    assert times == pytest.approx([n / 25 for n in range(53)])


@pytest.mark.parametrize("count", [1, 2, 24, 25, 26, 27, 28, 40, 50, 51, 54, 66, 75])
def test_no_picture_is_lost_whatever_the_length(tmp_path, count):
    write(tmp_path / "v.mp4", gray(count), clicking(2, 16000))
    assert len(pictures_of(tmp_path / "v.mp4")) == count


@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.517])
def test_the_sound_is_whole_and_as_long_as_it_was(tmp_path, seconds):
    """Also where it is longer or shorter than the pictures."""
    path = tmp_path / "v.mp4"
    rate = 48000
    tone = 0.4 * torch.sin(torch.arange(int(seconds * rate)) * 0.05)[None]
    write(path, gray(50), Sound(tone, rate))
    assert declared_seconds(path, "audio") == pytest.approx(tone.shape[1] / rate, abs=0.025)
    assert declared_seconds(path, "video") == pytest.approx(2)
    start, samples, _ = sound_of(path)
    heard = samples[0][: tone.shape[1]]
    assert start == 0 and len(heard) == tone.shape[1]
    assert np.abs(heard - tone[0].numpy())[2000:-2000].max() < 0.05
    assert np.abs(heard[-1024:]).max() > 0.3, "the tail of the sound is there"


def test_a_video_without_sound_has_none(tmp_path):
    path = tmp_path / "v.mp4"
    write(path, gray(3), None)
    with av.open(str(path)) as file:
        assert not file.streams.audio
        assert file.streams.video[0].codec_context.name == "h264"
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert file.streams.video[0].average_rate == 25


def test_one_frame_is_a_video(tmp_path):
    write(tmp_path / "v.mp4", gray(1), clicking(0.04))
    assert len(pictures_of(tmp_path / "v.mp4")) == 1


def test_colors_are_tagged_and_come_back(tmp_path):
    path = tmp_path / "v.mp4"
    colors = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.2, 0.3, 0.9], [0.5, 0.5, 0.5], [1, 1, 1], [0, 0, 0]])
    video = colors[:, None, None].expand(-1, HEIGHT, WIDTH, 3)
    write(path, video, None, crf=4)
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        for frame in frames:
            assert (int(frame.colorspace), int(frame.color_range)) == (1, 1), "BT.709, limited range"
        context = file.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc) == (1, 1)
    for frame, color in zip(frames, colors, strict=True):
        got = frame.reformat(
            format="rgb24", src_colorspace=1, dst_colorspace=1, src_color_range=1, dst_color_range=2
        ).to_ndarray()
        assert np.abs(got[32, 48] - color.numpy() * 255).max() <= 4


def test_the_graph_is_embedded_as_comfyui_embeds_it(tmp_path):
    path = tmp_path / "v.mp4"
    tags = {"prompt": '{"1": {"class_type": "ä"}}', "workflow": '{"nodes": []}'}
    write(path, gray(2), None, metadata=tags)
    with av.open(str(path)) as file:
        assert {name: file.metadata[name] for name in tags} == tags


@pytest.mark.parametrize("name", ["a:b %03d ü.mp4", "v.m4v", "v.mov", "V.MP4"])
def test_any_name_and_every_container(tmp_path, name):
    write(tmp_path / name, gray(5), clicking(0.2))
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(pictures_of(tmp_path / name)) == 5


@pytest.mark.parametrize("lengths", [(75,), (1, 1, 2, 3, 68), (36, 39), (25, 50), (40, 1, 34)])
def test_however_it_is_cut_into_chunks_every_frame_has_its_time(tmp_path, lengths):
    """A chunk of a single frame too, where one shot follows the other."""
    video = torch.linspace(0, 1, 75)[:, None, None, None].expand(-1, HEIGHT, WIDTH, 3)
    with writer_of(tmp_path / "v.mp4", clicking(3)) as writer:
        for part in video.split(list(lengths)):
            append(writer, part, 4)
    pictures = pictures_of(tmp_path / "v.mp4")
    assert [time for time, _ in pictures] == pytest.approx([n / 25 for n in range(75)])
    levels = [picture.mean() / 255 for _, picture in pictures]
    assert np.abs(np.subtract(levels, video[:, 0, 0, 0].numpy())).max() < 0.02, "the right picture at each time"


def test_the_same_pictures_give_the_same_file_to_the_bit(tmp_path):
    """Also the parts, and also where the sound comes from a file."""
    torch.manual_seed(3)
    parts = torch.rand(50, HEIGHT, WIDTH, 3).split(20)
    (tmp_path / "sound").write_bytes(encode_sound(clicking(2.5)))
    for name, sound in (("a.mp4", encode_sound(clicking(2.5))), ("b.mp4", tmp_path / "sound")):
        with VideoWriter(tmp_path / name, sound) as writer:
            for part in parts:
                writer.append(encode_segment(part, VideoFormat()))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_segment_begins_with_a_key_frame_and_refers_to_nothing_outside():
    with Segment(encode_segment(flashing(30), VideoFormat())) as segment:
        packets = list(segment.packets(100))
    assert packets[0].is_keyframe and packets[0].pts == 100
    assert sorted(p.pts for p in packets) == list(range(100, 130))
    assert all(p.dts <= p.pts for p in packets)


def test_no_frame_is_no_video(tmp_path):
    with (
        pytest.raises(InputError, match="no frame was written"),
        writer_of(tmp_path / "v.mp4", clicking(1)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_never_overwritten(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"), writer_of(path, None):
        pass
    path.unlink()
    with (
        pytest.raises(InputError, match="appeared while"),
        writer_of(path, None) as writer,
    ):
        append(writer, gray(2))
        path.write_text("mine")
    assert path.read_text() == "mine" and len(pictures_of(writer.interrupted)) == 2


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
        writer_of(tmp_path / "v.mp4", None) as writer,
    ):
        append(writer, gray(2))
        append(writer, torch.zeros(1, 64, 98, 3))


def test_frames_are_not_held(tmp_path):
    """What is alive after 40 chunks is what was alive after 4."""
    with writer_of(tmp_path / "v.mp4", clicking(60)) as writer:
        counts = []
        for chunk in range(40):
            append(writer, gray(25))
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
    center = torch.zeros(6, 4)
    center[2] = 1
    assert torch.equal(*to_mono_or_stereo(center))
    assert to_mono_or_stereo(torch.ones(8, 4)).max() <= 1
    assert to_mono_or_stereo(torch.ones(3, 4)).shape == (1, 4)

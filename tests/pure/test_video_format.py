"""Every format an artist can choose: its colors, its joins, and the same file each time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.format import ENCODERS, Codec, VideoFormat
from infinitetalk_core.video.segment import Segment, encode_segment
from infinitetalk_core.video.soundtrack import encode_sound
from infinitetalk_core.video.source import VideoFile
from infinitetalk_core.video.writer import VideoWriter

ROOT = Path(__file__).parents[2]
FORMATS = [VideoFormat(codec, bits, 10) for codec in Codec for bits in (8, 10)]
KINDS = {Codec.H264: "h264", Codec.HEVC: "hevc", Codec.AV1: "av1", Codec.LOSSLESS: "h264"}


@pytest.fixture(params=FORMATS, ids=lambda video_format: f"{video_format.codec.value} {video_format.bits}")
def video_format(request) -> VideoFormat:
    try:
        return request.param.check()
    except InputError as missing:
        pytest.skip(str(missing))


def _ramp(frames: int, seed: int = 0) -> torch.Tensor:
    """Frames that grow brighter, with soft colors of their own."""
    coarse = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    soft = torch.nn.functional.interpolate(coarse, (64, 96), mode="bilinear")[0].permute(1, 2, 0)
    return 0.2 + 0.3 * soft + torch.linspace(0, 0.4, frames)[:, None, None, None]


def _write(path: Path, video_format: VideoFormat, parts: list[torch.Tensor], sound: bytes | None = None) -> None:
    with VideoWriter(path, sound) as writer:
        for part in parts:
            writer.append(encode_segment(part, video_format))


def test_a_player_is_told_the_codec_and_the_colors(tmp_path, video_format):
    _write(tmp_path / "v.mp4", video_format, [_ramp(9)])
    with av.open(str(tmp_path / "v.mp4")) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.codec.canonical_name == KINDS[video_format.codec]
        assert stream.codec_context.pix_fmt == video_format.pixels
        assert stream.average_rate == 25
        if video_format.codec is Codec.HEVC:
            assert stream.codec_context.codec_tag == "hvc1", "as Apple's players want it"
        frame = next(file.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 1), "BT.709, limited range"
        assert (stream.codec_context.color_primaries, stream.codec_context.color_trc) == (1, 1)


@pytest.mark.parametrize("lengths", [(75,), (40, 1, 2, 3, 29)])
def test_however_it_is_cut_into_chunks_every_picture_has_its_time_and_its_colors(tmp_path, video_format, lengths):
    video = _ramp(75)
    silence = encode_sound(Sound(torch.zeros(1, 48000), 16000))
    _write(tmp_path / "v.mp4", video_format, list(video.split(list(lengths))), silence)
    with av.open(str(tmp_path / "v.mp4")) as file:
        times = [float(frame.pts * frame.time_base) for frame in file.decode(video=0)]
    assert times == pytest.approx([n / 25 for n in range(75)])
    with VideoFile(tmp_path / "v.mp4") as file:
        assert file.length == 75
        for index in (74, *range(0, 75, 6)):
            difference = (file.frame(index) - video[index]).abs()
            assert difference.mean() < 0.012 and difference.max() < 0.15, index


def test_segments_of_any_length_agree_on_what_the_file_says_once_for_all(video_format):
    said = []
    for frames in (1, 2, 3, 30):
        with Segment(encode_segment(_ramp(frames), video_format)) as segment:
            packets = list(segment.packets(0))
            assert packets[0].is_keyframe and len(packets) == frames
            assert all(packet.dts <= packet.pts for packet in packets)
            said.append(bytes(segment.stream.codec_context.extradata))
    assert len(set(said)) == 1


ENCODE_ALL = """
import sys
sys.path.insert(0, {root!r})
from tests.pure.test_video_format import digest, FORMATS
for video_format in FORMATS:
    print(digest(video_format), flush=True)
"""


def digest(video_format: VideoFormat) -> str:
    """Of what noise becomes in this format."""
    frames = torch.rand(30, 96, 112, 3, generator=torch.Generator().manual_seed(2))
    try:
        return hashlib.sha256(
            encode_segment(frames, VideoFormat(video_format.codec, video_format.bits, 18).check())
        ).hexdigest()
    except InputError:
        return "this FFmpeg cannot write it"


@pytest.fixture(scope="module")
def elsewhere() -> list[list[str]]:
    """The digests of all formats in two other processes, whose fresh memory holds other numbers in each."""
    found = []
    for perturb in ("85", "170"):
        env = {**os.environ, "MALLOC_PERTURB_": perturb, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", ENCODE_ALL.format(root=str(ROOT))]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split("\n"))
    return found


def test_another_process_gives_the_same_bytes(video_format, elsewhere):
    """Also where memory that nobody wrote holds other numbers, and on one core of several."""
    assert {digests[FORMATS.index(video_format)] for digests in elsewhere} == {digest(video_format)}


def test_lossless_gives_every_8_bit_picture_back_exactly(tmp_path):
    video_format = VideoFormat(Codec.LOSSLESS).check()
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    _write(tmp_path / "v.mp4", video_format, [torch.from_numpy(pictures).float() / 255])
    with VideoFile(tmp_path / "v.mp4") as file:
        for index, picture in enumerate(pictures):
            assert np.array_equal((file.frame(index) * 255).round().numpy(), picture)


def test_ten_bits_tell_apart_what_eight_cannot(tmp_path):
    ramp = torch.linspace(0.5, 0.53, 256).expand(2, 64, 256)[..., None].expand(-1, -1, -1, 3)
    steps = {}
    for bits in (8, 10):
        _write(tmp_path / f"{bits}.mp4", VideoFormat(Codec.H264, bits, 0).check(), [ramp])
        with av.open(str(tmp_path / f"{bits}.mp4")) as file:
            luma = next(file.decode(video=0)).reformat(format="rgb48le").to_ndarray()[0, :, 0]
        steps[bits] = len(np.unique(luma))
    assert steps[10] > 2.5 * steps[8]


def test_formats_are_not_mixed_in_one_file(tmp_path):
    with (
        pytest.raises(InputError, match="a segment is av1, and the video is h264"),
        VideoWriter(tmp_path / "v.mp4", None) as writer,
    ):
        writer.append(encode_segment(_ramp(2), VideoFormat()))
        writer.append(encode_segment(_ramp(2), VideoFormat(Codec.AV1).check()))


@pytest.mark.parametrize(
    ("video_format", "size", "words"),
    [
        (VideoFormat(crf=52), (64, 64), "crf must be between 0 .best. and 51"),
        (VideoFormat(crf=-1), (64, 64), "got -1"),
        (VideoFormat(Codec.AV1, crf=64), (64, 64), "63"),
        (VideoFormat(Codec.HEVC), (480, 48), "HEVC cannot be 48 x 480: it needs at least 64"),
        (VideoFormat(bits=12), (64, 64), "8 or 10 bits"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_sentence(video_format, size, words):
    with pytest.raises(InputError, match=words) as refused:
        video_format.check(*size)
    assert "\n" not in str(refused.value)


def test_an_encoder_that_is_not_there_is_said_with_what_to_choose(monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(ENCODERS, Codec.AV1, replace(ENCODERS[Codec.AV1], library="no_such_encoder"))
    with pytest.raises(InputError, match=r"cannot write AV1 with 8 bits .*choose H.264 with 8 bits"):
        VideoFormat(Codec.AV1).check()


def test_what_changes_the_file_changes_the_key_and_nothing_else_does():
    keys = [str(video_format.to_json()) for video_format in FORMATS]
    assert len(set(keys)) == 7, "two formats are the same: lossless with 8 and with 10 bits"
    assert VideoFormat(Codec.LOSSLESS, 8, 1).to_json() == VideoFormat(Codec.LOSSLESS, 10, 30).to_json()

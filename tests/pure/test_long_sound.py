"""Hours of sound: decoded once, held once, and gone when nobody needs it any more."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from infinitetalk_core import disk_buffer as disk_buffer_module
from infinitetalk_core.audio.reading import read_sound
from infinitetalk_core.audio.sound import Sound, check_sound
from infinitetalk_core.disk_buffer import RowWriter, Spool
from infinitetalk_core.errors import InputError

RATE = 16000


def _write(path: Path, waveform: np.ndarray, codec: str = "pcm_s16le", rate: int = RATE, title: str = "") -> None:
    """waveform (channels, samples) in -1 … 1."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(waveform)]
    with av.open(str(path), "w") as file:
        file.metadata["title"] = title
        stream = file.add_stream(codec, rate=rate, layout=layout)
        for start in range(0, waveform.shape[1], 1000):
            part = (waveform[:, start : start + 1000] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part.T).reshape(1, -1), "s16", layout)
            frame.sample_rate, frame.pts = rate, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(channels).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("kept", [100, 1 << 30])
def test_a_sound_file_is_read_whole_whether_it_is_held_in_memory_or_on_the_disk(tmp_path, monkeypatch, channels, kept):
    waveform = _noise(channels, 3 * RATE + 7)
    _write(tmp_path / "v.wav", waveform)
    monkeypatch.setattr(disk_buffer_module, "KEPT_BYTES", kept * channels)
    scratch = tmp_path / "temp"
    sound = read_sound(tmp_path / "v.wav", scratch)
    assert sound.sample_rate_hz == RATE
    assert sound.waveform.shape == waveform.shape
    assert np.abs(sound.waveform.numpy() - waveform).max() < 1e-4
    assert scratch.exists() == (kept == 100)
    if scratch.exists():
        assert not list(scratch.iterdir()), "the file has no name, so nothing can be left behind"


def test_a_title_in_an_old_encoding_is_no_reason_to_refuse_a_sound(tmp_path):
    _write(tmp_path / "v.wav", _noise(1, RATE), title="Cafe~ au lait")
    content = (tmp_path / "v.wav").read_bytes()
    assert b"Cafe~" in content
    (tmp_path / "v.wav").write_bytes(content.replace(b"Cafe~", "Café ".encode("latin-1")))
    assert read_sound(tmp_path / "v.wav").samples == RATE


def test_the_sound_of_a_video_is_its_first_track(tmp_path):
    with av.open(str(tmp_path / "v.mkv"), "w") as file:
        video = file.add_stream("libx264", rate=25)
        video.width = video.height = 32
        first, second = (file.add_stream("flac", rate=RATE, layout="mono") for _ in range(2))
        for _ in range(25):
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        for stream, level in ((first, 8192), (second, 0)):
            frame = av.AudioFrame.from_ndarray(np.full((1, 4096), level, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            file.mux([*stream.encode(frame), *stream.encode(None)])
        file.mux(video.encode(None))
    assert read_sound(tmp_path / "v.mkv").waveform.mean() == pytest.approx(0.25)


@pytest.mark.parametrize("content", [b"", b"hello", b"RIFF" + bytes(100)])
def test_a_file_without_sound_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "v.wav").write_bytes(content)
    with pytest.raises(InputError, match=r"v\.wav") as refused:
        read_sound(tmp_path / "v.wav")
    assert "\n" not in str(refused.value)


def test_a_silent_film_is_refused(tmp_path):
    with av.open(str(tmp_path / "v.mp4"), "w") as file:
        video = file.add_stream("libx264", rate=25)
        video.width = video.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        file.mux([*video.encode(frame), *video.encode(None)])
    with pytest.raises(InputError, match="no sound in it"):
        read_sound(tmp_path / "v.mp4")


def test_what_is_damaged_is_left_out(tmp_path):
    _write(tmp_path / "v.flac", _noise(1, 10 * RATE), "flac")
    data = bytearray((tmp_path / "v.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20000] = bytes(20000)
    (tmp_path / "v.flac").write_bytes(data)
    assert 5 < read_sound(tmp_path / "v.flac").seconds < 10


def test_reading_can_be_interrupted(tmp_path):
    _write(tmp_path / "v.wav", _noise(1, 5 * RATE))
    asked = []

    def stop() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_sound(tmp_path / "v.wav", check_interrupted=stop)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_a_spool_gives_its_file_back(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_buffer_module, "KEPT_BYTES", 8)
    gc.collect()
    before = _open_files()
    spool = Spool(tmp_path)
    for start in range(0, 30, 3):
        spool.append(np.arange(start, start + 3, dtype=np.float32))
    numbers = spool.array()
    assert numbers.tolist() == list(range(30))
    numbers += 1  # as a node might do with its input
    assert spool.array().tolist() == list(range(30))
    del spool
    assert numbers.tolist() == list(range(1, 31)), "the numbers outlive the spool"
    del numbers
    gc.collect()
    assert _open_files() == before


def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    class Full:
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_buffer_module, "KEPT_BYTES", 8)
    monkeypatch.setattr(disk_buffer_module.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(OSError, match="free some space there"):
        Spool(tmp_path).append(np.zeros(10, np.float32))
    with pytest.raises(OSError, match="free some space there"):
        RowWriter((10, 2), tmp_path).append(torch.zeros(10, 2))


def test_a_broken_sample_anywhere_in_a_long_sound_is_found():
    waveform = torch.zeros(2, 3 << 20)
    assert isinstance(check_sound(waveform, RATE), Sound)
    waveform[1, -1] = float("nan")
    with pytest.raises(InputError, match="1 of the sound's"):
        check_sound(waveform, RATE)

"""Sound files as people have them: it is what a player would play, as long as it says, and nothing else is opened."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from infinitetalk_core import disk_buffer
from infinitetalk_core.audio import loudness, timeline
from infinitetalk_core.audio.reading import read_sound
from infinitetalk_core.errors import InputError
from tests.support.media_cases import (
    RATE,
    Times,
    playlists,
    tone,
    write_odd_layout,
    write_sound,
    write_two_sounds,
    write_wav,
)

ROOT = Path(__file__).resolve().parents[2]


def loud(sound: torch.Tensor, rate: int, start: float, stop: float) -> bool:
    """Whether the first channel is loud in the middle of this part; fails where it is neither loud nor silent."""
    margin = 0.15 * (stop - start)
    part = sound[0, round((start + margin) * rate) : round((stop - margin) * rate)]
    power = float(part.square().mean().sqrt())
    assert part.numel() and (power > 0.2 or power < 0.001), f"{power} from {start} to {stop} s"
    return power > 0.2


def pitch(sound: torch.Tensor, rate: int, start: float, stop: float) -> float:
    part = sound[0, round(start * rate) : round(stop * rate)].numpy()
    return float(np.abs(np.fft.rfft(part * np.hanning(len(part)))).argmax() * rate / len(part))


READ_CHANNELS = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from infinitetalk_core.audio.reading import read_sound
from infinitetalk_core.errors import InputError
for path in sorted(Path({folder!r}).iterdir()):
    try:
        print(path.name, *read_sound(path).waveform.shape)
    except InputError as error:
        print(path.name, "refused:", error)
"""


def read_elsewhere(folder: Path) -> dict[str, str]:
    """What a process of its own, which may crash, says of each file of the folder."""
    code = READ_CHANNELS.format(root=str(ROOT), folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_any_number_of_channels_is_read_or_refused_and_never_a_crash(tmp_path):
    """PyAV reads beyond the planes of planar frames with 8 channels and more, and frees a layout in which channels have
    an order of their own twice."""
    wanted = {}
    for channels in [*range(1, 17), 24, 32, 48, 63, 64]:
        name = f"{channels:03}.wav"
        write_wav(tmp_path / name, tone(0.05, channels=channels))
        wanted[name] = f"{channels} 2400"
    for channels in (65, 100, 255):
        write_wav(tmp_path / f"{channels:03}.wav", tone(0.05, channels=channels))
    planar = [("flac", "flac", 8), ("flac", "flac", 3), ("wv", "wavpack", 9), ("wv", "wavpack", 20), ("m4a", "aac", 8)]
    for ending, codec, channels in planar:
        name = f"{channels:03}.{ending}"
        write_sound(tmp_path / name, tone(0.0512, channels=channels), codec=codec)
        wanted[name] = f"{channels} 2458"
    for channels in (8, 12, 64):
        name = f"{channels:03}.mka"
        write_sound(tmp_path / name, tone(0.06, channels=channels), codec="libopus", mapping_family="255")
        wanted[name] = f"{channels} 2880"
    for number in range(5):
        write_odd_layout(tmp_path / f"odd{number}.caf")
        wanted[f"odd{number}.caf"] = "3 9600"
    found = read_elsewhere(tmp_path)
    for channels in (65, 100, 255):
        assert f"has {channels} channels, but at most 64 are read" in found.pop(f"{channels:03}.wav")
    for name, shape in wanted.items():
        got_channels, got_samples = map(int, found[name].split())
        assert got_channels == int(shape.split()[0]), name
        assert abs(got_samples - int(shape.split()[1])) <= (2100 if name.endswith("m4a") else 1), name


def test_each_channel_keeps_its_place(tmp_path):
    waveform = np.stack([tone(0.1, level=level)[0] for level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)])
    for channels in (8, 9):
        write_wav(tmp_path / "v.wav", waveform[:channels])
        assert np.abs(read_sound(tmp_path / "v.wav").waveform.numpy() - waveform[:channels]).max() < 1e-4


@pytest.mark.parametrize("name", sorted(playlists(Path("x"))))
def test_a_file_that_names_other_files_is_refused_and_they_are_not_opened(tmp_path, name):
    elsewhere = tmp_path / "elsewhere.ts"
    write_sound(elsewhere, tone(1), codec="aac")
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    path.write_text(playlists(elsewhere)[name])
    with pytest.raises(InputError, match="cannot be opened as a sound or video file") as refused:
        read_sound(path)
    assert name in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a socket", "a device", "missing"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, monkeypatch, kind):
    path = tmp_path / "v.wav"
    if kind == "a pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a socket":
        monkeypatch.chdir(tmp_path)  # a socket's path may not be long
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    elif kind == "a device":
        path = Path("/dev/zero")
    said: list[str] = []

    def read() -> None:
        try:
            read_sound(path)
        except InputError as error:
            said.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(10)
    assert said and (kind in said[0] or "there is no sound" in said[0])


@pytest.mark.parametrize("rate", [1, 100, 999, 3_072_001, 2**31 - 1])
def test_a_rate_that_no_recording_has_is_refused(tmp_path, rate):
    write_wav(tmp_path / "v.wav", tone(0.1), rate)
    with pytest.raises(InputError, match=r"sample rate|cannot be opened|can be decoded"):
        read_sound(tmp_path / "v.wav")


@pytest.mark.parametrize("rate", [1000, 4000, 8000, 192000, 768000])
def test_an_unusual_rate_is_read(tmp_path, rate):
    write_wav(tmp_path / "v.wav", tone(0.1, rate), rate)
    assert read_sound(tmp_path / "v.wav").samples == round(0.1 * rate)


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_the_sound_is_the_track_that_a_player_plays(tmp_path, default, ending):
    path = tmp_path / f"v.{ending}"
    if ending == "mp4":
        path = tmp_path / "v.mov"
    write_two_sounds(path, default)
    assert float(read_sound(path).waveform.abs().max()) == pytest.approx((0.05, 0.5)[default], abs=0.01)


TIMED = [
    ("v.mkv", "libopus"),
    ("v.webm", "libopus"),
    ("v.ogg", "libopus"),
    ("v.mp4", "libopus"),
    ("v.mkv", "flac"),
    ("v.mp4", "aac"),
    ("v.ts", "aac"),
    ("v.ts", "libmp3lame"),
    ("v.flv", "aac"),
    ("v.mpg", "mp2"),
    ("v.nut", "pcm_s16le"),
]


@pytest.mark.parametrize(("name", "codec"), TIMED)
def test_a_hole_lasts_as_long_as_the_times_say(tmp_path, name, codec):
    write_sound(tmp_path / name, tone(3), codec=codec, times=Times(hole=(1.0, 2.0)))
    sound = read_sound(tmp_path / name)
    assert sound.seconds == pytest.approx(3, abs=0.06)
    parts = [(0.1, 0.9), (1.15, 1.9), (2.1, 2.9)]
    assert [loud(sound.waveform, RATE, *part) for part in parts] == [True, False, True]


@pytest.mark.parametrize(("name", "codec"), [pair for pair in TIMED if pair[0] not in ("v.ogg", "v.webm", "v.nut")])
def test_a_sound_that_starts_later_than_the_pictures_starts_later(tmp_path, name, codec):
    write_sound(tmp_path / name, tone(2), codec=codec, times=Times(start=0.7), picture_seconds=3)
    sound = read_sound(tmp_path / name)
    assert sound.seconds == pytest.approx(2.7, abs=0.06)
    assert not loud(sound.waveform, RATE, 0, 0.6) and loud(sound.waveform, RATE, 0.8, 2.6)


@pytest.mark.parametrize(("name", "codec"), [pair for pair in TIMED if pair[0] != "v.mp4"])
def test_times_that_jump_by_days_add_no_silence(tmp_path, name, codec, caplog):
    write_sound(tmp_path / name, tone(2), codec=codec, times=Times(hole=(1.0, 1.0), jump=1e6))
    with caplog.at_level("WARNING"):
        sound = read_sound(tmp_path / name)
    assert sound.seconds == pytest.approx(2, abs=0.06) and loud(sound.waveform, RATE, 0.1, 1.9)
    assert "the clock of the sound of v." in caplog.text


def test_times_that_stand_still_are_not_believed(tmp_path, caplog):
    """As MP4 writers store a jump that does not fit: each later piece lasts one tick."""
    write_sound(tmp_path / "v.mp4", tone(4), codec="aac", times=Times(hole=(1.0, 1.0), jump=1e6))
    with caplog.at_level("WARNING"):
        sound = read_sound(tmp_path / "v.mp4")
    assert sound.seconds > 3.8 and loud(sound.waveform, RATE, 0.1, 3.7)
    assert "is not believed any more" in caplog.text


@pytest.mark.parametrize(("name", "codec"), [pair for pair in TIMED if pair[1] == "aac" or pair[0] == "v.mkv"])
def test_what_overlaps_is_heard_once(tmp_path, name, codec):
    write_sound(tmp_path / name, tone(3), codec=codec, times=Times(hole=(1.0, 1.0), jump=-0.3))
    assert read_sound(tmp_path / name).seconds == pytest.approx(2.7, abs=0.09)


def test_silence_is_bounded(tmp_path, monkeypatch):
    """Each hole is small, and all of them together are not."""
    monkeypatch.setattr(timeline, "LONGEST_SILENCE_SECONDS", 2)
    clock = timeline.Timeline("v", timeline.Fraction(0), 1000, 1)
    silence = sum(clock.place(timeline.Fraction(n), n * 10, 10).silence for n in range(100))
    assert silence <= 2000


JOINED = [
    ("v.mp3", "libmp3lame", (24000, 1), (44100, 1)),
    ("v.mp3", "libmp3lame", (44100, 2), (24000, 1)),
    ("v.aac", "aac", (24000, 1), (44100, 2)),
    ("v.aac", "aac", (48000, 2), (48000, 1)),
    ("v.aac", "aac", (48000, 2), (48000, 6)),
    ("v.aac", "aac", (48000, 6), (44100, 2)),
    ("v.ac3", "ac3", (48000, 6), (48000, 2)),
    ("v.mp2", "mp2", (24000, 1), (48000, 2)),
    ("v.ts", "aac", (24000, 1), (44100, 2)),
    ("v.ts", "aac", (48000, 2), (48000, 1)),
]


@pytest.mark.parametrize(("name", "codec", "first", "second"), JOINED)
def test_joined_pieces_of_different_kinds_sound_as_they_did(tmp_path, name, codec, first, second):
    data = b""
    for rate, channels in (first, second):
        write_sound(tmp_path / name, tone(2, rate, channels), rate, codec)
        data += (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data)
    sound = read_sound(tmp_path / name)
    rate = sound.sample_rate_hz
    assert rate in (first[0], second[0]) and sound.waveform.shape[0] == first[1]
    assert sound.seconds == pytest.approx(4, abs=0.15)
    for start, stop in [(0.3, 1.7), (2.3, 3.7)]:
        assert pitch(sound.waveform, rate, start, stop) == pytest.approx(440, abs=2)
        part = sound.waveform[: min(first[1], 2), round(start * rate) : round(stop * rate)]
        assert part.square().mean(dim=1).sqrt().numpy() == pytest.approx(0.5 / 2**0.5, rel=0.1)


def test_an_interruption_ends_reading_even_before_the_first_sample(tmp_path):
    """Also one that is no Exception, as in today's ComfyUI, and while FFmpeg looks for what the file is."""

    class Interrupted(BaseException):
        pass

    write_sound(tmp_path / "v.ts", tone(5), codec="aac")
    for after in (1, 2, 5, 20):
        asked = []

        def stop(asked: list[int] = asked, after: int = after) -> None:
            asked.append(1)
            if len(asked) >= after:
                raise Interrupted

        with pytest.raises(Interrupted):
            read_sound(tmp_path / "v.ts", check_interrupted=stop)
        assert len(asked) == after, "asked no more after that"


def test_loudness_takes_the_memory_of_a_few_blocks(tmp_path, monkeypatch):
    """Of 20 minutes at 16 kHz: 77 MB."""
    import tracemalloc

    monkeypatch.setattr(disk_buffer, "KEPT_BYTES", 1 << 20)
    monkeypatch.setattr(loudness, "CHUNK_SAMPLES", 1 << 17)
    samples = np.tile(tone(1, 16000, level=0.1)[0], 1200)
    tracemalloc.start()
    try:
        leveled = loudness.normalize_loudness(samples, 16000, scratch=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 12e6
    finally:
        tracemalloc.stop()
    assert loudness.integrated_loudness(leveled, 16000) == pytest.approx(-23, abs=1e-3)


def test_a_wav_that_claims_a_huge_length_is_read_to_its_end(tmp_path):
    write_wav(tmp_path / "v.wav", tone(0.5))
    data = bytearray((tmp_path / "v.wav").read_bytes())
    data[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "v.wav").write_bytes(data)
    assert read_sound(tmp_path / "v.wav").seconds == pytest.approx(0.5)
    with wave.open(str(tmp_path / "none.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
    with pytest.raises(InputError, match=r"none\.wav"):
        read_sound(tmp_path / "none.wav")


@pytest.mark.parametrize(("name", "codec"), [("v.wav", ""), ("v.mkv", "flac"), ("v.flac", "flac"), ("v.avi", "ac3")])
def test_a_sound_that_is_cut_off_is_said_to_be(tmp_path, name, codec, caplog):
    if codec:
        write_sound(tmp_path / name, tone(4, channels=2), codec=codec)
    else:
        write_wav(tmp_path / name, tone(4, channels=2))
    with caplog.at_level("WARNING"):
        assert read_sound(tmp_path / name).seconds == pytest.approx(4, abs=0.05)
        assert not caplog.records, "nothing is said of a whole one"
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 3])
        assert read_sound(tmp_path / name).seconds < 2
    assert f"{name} " in caplog.text


def test_a_stream_that_appears_late_is_no_error(tmp_path):
    """At the end of an FLV in which a tag names another kind of stream, PyAV may raise IndexError."""
    write_sound(tmp_path / "v.flv", tone(2), codec="aac")
    data = (tmp_path / "v.flv").read_bytes()
    tag = bytes([9, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x00, 0, 0, 0, 13])  # a picture of H.263
    (tmp_path / "v.flv").write_bytes(data + tag)
    assert read_sound(tmp_path / "v.flv").seconds == pytest.approx(2, abs=0.1)

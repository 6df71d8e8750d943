"""Hours of speech: in the memory of minutes, and to the bit what it would be in memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from infinitetalk_core import disk_buffer
from infinitetalk_core.audio.loudness import integrated_loudness
from infinitetalk_core.audio.sound import Sound, mix, pad_to, resample_mono, to_mono
from infinitetalk_core.audio.voice import prepare_voice
from infinitetalk_core.audio.wav2vec import Limits
from infinitetalk_core.audio.windows import speech_windows
from infinitetalk_core.disk_buffer import DiskTensor
from infinitetalk_core.speech import Timing, encode_speakers, encode_speech
from tests.support.speech import tiny_wav2vec

ROOT = Path(__file__).parents[2]
SMALL = Limits(segment=7, window=40, overlap=20, fade=4)


@pytest.fixture(autouse=True)
def long_is_what_is_over_a_kilobyte(monkeypatch):
    monkeypatch.setattr(disk_buffer, "KEPT_BYTES", 1000)


def noise(seconds: float, rate: int = 16000, channels: int = 1) -> Sound:
    rng = np.random.default_rng(channels)
    return Sound(torch.from_numpy(rng.normal(0, 0.1, (channels, int(seconds * rate))).astype(np.float32)), rate)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seconds=st.floats(0.5, 14), segment=st.integers(1, 60), by_layer=st.booleans(), data=st.data())
def test_features_on_the_disk_are_those_in_memory_to_the_bit(tmp_path, seconds, segment, by_layer, data):
    encoder = tiny_wav2vec(by_layer=by_layer, limits=Limits(segment=segment, window=40, overlap=20, fade=4))
    sound = noise(seconds)
    whole, stored = encoder.encode(sound), encoder.encode(sound, scratch=tmp_path)
    assert isinstance(stored, DiskTensor) and stored.shape == whole.shape and len(stored) == len(whole)
    start = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(1, 100))  # also beyond the end, where the last ones are mirrored
    for frames in ((0, len(whole)), (start, length)):
        assert torch.equal(speech_windows([stored], *frames), speech_windows([whole], *frames))


def in_one_go(sound: Sound, rate: int) -> Sound:
    """Resampled by the library as a whole."""
    if rate == sound.sample_rate_hz:
        return sound
    got = soxr.resample(sound.waveform.numpy().T, sound.sample_rate_hz, rate, quality="HQ").T
    missing = -(-sound.samples * rate // sound.sample_rate_hz) - got.shape[1]
    return Sound(torch.from_numpy(np.pad(got, ((0, 0), (0, max(missing, 0))))[:, : got.shape[1] + missing]), rate)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (16000, 2), (44100, 2), (48000, 6)])
def test_a_voice_is_prepared_piece_by_piece_with_the_result_of_the_whole(tmp_path, monkeypatch, rate, channels):
    monkeypatch.setattr("infinitetalk_core.audio.sound.PIECE_SAMPLES", 5000)
    monkeypatch.setattr("infinitetalk_core.audio.loudness.CHUNK_SAMPLES", 7001)
    sound = noise(4.33, rate, channels)
    mono = in_one_go(to_mono(sound), 16000)
    got = resample_mono(sound, 16000, tmp_path).waveform
    if channels > 2:  # torch adds up many channels in another order in a piece than in the whole
        assert torch.allclose(got, mono.waveform, atol=1e-7, rtol=0) and got.shape == mono.waveform.shape
        return
    assert torch.equal(got, mono.waveform)
    gain = np.float32(10 ** ((-23 - integrated_loudness(mono.waveform[0].numpy(), 16000)) / 20))
    assert torch.equal(prepare_voice(sound, tmp_path).waveform, mono.waveform * gain)


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize(
    ("first", "second"), [((16000, 1), (16000, 1)), ((22050, 2), (48000, 1)), ((8000, 2), (44100, 2))]
)
def test_two_sounds_are_put_together_piece_by_piece_with_the_result_of_the_whole(
    tmp_path, monkeypatch, first, second, in_turn
):
    monkeypatch.setattr("infinitetalk_core.audio.sound.PIECE_SAMPLES", 5000)
    sounds = [noise(2.3, *first), noise(1.7, *second)]
    rate = max(first[0], second[0])
    a, b = (in_one_go(sound, rate).waveform for sound in sounds)
    length = a.shape[1] + b.shape[1] if in_turn else a.shape[1]
    start = length - b.shape[1] if in_turn else 0
    want = pad(a, (0, length - a.shape[1])) + pad(b, (start, length - start - b.shape[1]))
    for folder in (None, tmp_path):
        mixed = mix(sounds, in_turn=in_turn, scratch=folder)
        assert mixed.sample_rate_hz == rate and torch.equal(mixed.waveform, want)
    assert torch.equal(pad_to(sounds[0], 700, 90000, tmp_path).waveform, pad_to(sounds[0], 700, 90000).waveform)


def test_two_speakers_are_kept_on_the_disk_too(tmp_path):
    encoder = tiny_wav2vec(limits=SMALL)
    sounds = [noise(3), noise(2)]
    for timing in Timing:
        kept = encode_speakers(encoder.encode, sounds, timing)
        stored = encode_speakers(lambda v: encoder.encode(v, leveled=True, scratch=tmp_path), sounds, timing)
        plain = encode_speakers(lambda v: encoder.encode(v, leveled=True), sounds, timing)
        assert kept.frames == stored.frames
        windows = [speech_windows(speech.voices, 30, 29) for speech in (stored, plain)]
        assert windows[0].shape[0] == 2 and torch.equal(*windows)


def test_a_short_speech_stays_in_memory_and_needs_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_buffer, "KEPT_BYTES", 1 << 28)
    speech = encode_speech(lambda v: tiny_wav2vec().encode(v, scratch=tmp_path / "temp"), noise(2), tmp_path / "temp")
    assert isinstance(speech.voices[0], torch.Tensor)
    assert not (tmp_path / "temp").exists()


def test_nothing_is_left_in_the_folder_and_the_file_is_closed_with_the_speech(tmp_path):
    closed = threading.Event()
    speech = encode_speech(lambda v: tiny_wav2vec().encode(v, scratch=tmp_path), noise(2), tmp_path)
    assert not list(tmp_path.iterdir()), "the file has no name, so not even a power cut leaves it"
    import weakref

    weakref.finalize(speech.voices[0]._file, closed.set)
    del speech
    gc.collect()
    assert closed.is_set()


def test_chunks_may_be_read_by_several_threads(tmp_path):
    stored = tiny_wav2vec(limits=SMALL).encode(noise(8), scratch=tmp_path)
    want = {start: speech_windows([stored], start, 20) for start in range(0, 180, 7)}
    wrong = []

    def read() -> None:
        for start, windows in want.items():
            if not torch.equal(speech_windows([stored], start, 20), windows):
                wrong.append(start)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


LONG = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tools"]
from run_comfyui import make_torchvision_importable
make_torchvision_importable()
import torch
torch.set_num_threads(1)
from infinitetalk_core import disk_buffer
disk_buffer.KEPT_BYTES = 1 << 20
from infinitetalk_core.audio import loudness, sound
loudness.CHUNK_SAMPLES = sound.PIECE_SAMPLES = 1 << 17
from infinitetalk_core.audio.reading import read_sound
from infinitetalk_core.audio.wav2vec import Limits
from infinitetalk_core.audio.windows import speech_windows
from infinitetalk_core.speech import Timing, encode_speakers, encode_speech
from tests.support.speech import tiny_wav2vec

most = 0
def look(*_):
    global most
    status = Path("/proc/self/status").read_text()
    most = max(most, int(status.split("RssAnon:")[1].split()[0]))

encoder = tiny_wav2vec(layers=6, hidden=64, normalize_input=True, limits=Limits(window=500, overlap=100, fade=50))
folder = Path({folder!r})
def encode(voice):
    look()
    return encoder.encode(voice, leveled=True, scratch=folder, report=look)
def say(path, timing):
    spoken = read_sound(folder / path, folder, look)
    if timing is None:
        return encode_speech(encode, spoken, folder)
    return encode_speakers(encode, [spoken, read_sound(folder / path, folder, look)], timing, scratch=folder)
def dub(path, timing):
    global most
    most = 0
    speech = say(path, timing)
    for start in range(0, speech.frames, 72):
        speech_windows(speech.voices, start, 81)
        look()
    return speech.frames
for timing in (None, *Timing):
    dub("short.wav", timing)
    dub("short.wav", timing)
    before = most
    print(dub("long.wav", timing), (most - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_twenty_minutes_take_the_memory_of_one(tmp_path):
    """From the file to the windows of the last chunk. In memory: the sound 77 MB, the voice and its loudness as much
    each, the features 46 MB: measured 250 MB more in memory, and 10 to 26 this way. Two speakers have twice that, and
    what is heard is made of both: measured 838 MB when it was made in memory, one after the other, and 45 this way."""
    minute = (np.random.default_rng(0).normal(0, 0.1, 16000 * 60) * 32767).clip(-32768, 32767).astype("<i2").tobytes()
    for name, minutes in (("short.wav", 1), ("long.wav", 20)):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            for _ in range(minutes):
                file.writeframes(minute)
    code = LONG.format(root=str(ROOT), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [frames for frames, _ in found] == [30000, 30000, 60000], "one speaker, two together, one after the other"
    assert max(more_mb for _, more_mb in found) < 80, f"MB more than for one minute: {found}"

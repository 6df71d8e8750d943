"""The cache of speech features: the same features to the bit, within bounds, and never a damaged one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from infinitetalk_core.audio.windows import speech_windows
from infinitetalk_core.disk_buffer import RowWriter
from infinitetalk_core.fingerprint import tensor_fingerprint
from infinitetalk_core.runs import feature_cache as feature_cache_module
from infinitetalk_core.runs.disk import Disk
from infinitetalk_core.runs.feature_cache import CachedFeatures, FeatureCache

FEATURES = torch.randn(700, 2, 5, generator=torch.Generator().manual_seed(3))
BYTES = FEATURES.numel() * 4 + feature_cache_module.END_BYTES


class Ear:
    """Hears, and counts how often."""

    def __init__(self, voice=FEATURES) -> None:
        self.voice, self.times = voice, 0

    def __call__(self):
        self.times += 1
        return self.voice


def same(voice) -> bool:
    whole = torch.equal(voice[torch.arange(len(voice))], FEATURES)
    return whole and torch.equal(speech_windows([voice], 650, 81), speech_windows([FEATURES], 650, 81))


def in_a_file(folder: Path):
    writer = RowWriter(tuple(FEATURES.shape), folder)
    for part in FEATURES.split(64):
        writer.append(part)
    return writer.rows()


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_voice_is_heard_once_and_then_read_to_the_bit(tmp_path, monkeypatch, on_disk):
    if on_disk:
        monkeypatch.setattr("infinitetalk_core.disk_buffer.KEPT_BYTES", 1000)
    ear = Ear(in_a_file(tmp_path / "temp") if on_disk else FEATURES)
    kept = FeatureCache(tmp_path / "voices")
    assert same(kept.get_or_encode("a", ear))
    again = FeatureCache(tmp_path / "voices").get_or_encode("a", ear)  # another process
    assert isinstance(again, CachedFeatures) and same(again) and again.shape == FEATURES.shape
    assert ear.times == 1
    kept.get_or_encode("b", ear)
    assert ear.times == 2, "another voice"


def _flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: _flip(data, 0),
        lambda data: _flip(data, BYTES // 2),
        lambda data: _flip(data, BYTES - feature_cache_module.END_BYTES + 12),  # the shape
        lambda data: data[:-1],
        lambda data: data[: BYTES // 2],
        lambda data: b"",
        lambda data: b"{}".ljust(len(data)),
        lambda data: data[:100] + data,
    ],
)
def test_a_damaged_voice_is_heard_again(tmp_path, harm):
    ear, kept = Ear(), FeatureCache(tmp_path)
    kept.get_or_encode("a", ear)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    assert same(kept.get_or_encode("a", ear)) and ear.times == 2
    assert path.read_bytes() == whole, "and kept anew"


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_another_voices_file_under_this_ones_name_is_not_taken(tmp_path, how, caplog):
    other, kept = Ear(FEATURES + 1), FeatureCache(tmp_path)
    kept.get_or_encode("b", other)
    position = shutil.move if how == "renamed" else shutil.copyfile
    position(tmp_path / "b.voice", tmp_path / "a.voice")
    ear = Ear()
    assert same(kept.get_or_encode("a", ear)) and ear.times == 1
    assert "a.voice is another voice's under this one's name; the voice is encoded again" in caplog.text
    assert same(FeatureCache(tmp_path).get_or_encode("a", Ear(None))), "and is kept now"


def test_a_file_of_an_earlier_version_is_heard_again(tmp_path):
    """It had no key in it."""
    ear, kept = Ear(), FeatureCache(tmp_path)
    kept.get_or_encode("a", ear)
    path = tmp_path / "a.voice"
    whole = path.read_bytes()
    end = {k: v for k, v in json.loads(whole[-feature_cache_module.END_BYTES :]).items() if k in ("shape", "crc32")}
    path.write_bytes(
        whole[: -feature_cache_module.END_BYTES] + json.dumps(end).encode().ljust(feature_cache_module.END_BYTES)
    )
    assert same(kept.get_or_encode("a", ear)) and ear.times == 2 and path.read_bytes() == whole


def test_the_file_that_was_checked_is_the_one_that_is_read(tmp_path):
    """Not another one that has its name a moment later."""
    voice = FeatureCache(tmp_path).get_or_encode("a", Ear())
    FeatureCache(tmp_path / "other").get_or_encode("a", Ear(FEATURES + 1))
    (tmp_path / "other" / "a.voice").replace(tmp_path / "a.voice")
    assert same(voice)


def test_a_full_disk_costs_the_keeping_and_nothing_else(tmp_path, caplog):
    class Full(Disk):
        def _put(self, file, data):
            super()._put(file, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ear = Ear()
    assert FeatureCache(tmp_path, disk=Full()).get_or_encode("a", ear) is FEATURES
    assert not list(tmp_path.iterdir()) and "encode it again" in caplog.text
    (tmp_path / "file").touch()
    assert FeatureCache(tmp_path / "file").get_or_encode("a", ear) is FEATURES, "no folder there"


def test_who_was_needed_last_stays_when_there_is_no_room(tmp_path):
    ear, kept = Ear(), FeatureCache(tmp_path, most_bytes=2 * BYTES + 100)
    for key in "ab":
        kept.get_or_encode(key, ear)
    for age, key in enumerate("ba", 100):
        os.utime(tmp_path / f"{key}.voice", (0, time.time() - age))
    (tmp_path / "mine.txt").write_text("somebody's")
    kept.get_or_encode("a", ear)
    kept.get_or_encode("c", ear)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.voice", "c.voice", "mine.txt"]
    assert same(FeatureCache(tmp_path, most_bytes=1).get_or_encode("d", ear)), (
        "one that is larger than the bound is kept alone"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.voice", "mine.txt"]


def test_half_of_a_voice_from_a_crash_makes_room(tmp_path):
    (tmp_path / "a.voice.new").write_bytes(bytes(1000))
    FeatureCache(tmp_path, most_bytes=BYTES).get_or_encode("b", Ear())
    assert [p.name for p in tmp_path.iterdir()] == ["b.voice"]


def test_old_ones_are_removed_on_request(tmp_path):
    kept = FeatureCache(tmp_path)
    for key in "ab":
        kept.get_or_encode(key, Ear())
    os.utime(tmp_path / "a.voice", (0, time.time() - 9 * 86400))
    assert kept.remove_older(float("inf")) == 2 * BYTES
    assert kept.remove_older(8) == BYTES
    assert [p.name for p in tmp_path.iterdir()] == ["b.voice"]
    assert FeatureCache(tmp_path / "nowhere").remove_older(8) == 0


def test_a_drive_that_was_away_for_a_moment_is_read_again(tmp_path, monkeypatch):
    class Stale:
        def seek(self, position: int) -> None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    voice = FeatureCache(tmp_path).get_or_encode("a", Ear())
    monkeypatch.setattr(voice, "_file", Stale())
    assert same(voice)
    FeatureCache(tmp_path / "other").get_or_encode("a", Ear(FEATURES + 1))
    (tmp_path / "other" / "a.voice").replace(tmp_path / "a.voice")
    monkeypatch.setattr(voice, "_file", Stale())
    with pytest.raises(OSError):
        same(voice)
    (tmp_path / "a.voice").unlink()
    monkeypatch.setattr(voice, "_file", Stale())
    with pytest.raises(OSError):
        same(voice)


@pytest.mark.skipif(os.name != "posix", reason="an open file cannot lose its name")
def test_what_was_given_up_can_be_read_until_it_is_let_go(tmp_path):
    kept = FeatureCache(tmp_path)
    voice = kept.get_or_encode("a", Ear())
    assert isinstance(voice, CachedFeatures)
    voice.delete_file()
    voice.delete_file()
    assert not list(tmp_path.iterdir()) and same(voice)


def test_a_sound_is_its_whole_content():
    sound = torch.zeros(2, 30_000_000)  # 240 MB, of which samples would miss most
    plain = tensor_fingerprint(sound)
    sound[1, 17_654_321] = 1e-4
    changed = tensor_fingerprint(sound)
    assert plain != changed == tensor_fingerprint(sound.clone())
    assert tensor_fingerprint(torch.zeros(1, 1).expand(2, 9)) == tensor_fingerprint(torch.zeros(2, 9))
    assert tensor_fingerprint(torch.zeros(1, 18)) != tensor_fingerprint(torch.zeros(2, 9))

"""The sound of a video is encoded while its first chunk is made, and holds up neither an interrupt nor an error."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from infinitetalk_core.runs import sound_encoding
from infinitetalk_core.video.soundtrack import encode_sound
from tests.support.runs import RunFolder, SessionLog, no_space

SECONDS = 20  # no wait of these tests is longer


class Interrupted(BaseException):
    """An interrupt as ComfyUI 0.33 raises it: no Exception."""


@pytest.fixture
def calm(tmp_path: Path) -> bytes:
    """The video of a run to which nothing happens."""
    return RunFolder(_folder(tmp_path / "calm")).dub().path.read_bytes()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_first_chunk_does_not_wait_for_the_sound(tmp_path, monkeypatch, calm):
    chunk_begun = threading.Event()

    def late(sound, check_interrupted):
        assert chunk_begun.wait(SECONDS), "the sound is encoded before the first chunk is made"
        return encode_sound(sound, check_interrupted)

    monkeypatch.setattr(sound_encoding, "encode_sound", late)
    outcome = RunFolder(tmp_path).dub(notes=SessionLog(on_chunk=lambda chunk: chunk_begun.set()))
    assert outcome.path.read_bytes() == calm


def test_a_run_that_waits_for_the_sound_can_be_interrupted_and_goes_on(tmp_path, monkeypatch, calm):
    stopped = []

    def endless(sound, check_interrupted):
        tick = threading.Event()
        try:
            while True:
                tick.wait(0.01)
                check_interrupted()
        except Exception as error:
            stopped.append(type(error).__name__)
            raise

    class Impatient(SessionLog):
        def check_interrupted(self) -> None:
            raise Interrupted

    workspace = RunFolder(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sound_encoding, "encode_sound", endless)
        with pytest.raises(Interrupted):
            workspace.dub(notes=Impatient())
    assert len(stopped) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("infinitetalk-sound")]
    assert workspace.dub().path.read_bytes() == calm


def test_an_interrupt_in_the_first_chunk_stops_the_encoding(tmp_path, monkeypatch):
    ended = threading.Event()

    def endless(sound, check_interrupted):
        try:
            while True:
                check_interrupted()
        finally:
            ended.set()

    monkeypatch.setattr(sound_encoding, "encode_sound", endless)
    RunFolder(tmp_path).interrupt_at(1)
    assert ended.is_set()


def test_the_error_of_the_encoding_is_the_error_of_the_run(tmp_path, monkeypatch, calm):
    workspace = RunFolder(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sound_encoding, "encode_sound", lambda sound, check_interrupted: no_space())
        with pytest.raises(OSError, match="space"):
            workspace.dub()
    assert workspace.dub().path.read_bytes() == calm

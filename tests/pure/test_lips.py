"""The lips of real faces: what follows the voice scores, what does not is told apart, and what cannot be measured
says why."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from infinitetalk_core.audio.reading import read_sound
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks import face_points as faces
from infinitetalk_core.chunks import lips
from infinitetalk_core.chunks.lips import MAX_LAG, lip_sync, measure_lips, mouth_gaps, voice_bands, wanted_opening
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.source import PictureBatch
from tests.support.models import PlainModels, make_job, run_and_measure
from tests.support.mouths import face, mouth, open_mouth, voice
from tests.support.recorded import MEDIA, recorded_speaker

FRAMES = 72


def seen(opening: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return gaps (F, 3) of a mouth, with the jitter of points and a head that turns slowly."""
    jitter = np.random.default_rng(seed).normal(size=(len(opening), 3)) * 0.003
    turning = 0.05 * np.sin(np.arange(len(opening)) / 40)[:, None]
    return opening[:, None] * (0.1, 0.1, 0.05) + 0.2 + jitter + turning


def wanted(sound: Sound, first: int = 0, frames: int = FRAMES) -> np.ndarray:
    return wanted_opening(voice_bands(sound, first - MAX_LAG, frames + 2 * MAX_LAG))


@pytest.mark.parametrize("late", [-3, 0, 2, 4])
def test_a_mouth_that_follows_its_voice_scores_at_its_lag(late):
    opening = mouth(200, 1)
    sync = lip_sync(seen(opening[60 - late :][:FRAMES]), wanted(voice(opening), 60))
    assert sync.score > 0.5
    assert abs(sync.lag - late) <= 1


def test_another_voice_and_a_shifted_one_score_less():
    for seed in range(4):
        opening = mouth(200, seed)
        gaps = seen(opening[60:][:FRAMES], seed)
        right = lip_sync(gaps, wanted(voice(opening), 60)).score
        others = [lip_sync(gaps, wanted(voice(opening), 60 + shift)).score for shift in (-25, -12, 12, 25)]
        others.append(lip_sync(gaps, wanted(voice(mouth(200, 100 + seed)), 60)).score)
        assert right > max(others) + 0.1, seed


def test_a_known_lag_leaves_wrong_voices_less_to_choose_from():
    opening = mouth(200, 1)
    gaps = seen(opening[58:][:FRAMES])
    assert lip_sync(gaps, wanted(voice(opening), 60), near=2) == lip_sync(gaps, wanted(voice(opening), 60))
    assert lip_sync(gaps, wanted(voice(opening), 60), near=-3).score < 0.3
    for near in (-4, 0, 4):
        assert abs(lip_sync(gaps, wanted(voice(mouth(200, 7)), 60), near).lag - near) <= 1


def test_a_mouth_that_never_moves_scores_nothing():
    sync = lip_sync(np.ones((FRAMES, 3)), wanted(voice(mouth(FRAMES, 1))))
    assert sync.score == 0
    assert sync.lag == 0


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_the_voices_rate_and_channels_do_not_matter(rate):
    opening = mouth(120, 3)
    plain, other = voice(opening), voice(opening, rate)
    stereo = Sound(other.waveform.expand(2, -1), rate)
    assert np.corrcoef(wanted(plain, 20), wanted(stereo, 20))[0, 1] > (0.9 if rate < 16000 else 0.98)


def test_there_is_silence_around_a_voice():
    sound = voice(np.ones(50))
    bands = voice_bands(sound, -10, 70)
    loud = bands[:, 1] > bands[:, 1].mean()
    assert bands.shape == (70, 6)
    assert not loud[:9].any() and loud[11:58].all() and not loud[61:].any()


@pytest.mark.parametrize(
    ("frames", "sound", "reason"),
    [(FRAMES, Sound(torch.zeros(1, 99999), 16000), "silent"), (9, voice(mouth(FRAMES, 1)), "too few")],
)
def test_what_cannot_be_measured_says_why(monkeypatch, frames, sound, reason):
    monkeypatch.setattr(lips, "face_points", lambda shown, area: np.random.default_rng(0).random((len(shown), 68, 2)))
    with pytest.raises(InputError, match=reason):
        measure_lips(torch.zeros(frames, 8, 8, 3), 0, sound)


class Library:
    """Stands in for dlib: finds the faces that are said to be in the frame, whose number is its brightness."""

    def __init__(self, boxes, turned: float = 0.0) -> None:
        self.boxes, self.turned, self.looked = boxes, turned, []

    def __call__(self):
        return self.detect, self.find

    def detect(self, gray, enlarged):
        self.looked.append(gray.shape)
        return np.array(self.boxes(int(gray.max())), float).reshape(-1, 4)

    def find(self, gray, box):
        return face(box[0], box[1], box[2] - box[0], self.turned)


def film(frames: int, height: int = 240, width: int = 320) -> torch.Tensor:
    return ((torch.arange(frames) + 0.5) / 255)[:, None, None, None].expand(-1, height, width, 3)


def test_one_face_is_followed(monkeypatch):
    library = Library(lambda number: [(60, 40, 160, 140)])
    monkeypatch.setattr(faces, "_finders", library)
    points = faces.face_points(film(8))
    assert points.shape == (8, 68, 2)
    assert points[:, 8].mean(0) == pytest.approx([110, 140], abs=2)
    assert len(library.looked) == 1


@pytest.mark.parametrize(
    ("boxes", "turned", "reason"),
    [
        (lambda number: [], 0.0, "in 0 of 40 frames"),
        (lambda number: [(60, 40, 160, 140), (180, 40, 270, 130)], 0.0, "2 faces"),
        (lambda number: [(60, 40, 160, 140)] if number == 0 else [], 0.0, "in 12 of 40 frames"),
        (lambda number: [(60, 40, 160, 140)], 0.8, "from the side"),
    ],
    ids=["no face", "two faces", "a face that leaves", "a profile"],
)
def test_other_faces_are_a_reason(monkeypatch, boxes, turned, reason):
    monkeypatch.setattr(faces, "_finders", Library(boxes, turned))
    with pytest.raises(InputError, match=reason):
        mouth_gaps(film(40), every=1)


def test_a_small_face_behind_is_no_second_one(monkeypatch):
    monkeypatch.setattr(faces, "_finders", Library(lambda number: [(60, 40, 160, 140), (200, 20, 240, 60)]))
    assert mouth_gaps(film(30)).shape == (30, 3)


def test_a_face_that_comes_back_is_found_again(monkeypatch):
    monkeypatch.setattr(faces, "_finders", Library(lambda number: [] if number == 12 else [(60, 40, 160, 140)]))
    assert faces.face_points(film(40)).shape == (40, 68, 2)


def test_a_large_picture_is_looked_at_smaller(monkeypatch):
    library = Library(lambda number: [(60, 40, 160, 140)])
    monkeypatch.setattr(faces, "_finders", library)
    faces.face_points(film(3, 720, 1280))
    assert library.looked == [(360, 640)]


def test_the_report_of_a_chunk_says_why_there_are_no_lips(monkeypatch):
    """The run goes on without the optional library, and with a voice of which nothing is heard."""
    monkeypatch.setitem(sys.modules, "dlib", None)
    faces._finders.cache_clear()
    source = PictureBatch(torch.full((60, 32, 48, 3), 0.5))
    job = make_job(source, 60, ReferenceSettings(Policy.CHUNK_START), chunk_frames=33)
    _, silent = run_and_measure(job, PlainModels())
    assert [m.lips_absent for m in silent] == ["the voice is silent"] * len(silent)
    object.__setattr__(job.speech, "sound", voice(mouth(60, 1)))
    _, heard = run_and_measure(job, PlainModels())
    assert all("pip install dlib-bin" in m.to_json()["lips_absent"] for m in heard[:1])
    assert all(m.to_json()["lip_sync"] is None for m in heard)


def test_the_report_of_a_chunk_has_the_lips(monkeypatch):
    opening = mouth(60, 1)

    def points(frames, area):
        """A mouth that follows the voice, in every second frame of the first chunk."""
        return open_mouth(np.tile(face(0, 0, 100), (len(frames), 1, 1)), opening[: 2 * len(frames) : 2][: len(frames)])

    monkeypatch.setattr(lips, "face_points", points)
    job = make_job(PictureBatch(torch.full((60, 32, 48, 3), 0.5)), 60, chunk_frames=61, context_frames=5)
    object.__setattr__(job.speech, "sound", voice(opening))
    _, (first, *_) = run_and_measure(job, PlainModels())
    assert first.lip_sync > 0.4 and abs(first.lip_lag) <= 1 and first.lips_absent is None
    assert f"lip sync {first.lip_sync:.2f}" in str(first)
    assert first.to_json()["lip_lag"] == first.lip_lag


@pytest.fixture(scope="module")
def recorded():
    """A recorded speaker and their sound; skips the test where there is none, or no library."""
    return recorded_speaker()


def test_a_recorded_speaker_is_told_from_other_voices(recorded):
    source, sound = recorded
    stranger = read_sound(MEDIA / "speech_single.wav")
    foreign = [wanted(stranger, begin) for begin in (10, 90, 170)]
    for first in (25, 169):
        gaps = mouth_gaps(torch.stack([source.frame(first + index) for index in range(FRAMES)]))
        assert 0 <= gaps[:, 0].min() < 0.06 < gaps[:, 0].max() < 0.3
        right = lip_sync(gaps, wanted(sound, first))
        others = [lip_sync(gaps, wanted(sound, first + shift)).score for shift in (-25, -12, 12, 25)]
        others += [lip_sync(gaps, other).score for other in foreign]
        assert right.score > 0.3 and right.score > max(others), first
        assert 1 <= right.lag <= 3  # as far as its sound is early


@pytest.mark.parametrize(("spoken", "silent"), [(0, True), (6, True), (30, False)])
def test_a_voice_that_only_begins_says_too_little(spoken, silent):
    """A mouth that waits for its word is no mouth that does not follow it."""
    sound = voice(np.concatenate([np.zeros(FRAMES - spoken), np.ones(spoken)]))
    if silent:
        with pytest.raises(InputError, match="silent"):
            wanted(sound)
    else:
        assert len(wanted(sound)) == FRAMES + 2 * MAX_LAG


@pytest.fixture(scope="module")
def recorded_frames(recorded):
    """The speaker's frames (FRAMES, H, W, 3) from 1 s and from 8 s on."""
    source, _ = recorded
    return [torch.stack([source.frame(first + index) for index in range(FRAMES)]) for first in (25, 200)]


def spoiled(kind: str, frames: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the frames of a recorded speaker (F, H, W, 3) with something wrong. others: of another time."""
    half, later = len(frames) // 2, torch.arange(len(frames))[:, None, None, None]
    hidden = torch.zeros(frames.shape[1:3], dtype=torch.bool)
    hidden[230:336, 157:277] = True
    return {
        "monochrome": lambda: frames.mean(-1, keepdim=True).expand_as(frames),
        "fades to black": lambda: frames * torch.linspace(1, 0, len(frames))[:, None, None, None],
        "mostly black": lambda: frames * (later < 20),
        "a cut to another time": lambda: torch.cat([frames[:half], others[half:]]),
        "a cut to the mirrored picture": lambda: torch.cat([frames[:half], frames[half:].flip(2)]),
        "no face": lambda: frames[:, :100, :100],
        "lies on its side": lambda: frames.transpose(1, 2),
        "two faces": lambda: torch.cat([frames, others], 2),
        "hidden mouth": lambda: frames.where(~hidden[..., None], 0.5),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("monochrome", "follows"),
        ("fades to black", "follows"),
        ("mostly black", "a face from the front was found in 12 of 36 frames"),
        ("a cut to another time", "any"),
        ("a cut to the mirrored picture", "follows"),
        ("no face", "in 0 of 36 frames"),
        ("lies on its side", "in 0 of 36 frames"),
        ("two faces", "2 faces"),
        ("hidden mouth", "does not follow"),
    ],
)
def test_bad_pictures_of_a_recorded_speaker(recorded, recorded_frames, kind, expected):
    _, sound = recorded
    shown = spoiled(kind, *recorded_frames)
    if expected in ("follows", "does not follow", "any"):
        score = measure_lips(shown, 25, sound).score
        assert expected == "any" or (score > 0.25) == (expected == "follows"), score
    else:
        with pytest.raises(InputError, match=expected):
            measure_lips(shown, 25, sound)

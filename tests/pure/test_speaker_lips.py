"""Two speakers: each voice against the face in its own area; the worse one counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks import face_points as faces
from infinitetalk_core.chunks.context import ContextFrames
from infinitetalk_core.chunks.dub import ChunkOutput
from infinitetalk_core.chunks.job import Job, Reference, Sampling
from infinitetalk_core.chunks.lip_tries import ENOUGH, SEED_STEP, best_try
from infinitetalk_core.chunks.lips import ChunkLips, LipSync, SpeakerLips
from infinitetalk_core.chunks.metrics import measure
from infinitetalk_core.chunks.plan import Chunk
from infinitetalk_core.chunks.speaker_lips import chunk_lips
from infinitetalk_core.speakers import Box
from infinitetalk_core.speech import Speech, Timing, encode_speakers
from infinitetalk_core.video.source import PictureBatch
from tests.support.mouths import face, mouth, open_mouth, voice
from tests.support.recorded import recorded_speaker

FRAMES, HEIGHT, WIDTH = 73, 128, 256
CHUNK = Chunk(0, 0, FRAMES, 0, FRAMES)
LEFT, RIGHT, SMALL = (32, 24, 96, 88), (160, 24, 224, 88), (104, 8, 144, 48)  # places of faces
HALVES = (Box(0, 0, 104, 128), Box(152, 0, 256, 128))
MOUTHS = mouth(FRAMES, 1), mouth(FRAMES, 2)


class BrightFaces:
    """Stands in for dlib: a face is a bright square, whose mouth is as open as it is bright."""

    def __call__(self):
        return self.detect, self.find

    def detect(self, gray, enlarged):
        columns = np.flatnonzero(np.diff(np.pad((gray > 100).any(0).astype(int), 1)))
        found = []
        for x0, x1 in columns.reshape(-1, 2):
            rows = np.flatnonzero((gray[:, x0:x1] > 100).any(1))
            found.append((x0, rows[0], x1, rows[-1] + 1))
        return np.array(found, float).reshape(-1, 4)

    def find(self, gray, box):
        x0, y0, x1, y1 = (round(number) for number in box)
        opening = np.array([(gray[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8].mean() - 128) / 120])
        return open_mouth(face(x0, y0, x1 - x0)[None], opening)[0]


@pytest.fixture
def _bright_faces(monkeypatch):
    monkeypatch.setattr(faces, "_finders", BrightFaces())


def picture(*shown: tuple[tuple[int, int, int, int], np.ndarray]) -> torch.Tensor:
    """Return frames with faces: the place and the mouth opening (F,) of each."""
    frames = torch.zeros(FRAMES, HEIGHT, WIDTH, 3)
    for (x0, y0, x1, y1), opening in shown:
        frames[:, y0:y1, x0:x1] = torch.from_numpy((128 + 120 * opening) / 255).float()[:, None, None, None]
    return frames


def two_speakers(voices=None, areas=None, timing=Timing.TOGETHER) -> Job:
    voices = [voice(opening) for opening in MOUTHS] if voices is None else voices
    speech = encode_speakers(lambda sound: torch.zeros(sound.frames, 1, 2), voices, timing, areas)
    return Job(speech, Reference(PictureBatch(torch.zeros(1, HEIGHT, WIDTH, 3)), HEIGHT, WIDTH), Sampling())


def own(lips: ChunkLips) -> list[float | str]:
    return [each.absent or each.sync.score for each in lips.speakers]


@pytest.mark.usefixtures("_bright_faces")
@pytest.mark.parametrize("areas", [None, HALVES, tuple(torch.zeros(2, HEIGHT, WIDTH))], ids=["none", "boxes", "masks"])
def test_each_voice_is_measured_in_its_own_area(areas):
    if isinstance(areas, tuple) and isinstance(areas[0], torch.Tensor):
        areas[0][24:88, 32:96], areas[1][24:88, 160:224] = 1, 1
    shown = picture((LEFT, MOUTHS[0]), (RIGHT, MOUTHS[1]))
    lips = chunk_lips(two_speakers(areas=areas), CHUNK, shown)
    assert min(own(lips)) > 0.4 and lips.absent is None
    assert lips.worst.score == min(own(lips))
    swapped = chunk_lips(two_speakers(areas=areas), CHUNK, picture((RIGHT, MOUTHS[0]), (LEFT, MOUTHS[1])))
    assert max(own(swapped)) < 0.3


@pytest.mark.usefixtures("_bright_faces")
def test_the_worse_speaker_counts_and_the_report_has_both():
    shown, job = picture((LEFT, MOUTHS[0]), (RIGHT, np.full(FRAMES, 0.5))), two_speakers()
    output = ChunkOutput(CHUNK, shown, ContextFrames(shown[-9:], FRAMES - 9), (0,))
    found = measure(job, output, None).to_json()
    good, bad = found["lips_by_speaker"]
    assert good["lip_sync"] > 0.4 and found["lip_sync"] == bad["lip_sync"] == 0 and found["lips_absent"] is None
    assert found["lip_lag"] == bad["lip_lag"]


SILENCE = Sound(torch.zeros(1, FRAMES * 640), 16000)
BOTH = (LEFT, MOUTHS[0]), (RIGHT, MOUTHS[1])


@pytest.mark.usefixtures("_bright_faces")
@pytest.mark.parametrize(
    ("shown", "voices", "areas", "reasons"),
    [
        (BOTH, [voice(MOUTHS[0]), None], None, (None, "the voice is silent")),
        (BOTH[:1], None, None, (None, "a face from the front was found in 0 of 37 frames")),
        ((*BOTH, (SMALL, MOUTHS[0])), None, HALVES, (None, None)),
        (((LEFT, MOUTHS[0]), (SMALL, MOUTHS[0])), None, (Box(0, 0, 150, 96), Box(160, 0, 256, 96)),
         ("the speaker's area shows 2 faces", "a face from the front was found in 0")),
        (BOTH, None, (Box(0, 0, 256, 96), Box(0, 0, 256, 96)), ("a face from the front was found in 0",) * 2),
        (BOTH, None, (Box(0, 0, 256, 96), Box(136, 0, 256, 96)), (None, "a face from the front was found in 0")),
        ((), None, None, ("a face from the front was found in 0",) * 2),
    ],
    ids=["one is silent", "one has no face", "somebody between them", "two faces in one area", "one area for both",
         "an area within the other", "no faces"],
)  # fmt: skip
def test_what_cannot_be_measured_of_one_says_why(shown, voices, areas, reasons):
    lips = chunk_lips(two_speakers(voices, areas), CHUNK, picture(*shown))
    for found, reason in zip(own(lips), reasons, strict=True):
        assert isinstance(found, float) if reason is None else str(found).startswith(reason), own(lips)
    assert (lips.absent is None) == (None in reasons)
    if lips.absent:
        assert lips.absent.startswith("speaker 1: ") and "; speaker 2: " in lips.absent


@pytest.mark.usefixtures("_bright_faces")
def test_who_waits_for_the_other_is_silent():
    """One after the other: the second person's voice is not measured before it begins."""
    job = two_speakers(timing=Timing.IN_TURN)
    shown = picture(*BOTH)
    first = chunk_lips(job, CHUNK, shown)
    second = chunk_lips(job, Chunk(1, FRAMES, FRAMES, 0, FRAMES), shown)
    assert own(first)[0] > 0.4 and own(first)[1] == "the voice is silent"
    assert own(second)[0] == "the voice is silent" and own(second)[1] > 0.4


def test_features_without_the_sound_of_each_voice_say_so():
    """As from another program: only the mix is there."""
    job = two_speakers()
    job = replace(job, speech=replace(job.speech, tracks=()))
    assert set(own(chunk_lips(job, CHUNK, picture(*BOTH)))) == {
        "the sound holds 2 voices, and lips are measured against one"
    }


def test_one_voice_needs_no_tracks():
    speech = Speech((torch.zeros(FRAMES, 1, 2),), SILENCE)
    job = replace(two_speakers(), speech=speech)
    assert own(chunk_lips(job, CHUNK, picture())) == ["the voice is silent"]


# -- which try is kept


def lips_of(*scores: float | None) -> ChunkLips:
    return ChunkLips(tuple(SpeakerLips(absent="no face") if s is None else SpeakerLips(LipSync(s, 0)) for s in scores))


@pytest.mark.parametrize(
    ("tries", "made", "kept"),
    [
        ([(0.5, 0.3)], 1, 0),
        ([(0.5, 0.1), (0.2, 0.3), (0.3, 0.3)], 3, 2),
        ([(0.5, 0.1), (0.05, 0.9), (0.2, 0.2), (0.2, 0.1)], 4, 2),
        ([(0.5, None)], 1, 0),
        ([(0.1, None), (0.2, 0.9), (0.15, None), (None, 0.9)], 4, 2),
        ([(None, None)], 1, 0),
        ([(ENOUGH, 0.9)], 1, 0),
        ([(-0.2, -0.1), (None, None), (-0.3, 0.9), (-0.1, -0.1)], 4, 3),
    ],
)
def test_the_try_whose_worst_speaker_is_best_is_kept(tries, made, kept):
    """A speaker who is not measured makes no try better than one in which both are."""
    seeds, before = [], []

    def make(seed):
        seeds.append(seed)
        return tries[len(seeds) - 1]

    best, found = best_try(CHUNK, 2**64 - 1, 3, make, lambda scores: lips_of(*scores), before.append)
    assert best == tries[kept] and found.kept == kept and len(seeds) == made == len(found.scores)
    assert seeds == [(2**64 - 1 + SEED_STEP * attempt) % 2**64 for attempt in range(made)]
    assert [len(each.scores) for each in before] == list(range(1, made))
    assert found.lips == lips_of(*tries[kept])


# -- real faces


def test_two_recorded_speakers_are_told_apart():
    source, sound = recorded_speaker()
    starts = (25, 200)
    rate = sound.sample_rate_hz
    voices = [Sound(sound.waveform[:, start * rate // 25 :][:, : rate * 3], rate) for start in starts]
    halves = [torch.stack([source.frame(start + index)[5:453, 5:453] for index in range(72)]) for start in starts]
    shown, chunk = torch.cat(halves, 2), Chunk(0, 0, 73, 0, 72)
    speech = encode_speakers(lambda track: torch.zeros(track.frames, 1, 2), voices, Timing.TOGETHER)
    job = Job(speech, Reference(PictureBatch(shown[:1]), 448, 896), Sampling())
    assert min(own(chunk_lips(job, chunk, shown))) > 0.4
    swapped = chunk_lips(job, chunk, torch.cat(halves[::-1], 2))
    assert max(own(swapped)) < 0.4 and swapped.worst.score < ENOUGH

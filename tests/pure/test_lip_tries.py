"""`retry_lips`: chunks whose lips do not follow the voice are made again, and the best try is the chunk of the run."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from infinitetalk_core.chunks import dub as dubbing
from infinitetalk_core.chunks import face_points, lip_tries, lips
from infinitetalk_core.chunks.job import ColorHold, Job, Output
from infinitetalk_core.chunks.lip_tries import ENOUGH, MOST_RETRIES, SEED_STEP
from infinitetalk_core.chunks.pinned import Pinned
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.format import VideoFormat
from infinitetalk_core.video.source import PictureBatch
from tests.support.fault_table import record_fault_result
from tests.support.models import PlainModels, make_job
from tests.support.mouths import face, mouth, open_mouth, voice
from tests.support.runs import RunFolder, SessionLog

TOTAL, SEED = 89, 7  # three chunks: 33 frames, and twice 28 new ones
SPOKEN = mouth(TOTAL + 8, 1)
WELL, BADLY, PARTLY = "well", "badly", "partly"


class SpeakingModels(PlainModels):
    """Makes frames as bright as a mouth is open: it follows the voice as well as is said for each chunk and try."""

    def __init__(self, *follows: tuple[str, ...]) -> None:
        """follows: for each chunk, how well its mouth follows the voice in each of its tries."""
        super().__init__()
        self.follows = follows

    def decode(self, latents):
        made = self.seen[-1]
        chunk, attempt = made.chunk, (made.seed - made.chunk.index - SEED) // SEED_STEP
        how = self.follows[chunk.index][attempt] if 0 <= attempt <= MOST_RETRIES else WELL
        opening = {WELL: SPOKEN, BADLY: np.full(len(SPOKEN), 0.5), PARTLY: mouth(len(SPOKEN), 10)}[how]
        opening = opening[chunk.start : chunk.start + chunk.length]
        return torch.from_numpy(0.2 + 0.6 * opening).float()[:, None, None, None].expand(-1, 32, 48, 3).clone()

    @property
    def tries(self) -> list[int]:
        """The chunk of each sampling, from 1."""
        return [made.chunk.index + 1 for made in self.seen]


@pytest.fixture(autouse=True)
def _bright_mouths(monkeypatch):
    """In place of dlib: a face whose mouth is as open as its picture is bright."""

    def points(frames, area):
        opening = (frames.mean((1, 2, 3)).double().numpy() - 0.2) / 0.6
        return open_mouth(np.tile(face(0, 0, 100), (len(frames), 1, 1)), opening)

    monkeypatch.setattr(lips, "face_points", points)


def pictures() -> torch.Tensor:
    return torch.rand(TOTAL, 32, 48, 3, generator=torch.Generator().manual_seed(5))


def speaking_job(retries: int = 2, **options) -> Job:
    source = options.pop("source", None) or PictureBatch(pictures())
    job = make_job(source, TOTAL, seed=SEED, retry_lips=retries, **{"chunk_frames": 33, **options})
    sound = voice(SPOKEN[:TOTAL])
    return replace(job, speech=replace(job.speech, sound=sound), output=Output(VideoFormat(crf=20)))


def a_run(folder: Path, *follows: tuple[str, ...], job: Job | None = None, **options) -> RunFolder:
    folder.mkdir(exist_ok=True)
    return RunFolder(folder, job=job or speaking_job(), models=SpeakingModels(*follows), **options)


def chunks_of(outcome) -> list[dict]:
    return json.loads(outcome.report)["chunks"]


def test_off_it_costs_nothing(tmp_path, monkeypatch):
    def never(*args):
        raise AssertionError("lips are looked at while a chunk is made")

    monkeypatch.setattr(dubbing, "chunk_lips", never)
    job = speaking_job(0)
    run = a_run(tmp_path, (BADLY,), (BADLY,), (BADLY,), job=job)
    chunks = chunks_of(run.dub())
    assert run.models.tries == [1, 2, 3]
    assert [chunk["tries"] for chunk in chunks] == [None] * 3
    assert all(chunk["lip_sync"] < ENOUGH for chunk in chunks)


def test_a_chunk_that_follows_its_voice_is_made_once(tmp_path):
    run = a_run(tmp_path, (WELL,), (WELL,), (WELL,))
    notes = SessionLog()
    chunks = chunks_of(run.dub(notes=notes))
    assert run.models.tries == [1, 2, 3] and notes.again == []
    assert [chunk["tries"] for chunk in chunks] == [None] * 3


def test_a_bad_chunk_is_made_again_until_it_is_good(tmp_path, caplog):
    caplog.set_level(logging.INFO, "infinitetalk")
    run = a_run(tmp_path, (WELL,), (BADLY, BADLY, WELL), (BADLY, WELL))
    notes = SessionLog()
    chunks = chunks_of(run.dub(notes=notes))
    assert run.models.tries == [1, 2, 2, 2, 3, 3]
    assert [made.seed - SEED - made.chunk.index for made in run.models.seen] == [
        0, 0, SEED_STEP, 2 * SEED_STEP, 0, SEED_STEP,
    ]  # fmt: skip
    assert [len(chunk["tries"] or ()) for chunk in chunks] == [0, 3, 2]
    second = chunks[1]["tries"]
    assert [each["kept"] for each in second] == [False, False, True]
    assert max(each["lip_sync"] for each in second[:2]) < ENOUGH < second[2]["lip_sync"] == chunks[1]["lip_sync"]
    assert [each["seed"] for each in second] == [SEED, SEED + SEED_STEP, SEED + 2 * SEED_STEP]
    first, best = second[0]["lip_sync"], second[2]["lip_sync"]
    assert f"chunk 2: lips {first:.2f}, made again twice, kept the second with {best:.2f}" in caplog.text
    assert "chunk 3: lips" in caplog.text and "made again once, kept it with" in caplog.text
    assert len(notes.again) == 3 and notes.made == [1, 2, 3]


def test_of_bad_ones_the_best_is_kept(tmp_path, caplog):
    caplog.set_level(logging.INFO, "infinitetalk")
    run = a_run(tmp_path, (WELL,), (BADLY, PARTLY, BADLY), (PARTLY, BADLY, BADLY))
    chunks = chunks_of(run.dub())
    assert run.models.tries == [1, 2, 2, 2, 3, 3, 3]
    for chunk in chunks[1:]:
        scores = [each["lip_sync"] for each in chunk["tries"]]
        assert max(scores) < ENOUGH and chunk["lip_sync"] == max(scores)
        assert [each["kept"] for each in chunk["tries"]] == [score == max(scores) for score in scores]
    assert "made again twice, kept the first with" in caplog.text
    assert "made again twice (0.00, 0.00), which was no better, kept as it was" in caplog.text


def test_the_next_chunk_continues_from_the_one_that_was_kept(tmp_path):
    plain = a_run(tmp_path / "a", (WELL,), (BADLY, WELL), (WELL,))
    plain.dub()
    after = plain.models.seen[-1]
    chosen = a_run(tmp_path / "b", (WELL,), (BADLY, WELL), (WELL,), job=speaking_job(0))
    chosen.dub(redo=f"2={SEED + SEED_STEP}")
    assert after.chunk.index == 2 and torch.equal(after.context, chosen.models.seen[-1].context)
    assert plain.videos() == chosen.videos()
    assert (plain.root / "v.mp4").read_bytes() == (chosen.root / "v.mp4").read_bytes(), "the report's seed makes it"


@pytest.mark.parametrize("retries", range(1, MOST_RETRIES + 1))
def test_it_is_made_again_so_often_at_most(tmp_path, retries):
    run = a_run(tmp_path, *[(BADLY,) * 4] * 3, job=speaking_job(retries))
    run.dub()
    assert run.models.tries == sorted([1, 2, 3] * (retries + 1))


@pytest.mark.parametrize("count", [-1, MOST_RETRIES + 1])
def test_other_numbers_are_refused(count):
    with pytest.raises(InputError, match=f"retry_lips must be 0 .off. to 3 further tries of a chunk, got {count}"):
        speaking_job(count)


def test_a_chunk_is_measured_once_a_try(tmp_path, monkeypatch):
    plain, looks = lips.face_points, []

    def counted(frames, area):
        looks.append(len(frames))
        return plain(frames, area)

    monkeypatch.setattr(lips, "face_points", counted)
    run = a_run(tmp_path, (WELL,), (BADLY, WELL), (WELL,))
    run.dub()
    assert len(looks) == len(run.models.seen) == 4


# -- chunks made again by the user


def test_a_seed_that_the_user_gave_stays(tmp_path):
    """Also the job's own, which gets a chunk back as it was."""
    bad = ((WELL,), (BADLY, WELL), (BADLY, WELL))
    run = a_run(tmp_path, *bad, keep=True)
    first = chunks_of(run.dub())
    assert [bool(chunk["tries"]) for chunk in first] == [False, True, True]
    run.models = SpeakingModels(*bad)
    again = chunks_of(run.dub(redo=f"2={SEED}"))
    assert run.models.tries == [2, 3, 3], "chunk 3 continues from another one now, so it is made by itself"
    assert again[1]["tries"] is None and again[1]["lip_sync"] == first[1]["tries"][0]["lip_sync"]


def test_with_another_reference_it_is_made_again_as_ever(tmp_path):
    run = a_run(tmp_path, (WELL,), (BADLY, WELL), (WELL,), keep=True)
    run.dub(redo="2@1.5")
    assert run.models.tries == [1, 2, 2, 3]


def test_what_another_seed_does_not_change_is_made_once(tmp_path):
    job = speaking_job(settings=ReferenceSettings(Policy.CHUNK_START), sdedit=(0.6, 0.0, 0.6))
    run = a_run(tmp_path, (WELL,), (BADLY, WELL), (BADLY, WELL), job=job)
    chunks = chunks_of(run.dub())
    assert run.models.tries == [1, 3, 3] and chunks[1]["tries"] is None


# -- accidents


@pytest.fixture
def bad() -> tuple[tuple[str, ...], ...]:
    return ((BADLY, WELL), (BADLY, BADLY, WELL), (BADLY, PARTLY, BADLY))


@pytest.fixture
def undisturbed(tmp_path, bad) -> bytes:
    return a_run(tmp_path / "calm", *bad).dub().path.read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("chunk", "attempt"), [(1, 2), (2, 2), (2, 3), (3, 3)])
def test_a_kill_between_two_tries_changes_nothing(tmp_path, bad, undisturbed, chunk, attempt):
    run = a_run(tmp_path / "killed", *bad)
    child = os.fork()
    if child == 0:
        _stop_at(run, chunk, attempt, lambda: os._exit(137))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137
    _assert_it_goes_on(run, chunk, undisturbed)
    record_fault_result("power cut", "between two tries of a chunk (`retry_lips`)", "bit-identical video")


@pytest.mark.parametrize(("chunk", "attempt"), [(1, 2), (2, 2), (2, 3), (3, 3)])
def test_an_interrupt_of_a_try_keeps_the_chunks_before(tmp_path, bad, undisturbed, chunk, attempt):
    """Not the tries before it: the video that goes on from there is the one of an undisturbed run."""

    def interrupt():
        raise KeyboardInterrupt

    run = a_run(tmp_path / "interrupted", *bad)
    with pytest.raises(KeyboardInterrupt):
        _stop_at(run, chunk, attempt, interrupt)
    assert run.videos() == (["v_interrupted.mp4"] if chunk > 1 else [])
    _assert_it_goes_on(run, chunk, undisturbed)


def _stop_at(run, chunk, attempt, how):
    """Execute the run, and call `how` after the first step of this try of this chunk, both from 1."""
    notes = SessionLog()

    def step(now):
        if now == chunk and run.models.tries.count(chunk) == attempt:
            how()

    notes.on_chunk = step
    run.dub(notes=notes)


def _assert_it_goes_on(run, chunk, undisturbed):
    run.models = SpeakingModels(*run.models.follows)
    notes = SessionLog()
    outcome = run.dub(notes=notes)
    assert notes.joined == list(range(1, chunk)) and notes.made == list(range(chunk, 4))
    assert outcome.path.read_bytes() == undisturbed
    assert [len(each["tries"]) for each in chunks_of(outcome)] == [2, 3, 3], "also of those from before"


def test_nothing_is_made_again_when_a_finished_video_is_asked_for(tmp_path, bad):
    run = a_run(tmp_path, *bad)
    first = run.dub()
    run.models = SpeakingModels(*bad)
    assert run.dub().path == first.path and run.models.tries == []


def test_no_two_threads_read_the_source(tmp_path):
    busy, threads = threading.Lock(), set()

    class Watched(PictureBatch):
        def frame(self, index):
            assert busy.acquire(blocking=False), "two threads read at once"
            try:
                threads.add(threading.current_thread().name)
                return super().frame(index)
            finally:
                busy.release()

    job = speaking_job(source=Watched(pictures()), settings=ReferenceSettings(Policy.CHUNK_START), sdedit=(0.6,))
    run = a_run(tmp_path, (BADLY, WELL), (BADLY, BADLY, WELL), (BADLY, WELL), job=job)
    run.dub()
    assert run.models.tries == [1, 1, 2, 2, 2, 3, 3] and len(threads) == 2


# -- what cannot be measured


def _no_face(frames, area):
    raise InputError(f"a face from the front was found in 0 of {len(frames)} frames")


@pytest.mark.parametrize("kind", ["no library", "another version", "no face"])
def test_what_cannot_be_measured_is_said_once_and_made_once(tmp_path, monkeypatch, kind):
    if kind == "no face":
        monkeypatch.setattr(lips, "face_points", _no_face)
    else:
        monkeypatch.undo()
        module = None if kind == "no library" else type(sys)("dlib")
        monkeypatch.setitem(sys.modules, "dlib", module)
        face_points._finders.cache_clear()
        package = Path(tmp_path / "site" / "face_recognition_models")
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(package.parent))
    run = a_run(tmp_path / "run", (WELL,), (BADLY, WELL), (BADLY, WELL))
    notes = SessionLog()
    chunks = chunks_of(run.dub(notes=notes))
    said = {"no library": "not installed", "another version": "another version", "no face": "in 0 of"}[kind]
    (warning,) = notes.warned
    assert warning.startswith("retry_lips has no effect on chunk 1") and said in warning
    assert run.models.tries == [1, 2, 3]
    assert all(said in chunk["lips_absent"] and chunk["tries"] is None for chunk in chunks)


@pytest.mark.parametrize(
    ("chunk_frames", "speaks", "said"),
    [(25, True, "20 frames are too few"), (41, True, None), (33, False, None)],
    ids=["all too short", "a rest of 12 frames", "a silent voice"],
)
def test_a_silent_voice_and_a_short_rest_are_no_reason_to_warn(tmp_path, chunk_frames, speaks, said):
    job = speaking_job(chunk_frames=chunk_frames)
    job = replace(job, speech=replace(job.speech, sound=voice(speaks * SPOKEN[:TOTAL])))
    notes = SessionLog()
    run = a_run(tmp_path, *[(WELL,)] * 5, job=job)
    run.dub(notes=notes)
    assert run.models.tries == list(range(1, len(job.plan) + 1))
    assert [said in text for text in notes.warned] == ([] if said is None else [True])


def test_a_try_without_a_face_is_not_kept(tmp_path, monkeypatch):
    plain = lips.face_points

    def sometimes(frames, area):
        return _no_face(frames, area) if run.models.tries[-2:] == [2, 2] else plain(frames, area)

    monkeypatch.setattr(lips, "face_points", sometimes)
    run = a_run(tmp_path, (WELL,), (BADLY, WELL, WELL), (WELL,))
    (_, second, _) = chunks_of(run.dub())
    assert [each["lip_sync"] for each in second["tries"][1:]] == [None, None]
    assert second["tries"][0]["kept"] and second["lip_sync"] == second["tries"][0]["lip_sync"]


def test_what_a_try_is_made_from_is_there_for_the_next(tmp_path, monkeypatch):
    """Colors are held and seams faded in a later try as in a first one."""
    monkeypatch.setattr(lip_tries, "ENOUGH", 2.0)
    held = {"color": ColorHold(0.5, over=1), "seam_fade": 3, "sdedit": (0.6,), "pinned": Pinned(torch.ones(1, 32, 48))}
    follows = ((BADLY, WELL, PARTLY), (BADLY, PARTLY, WELL), (WELL, BADLY, PARTLY))
    run = a_run(tmp_path / "a", *follows, job=speaking_job(**held))
    kept = [each["seed"] for chunk in chunks_of(run.dub()) for each in chunk["tries"] if each["kept"]]
    assert kept[1] == SEED + 2 * SEED_STEP
    alone = a_run(tmp_path / "b", *follows, job=speaking_job(0, **held))
    alone.dub(redo=", ".join(f"{chunk}={seed}" for chunk, seed in enumerate(kept, start=1)))
    assert (tmp_path / "a" / "v.mp4").read_bytes() == (tmp_path / "b" / "v.mp4").read_bytes()

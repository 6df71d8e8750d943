"""The first chunk alone, to try settings cheaply: a short video, from which the whole job goes on."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from infinitetalk_core.runs.unfinished_runs import unfinished_runs
from tests.support.runs import RunFolder, SessionLog, small_job

FIRST = 13  # frames of the first chunk


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The video of a run to which nothing happens."""
    return RunFolder(tmp_path_factory.mktemp("calm")).dub().path.read_bytes()


def lengths(path: Path) -> tuple[int, float]:
    """Frames of a video, and seconds of its sound."""
    with av.open(str(path)) as file:
        frames = sum(1 for _ in file.decode(video=0))
    with av.open(str(path)) as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
        return frames, samples / file.streams.audio[0].rate


def test_it_is_a_short_video_with_its_sound_and_the_job_is_unfinished(tmp_path):
    workspace, notes = RunFolder(tmp_path), SessionLog()
    outcome = workspace.dub(notes=notes, first_chunk_only=True)
    assert notes.made == [1] and not outcome.whole and outcome.made == 1
    frames, seconds = lengths(outcome.path)
    assert frames == FIRST and seconds < FIRST / 25 + 0.1, "the sound ends with the pictures"
    assert json.loads(outcome.path.with_suffix(".json").read_text())["complete"] is False
    assert [run.folder for run in unfinished_runs(workspace.folder.parent)] == [workspace.folder]


def test_the_whole_job_goes_on_from_it(tmp_path, undisturbed):
    workspace, notes = RunFolder(tmp_path), SessionLog()
    first = workspace.dub(first_chunk_only=True)
    outcome = workspace.dub(notes=notes)
    assert (notes.found_done, notes.made, notes.joined) == (1, [2, 3], [1]), "the first chunk is not made again"
    assert outcome.path.read_bytes() == undisturbed and outcome.whole
    assert first.path.exists() and first.path != outcome.path
    assert {path.name for path in workspace.folder.iterdir()} == {"run.json", "lock"}


def test_it_is_taken_as_it_is_and_the_whole_video_in_its_place(tmp_path):
    workspace = RunFolder(tmp_path)
    first = workspace.dub(first_chunk_only=True)
    again = workspace.dub(first_chunk_only=True)
    assert again.existed and again.path == first.path and not again.whole
    whole = workspace.dub()
    once_more = workspace.dub(first_chunk_only=True)
    assert once_more.existed and once_more.whole and once_more.path == whole.path
    assert workspace.dub().existed, "trying the first chunk costs no finished video"


def test_it_is_taken_from_an_interrupted_run_and_interrupted_itself(tmp_path, undisturbed):
    workspace, notes = RunFolder(tmp_path), SessionLog()
    workspace.interrupt_at(1, first_chunk_only=True)
    workspace.interrupt_at(3)
    outcome = workspace.dub(notes=notes, first_chunk_only=True)
    assert notes.made == [] and notes.joined == [1] and lengths(outcome.path)[0] == FIRST
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == undisturbed
    assert notes.made == [3]


def test_another_seed_for_it_is_tried_and_gone_on_from(tmp_path):
    workspace = RunFolder(tmp_path)
    plain = workspace.dub(first_chunk_only=True)
    other = workspace.dub(first_chunk_only=True, redo="1=77")
    assert other.path != plain.path and other.path.read_bytes() != plain.path.read_bytes()
    for redo in ("1=77", ""):
        notes = SessionLog()
        workspace.dub(notes=notes, redo=redo)
        assert notes.made == [2, 3] and notes.joined == [1], redo


def test_a_job_of_one_chunk_is_made_whole(tmp_path):
    workspace = RunFolder(tmp_path, small_job(FIRST))
    outcome = workspace.dub(first_chunk_only=True)
    assert outcome.whole and {path.name for path in workspace.folder.iterdir()} == {"run.json", "lock"}

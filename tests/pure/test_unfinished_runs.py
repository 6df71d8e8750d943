"""What interrupted jobs leave behind: an artist sees what it takes, and nothing that matters is ever removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from infinitetalk_core.runs.lock import RunLock
from infinitetalk_core.runs.unfinished_runs import describe_unfinished_runs, remove, unfinished_runs
from tests.support.runs import RunFolder, SessionLog

DAY = 86400


@pytest.fixture
def workspace(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def _interrupt(workspace: RunFolder) -> None:
    def stop(chunk: int) -> None:
        if chunk == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.dub(notes=SessionLog(on_chunk=stop))


def _age(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in folder.iterdir():
        os.utime(path, (then, then))


def test_an_unfinished_run_is_listed_with_its_size_and_age_and_a_finished_one_is_not(workspace):
    runs = workspace.folder.parent
    assert unfinished_runs(runs) == [], "there is no folder yet"
    _interrupt(workspace)
    _age(workspace.folder, 3)
    (found,) = unfinished_runs(runs)
    assert found.folder == workspace.folder and found.video == "v.mp4"
    assert found.size_bytes == sum(p.stat().st_size for p in workspace.folder.iterdir() if p.name != "lock")
    assert found.days == pytest.approx(3, abs=0.01)
    assert describe_unfinished_runs([found]).startswith("1 unfinished run takes 0.00 GB") and "3 days old" in str(
        describe_unfinished_runs([found])
    )
    workspace.dub()
    assert unfinished_runs(runs) == []


def test_an_old_one_is_removed_and_the_job_begins_anew(workspace):
    _interrupt(workspace)
    _age(workspace.folder, 31)
    (found,) = unfinished_runs(workspace.folder.parent)
    assert remove(found, 30)
    assert not workspace.folder.exists()
    videos = workspace.videos()
    notes = SessionLog()
    workspace.dub(notes=notes)
    assert notes.made[0] == 1 and len(notes.made) == len(workspace.job.plan)
    assert set(videos) <= set(workspace.videos()), "no video is removed"


def test_a_younger_one_stays_and_goes_on(workspace):
    _interrupt(workspace)
    for days in (29.9, 0, -400):
        _age(workspace.folder, days)
        (found,) = unfinished_runs(workspace.folder.parent)
        assert not remove(found, 30), f"{days} days old"
    notes = SessionLog()
    workspace.dub(notes=notes)
    assert notes.joined == [1]


def test_one_that_is_being_made_stays(workspace):
    _interrupt(workspace)
    _age(workspace.folder, 100)
    (found,) = unfinished_runs(workspace.folder.parent)
    before = {path.name for path in workspace.folder.iterdir()}
    with RunLock(workspace.folder / "lock"):
        assert not remove(found, 30)
        assert {path.name for path in workspace.folder.iterdir()} == before


def test_one_that_was_continued_or_finished_since_it_was_listed_stays(workspace):
    _interrupt(workspace)
    _age(workspace.folder, 100)
    (found,) = unfinished_runs(workspace.folder.parent)
    _interrupt_later = SessionLog(
        on_chunk=lambda chunk: (_ for _ in ()).throw(KeyboardInterrupt) if chunk == 3 else None
    )
    with pytest.raises(KeyboardInterrupt):
        workspace.dub(notes=_interrupt_later)
    assert not remove(found, 30)
    workspace.dub()
    _age(workspace.folder, 100)
    assert not remove(found, 30)
    assert (workspace.folder / "run.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other", "state": "unfinished"}', "\0\1"])
def test_a_folder_that_is_none_of_ours_is_not_touched(tmp_path, content):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text(content)
    assert unfinished_runs(tmp_path) == []

"""The frames of finished chunks can be read at any moment of a run, from another thread, wherever they are stored."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from infinitetalk_core.chunks import groups
from tests.support import runs
from tests.support.runs import RunFolder, SessionLog, small_job

FRAMES = 45  # 13 + 4 * 8 frames in five chunks, in groups of about 8


@pytest.fixture(autouse=True)
def _short_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "GROUP_FRAMES", 8)
    monkeypatch.setattr(groups, "JOIN_MARGIN", 2)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs that are opened, each with the chunks of which its store has told, and in which thread."""
    found: list[Any] = []
    real = runs.Run

    def watched(job, models, store):
        run = real(job, models, store)
        told: list[tuple[int, str]] = []
        store.on_commit = lambda task, metrics: told.append((task.chunk.index, threading.current_thread().name))
        found.append((run, told))
        return run

    monkeypatch.setattr(runs, "Run", watched)
    return found


def pictures_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("keep", [False, True], ids=["deleted", "kept"])
def test_every_finished_chunk_can_be_read_while_the_next_is_made(tmp_path, opened, keep):
    folder = RunFolder(tmp_path, job=small_job(FRAMES), keep=keep)
    seen: dict[int, np.ndarray] = {}
    sources: set[bool] = set()

    def look(chunk: int) -> None:
        run, told = opened[-1]
        for index, _ in list(told):
            task = run.tasks[index]
            sources.add(run.store.has_frames(task))
            frames = run.stored_frames(task)
            assert frames is not None and len(frames) == task.chunk.keep
            seen[index] = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])

    path = folder.dub(notes=SessionLog(on_chunk=look)).path
    run, told = opened[-1]
    assert [index for index, _ in told] == [0, 1, 2, 3, 4]
    assert all(thread.startswith("infinitetalk-chunk") for _, thread in told), "at once, not after the next step"
    assert sources == ({True} if keep else {True, False}), "from the chunk's own file, and from its groups"
    whole = pictures_of(path).astype(int)
    for index, pictures in seen.items():
        first = run.tasks[index].chunk.first
        assert np.abs(whole[first : first + len(pictures)] - pictures).mean() < 6, f"chunk {index + 1}"


def test_a_resumed_run_has_the_frames_of_the_execution_before(tmp_path, opened):
    folder = RunFolder(tmp_path, job=small_job(FRAMES))
    folder.interrupt_at(4)
    found: list[int] = []

    def look(chunk: int) -> None:
        run, _ = opened[-1]
        found.append(sum(run.stored_frames(task) is not None for task in run.tasks[: chunk - 1]))

    folder.dub(notes=SessionLog(on_chunk=look))
    assert found[0] >= 2


def test_frames_that_are_not_there_are_none(tmp_path, opened):
    folder = RunFolder(tmp_path, job=small_job(FRAMES))
    folder.dub()
    run, _ = opened[-1]
    assert [run.stored_frames(task) for task in run.tasks] == [None] * len(run.tasks), "the run is finished"

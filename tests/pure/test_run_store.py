"""What a run is known by, who may write it, and what its steps are called."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.redo import AfterRedo, ChunkOverride, parse_redo
from infinitetalk_core.chunks.reference import PlannedChunk, ReferenceChoice
from infinitetalk_core.errors import RunError
from infinitetalk_core.runs.lock import RunLock
from infinitetalk_core.runs.tasks import plan_tasks

ROOT = Path(__file__).parents[2]


@given(
    total=st.integers(1, 400),
    cuts=st.sets(st.integers(1, 399), max_size=4).map(sorted),
    redone=st.integers(0, 40),
    after_redo=st.sampled_from(AfterRedo),
)
def test_an_override_changes_exactly_what_comes_from_it(total, cuts, redone, after_redo):
    chunks = plan_chunks(total, 29, 5, [cut for cut in cuts if cut < total])
    plan = [PlannedChunk(chunk, ReferenceChoice((0,)), chunk.index) for chunk in chunks]
    redone %= len(plan)
    plain = plan_tasks(plan, {}, after_redo)
    taken = plan_tasks(plan, {redone: ChunkOverride(7, 3)}, after_redo)
    assert taken[redone].planned == PlannedChunk(chunks[redone], ReferenceChoice((3,)), 7 + redone)
    assert len({step.recipe for step in plain}) == len(plan)
    changed = {i for i, (a, b) in enumerate(zip(plain, taken, strict=True)) if a != b}
    shot_end = next((i for i in range(redone + 1, len(plan)) if chunks[i].context == 0), len(plan))
    assert changed == (set(range(redone, shot_end)) if after_redo is AfterRedo.CONTINUE else {redone})
    for step in taken:
        assert (step.before is None) == (step.chunk.context == 0)


def test_overrides_as_people_write_them():
    overrides = parse_redo(" 4=77, 7=5@2.5\n9@1.2 ", 10, 100)
    assert overrides == {3: ChunkOverride(77, None), 6: ChunkOverride(5, 62), 8: ChunkOverride(None, 30)}
    assert parse_redo("", 3, 10) == {}


HOLDER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from infinitetalk_core.runs.lock import RunLock
with RunLock(Path({path!r}), 1, 0.05):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    code = HOLDER.format(root=str(ROOT), path=str(tmp_path / "lock"))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_two_processes_never_write_one_run_and_a_dead_one_is_followed_at_once(tmp_path, holder):
    lock = tmp_path / "lock"
    with pytest.raises(RunError, match=f"being made by another ComfyUI \\(process {holder.pid} on"), RunLock(lock):
        pass
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with RunLock(lock) as mine:
        mine.check()
        assert time.monotonic() - began < 1
    assert lock.read_bytes() == b"", "released"


def elsewhere(path: Path, beat: int) -> None:
    content = {"owner": "far", "host": "another machine", "pid": 4, "beat": beat}
    path.write_text(json.dumps(content))


def test_a_lock_of_another_machine_counts_while_its_heart_beats(tmp_path, monkeypatch):
    """Over a network drive the operating system's lock may not be shared."""
    lock = tmp_path / "lock"
    elsewhere(lock, 1)
    with RunLock(lock, watch_seconds=0.3) as mine:  # it does not beat: its owner is gone
        elsewhere(lock, 2)  # or it only slept, and goes on
        with pytest.raises(RunError, match="has taken this run over"):
            mine.check()
    beats = iter(range(3, 100))
    plain = time.sleep

    def sleep(seconds: float) -> None:
        elsewhere(lock, next(beats))
        plain(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(RunError, match="process 4 on another machine"), RunLock(lock, watch_seconds=0.3):
        pass


def test_the_clock_does_not_matter_to_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: -1e9)
    with RunLock(tmp_path / "lock", beat_seconds=0.01) as lock:
        time.sleep(0.1)
        lock.check()

"""What a run is known by, who may write it, and what its steps are called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.takes import Following, Take, parse_takes
from infinitetalk_core.errors import InputError
from infinitetalk_core.identity import FileIdentities, file_identity, run_key, stream_identity, tensor_identity
from infinitetalk_core.runs.lock import RunLock
from infinitetalk_core.runs.steps import plan_steps

ROOT = Path(__file__).parents[2]


def test_a_file_is_its_content_and_not_its_name_or_date(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"picture" * 100_000)
    b.write_bytes(a.read_bytes())
    os.utime(b, (0, 0))
    assert file_identity(a) == file_identity(b)
    b.write_bytes(a.read_bytes()[:-1] + b"!")
    assert file_identity(a) != file_identity(b)


def test_of_a_large_file_the_size_both_ends_and_samples_count(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(100_000_000)
    with open(path, "r+b") as file:
        identities = {stream_identity(file)}
        for place in (0, 99_999_999):
            file.seek(place)
            file.write(b"x")
            identities.add(stream_identity(file))
            assert file.tell() == place + 1, "its position stays"
        file.truncate(99_999_998)
        identities.add(stream_identity(file))
    assert len(identities) == 4


def test_tensors_differ_by_a_single_bit_by_shape_and_by_type():
    a = torch.arange(12.0).view(3, 4)
    assert tensor_identity(a) == tensor_identity(a.t().contiguous().t())
    b = a.clone()
    b.view(torch.int32)[2, 3] ^= 1
    others = [b, a.view(4, 3), a.to(torch.bfloat16), a.view(torch.int32), torch.tensor(1.0), torch.zeros(0)]
    assert len({tensor_identity(t) for t in [a, *others]}) == 7


def test_the_key_knows_every_setting_but_no_order():
    assert run_key({"a": 1, "b": [0.1, None]}) == run_key({"b": [0.1, None], "a": 1})
    assert run_key({"a": 1}) != run_key({"a": 1.5})


@given(
    total=st.integers(1, 400),
    cuts=st.sets(st.integers(1, 399), max_size=4).map(sorted),
    redone=st.integers(0, 40),
    following=st.sampled_from(Following),
)
def test_a_take_changes_exactly_what_comes_from_it(total, cuts, redone, following):
    plan = plan_chunks(total, 29, 5, [cut for cut in cuts if cut < total])
    redone %= len(plan)
    plain = plan_steps(plan, {}, following)
    taken = plan_steps(plan, {redone: Take(7)}, following)
    assert len({step.recipe for step in plain}) == len(plan)
    changed = {i for i, (a, b) in enumerate(zip(plain, taken, strict=True)) if a != b}
    shot_end = next((i for i in range(redone + 1, len(plan)) if plan[i].context == 0), len(plan))
    assert changed == (set(range(redone, shot_end)) if following is Following.CONTINUE else {redone})
    for step in taken:
        assert (step.before is None) == (step.chunk.context == 0)


def test_takes_as_people_write_them():
    takes = parse_takes(" 4=77, 7=5@2.5\n9@1.2 ", 10, 100)
    assert takes == {3: Take(77, None), 6: Take(5, 62), 8: Take(None, 30)}
    assert parse_takes("", 3, 10) == {}


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
    with pytest.raises(InputError, match=f"being made by another ComfyUI \\(process {holder.pid} on"), RunLock(lock):
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
        with pytest.raises(InputError, match="has taken this run over"):
            mine.check()
    beats = iter(range(3, 100))
    plain = time.sleep

    def sleep(seconds: float) -> None:
        elsewhere(lock, next(beats))
        plain(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(InputError, match="process 4 on another machine"), RunLock(lock, watch_seconds=0.3):
        pass


def test_the_clock_does_not_matter_to_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: -1e9)
    with RunLock(tmp_path / "lock", beat_seconds=0.01) as lock:
        time.sleep(0.1)
        lock.check()


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path, monkeypatch):
    file, read = tmp_path / "weights", []

    def reading(path):
        read.append(path)
        return file_identity(path)

    monkeypatch.setattr("infinitetalk_core.identity.file_identity", reading)
    files = FileIdentities()
    file.write_bytes(b"1")
    assert files.of(file) == files.of(file) == file_identity(file)
    assert len(read) == 1
    file.write_bytes(b"22")
    assert files.of(file) == file_identity(file)
    assert len(read) == 2

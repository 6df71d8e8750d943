"""Runs of several groups of pictures: accidents between groups, damaged groups, chunks made again."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from infinitetalk_core.chunks import groups
from infinitetalk_core.runs.disk import SCRATCH
from tests.support.fault_table import record_fault_result
from tests.support.runs import FailingDisk, RunFolder, SessionLog, no_space, power_cut, small_job

FRAMES = 45  # 13 + 4 * 8 frames in five chunks, in groups of about 8


@pytest.fixture(autouse=True)
def _short_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "GROUP_FRAMES", 8)
    monkeypatch.setattr(groups, "JOIN_MARGIN", 2)


def workspace_in(folder: Path, keep: bool = False) -> RunFolder:
    folder.mkdir(exist_ok=True)
    return RunFolder(folder, job=small_job(FRAMES), keep=keep)


@pytest.fixture
def undisturbed(tmp_path: Path) -> bytes:
    return workspace_in(tmp_path / "calm").dub().path.read_bytes()


def test_frames_are_given_up_when_their_groups_are_encoded(tmp_path):
    workspace = workspace_in(tmp_path)
    seen: list[tuple[int, int]] = []

    def look(chunk: int) -> None:
        if not seen or len(seen) < chunk:
            names = [path.name for path in workspace.folder.iterdir()] if workspace.folder.exists() else []
            frames = [name for name in names if name.endswith(".mp4") and name[0] == "0"]
            seen.append((len(frames), len([name for name in names if name.startswith("g") and name.endswith(".mp4")])))

    workspace.dub(notes=SessionLog(on_chunk=look))
    assert [encoded for _, encoded in seen] == sorted(encoded for _, encoded in seen) and seen[-1][1] >= 3
    assert max(kept for kept, _ in seen) <= 2, "the frames of chunks whose groups are all encoded are gone"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_power_cut_at_any_moment_between_groups(tmp_path, undisturbed):
    disk = FailingDisk()
    workspace_in(tmp_path / "counted").dub(disk)
    for operation in range(1, disk.count + 1, 7):
        workspace = workspace_in(tmp_path / str(operation))
        child = os.fork()
        if child == 0:
            workspace.dub(FailingDisk(operation, power_cut))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137
        done = len(list(workspace.folder.glob("0*.json"))) if workspace.folder.exists() else 0
        notes = SessionLog()
        assert workspace.dub(notes=notes).path.read_bytes() == undisturbed, f"operation {operation}"
        assert len(notes.made) <= 5 - done, "a chunk that was finished is not made again"
        assert workspace.videos() == ["v.mp4"] and not list(workspace.folder.glob("*" + SCRATCH))
    record_fault_result("power cut", "between groups of pictures, at every seventh operation", "bit-identical video")


@pytest.mark.parametrize("part", range(8))
def test_a_full_disk_between_groups(tmp_path, undisturbed, part):
    disk = FailingDisk()
    workspace_in(tmp_path / "counted").dub(disk)
    for operation in range(1 + part, disk.count + 1, 40):
        workspace = workspace_in(tmp_path / str(operation))
        with pytest.raises(OSError, match="No space"):
            workspace.dub(FailingDisk(operation, no_space, lasting=bool(part % 2)))
        assert workspace.dub().path.read_bytes() == undisturbed, f"operation {operation}"
        assert workspace.videos() == ["v.mp4"]


@pytest.mark.parametrize("stop", [3, 5])
@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_group_costs_only_the_chunks_of_its_frames(tmp_path, undisturbed, stop, seed):
    workspace = workspace_in(tmp_path)
    workspace.interrupt_at(stop)
    random = Random(seed)
    found = sorted(workspace.folder.glob("g*"))
    assert len(found) >= 4
    path = random.choice(found)
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 4
    path.write_bytes(data)
    assert workspace.dub().path.read_bytes() == undisturbed


def test_a_chunk_made_again_changes_the_groups_of_its_frames(tmp_path):
    workspace = workspace_in(tmp_path, keep=True)
    first = workspace.dub()
    stored = set(workspace.folder.glob("g*.mp4"))
    notes = SessionLog()
    again = workspace.dub(notes=notes, redo="4=77")
    assert (notes.joined, notes.made) == ([1, 2, 3], [4, 5])
    more = set(workspace.folder.glob("g*.mp4")) - stored
    assert 0 < len(more) < len(stored), "groups before it are used as they are"
    fresh = workspace_in(tmp_path / "fresh").dub(redo="4=77")
    assert fresh.path.read_bytes() == again.path.read_bytes() != first.path.read_bytes()
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == first.path.read_bytes() and notes.made == []

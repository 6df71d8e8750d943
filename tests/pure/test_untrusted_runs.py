"""What is in a run's folder is not trusted: anybody may have changed it, and disks fail in all kinds of ways.

An API client can write there with ComfyUI's own /upload/image, other programs put folders and links there, and network
drives lack what local disks have. Nothing outside is touched, and finished chunks are never lost.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from infinitetalk_core.errors import RunError
from infinitetalk_core.file_access import open_regular, read_object
from infinitetalk_core.fingerprint import file_fingerprint
from infinitetalk_core.runs import lock as lock_module
from infinitetalk_core.runs.lock import RunLock
from infinitetalk_core.runs.manifest import checksum, is_video_name
from infinitetalk_core.runs.unfinished_runs import remove, unfinished_runs
from tests.support.fault_table import record_fault_result
from tests.support.run_damage import DAMAGES, damage_run
from tests.support.runs import RunFolder, SessionLog


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The video of a run to which nothing happens."""
    return RunFolder(tmp_path_factory.mktemp("calm")).dub().path.read_bytes()


@pytest.fixture(scope="module", autouse=True)
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An output folder with a run that was interrupted in its third chunk, and one with a finished run."""
    PREPARED["stopped"] = tmp_path_factory.mktemp("stopped")
    RunFolder(PREPARED["stopped"]).interrupt_at(3)
    PREPARED["finished"] = tmp_path_factory.mktemp("finished")
    RunFolder(PREPARED["finished"]).dub()


PREPARED: dict[str, Path] = {}


def stopped(root: Path, state: str = "stopped") -> RunFolder:
    """A run that was interrupted in its third chunk. Its output folder is one of several, as on a real disk."""
    shutil.copytree(PREPARED[state], root / "output")
    return RunFolder(root / "output")


def rewrite(workspace: RunFolder, sealed: bool = True, **entries: Any) -> None:
    """Change entries of run.json. sealed: with the right checksum, as a forger would."""
    path = workspace.folder / "run.json"
    content = {**json.loads(path.read_text()), **entries}
    if sealed:
        content["sha256"] = checksum({name: value for name, value in content.items() if name != "sha256"})
    path.write_text(json.dumps(content))


FOREIGN = ["../film.mp4", "../../film.mp4", "/{root}/film.mp4", "sub/../../film.mp4", "..\\film.mp4", "C:film.mp4"]


@pytest.mark.parametrize("name", [*FOREIGN, "other_film.mp4", "sub/film.mp4"])
def test_a_forged_manifest_deletes_and_writes_nothing(tmp_path, undisturbed, name):
    """As uploaded by an API client into the run's folder."""
    workspace = stopped(tmp_path)
    films = [tmp_path / "film.mp4", workspace.root / "other_film.mp4", workspace.root / "sub" / "film.mp4"]
    films[2].parent.mkdir()
    for film in films:
        film.write_bytes(b"a film")
    name = name.replace("{root}", str(tmp_path))
    forged = {"video": name, "bytes": 6, "fingerprint": file_fingerprint(films[0])}
    before = {path for path in tmp_path.rglob("*") if workspace.root not in path.parents}
    rewrite(workspace, interrupted=[forged], video=name)
    notes = SessionLog()
    outcome = workspace.dub(notes=notes)
    assert outcome.path.parent == workspace.root and outcome.path.read_bytes() == undisturbed
    assert notes.made == [3], "finished chunks are used all the same"
    assert [film.read_bytes() for film in films] == [b"a film"] * 3
    assert {path for path in tmp_path.rglob("*") if workspace.root not in path.parents} == before
    assert not list(tmp_path.glob("*.json"))
    record_fault_result("run.json forged", "names of other files in it", "nothing else is touched; bit-identical video")


@pytest.mark.parametrize(
    "name", [*FOREIGN, "", "a.png", "a\0.mp4", "a\n.mp4", "\ud800.mp4", "a" * 5000 + ".mp4", None, 3]
)
def test_names_that_no_run_writes(name):
    assert not is_video_name(name)


@pytest.mark.parametrize("name", ["video/Änna 1_00001_.mp4", "take 1: she laughs?.mp4", 'a"b*.mp4', "..a/b..mp4"])
def test_names_that_a_user_may_give(name):
    assert is_video_name(name)


def test_a_part_file_of_a_name_that_the_run_never_had_stays(tmp_path, undisturbed):
    workspace = stopped(tmp_path)
    mine = workspace.root / "film.part.mp4"
    mine.write_bytes(b"mine")
    rewrite(workspace, video="film.mp4")
    assert workspace.dub().path.read_bytes() == undisturbed
    assert mine.read_bytes() == b"mine"


def test_a_forged_finished_video_is_not_handed_out(tmp_path, undisturbed):
    workspace = stopped(tmp_path, "finished")
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    rewrite(workspace, video="../secret.mp4", result={"fingerprint": file_fingerprint(secret)})
    outcome = workspace.dub()
    assert outcome.path.parent == workspace.root and outcome.path.read_bytes() == undisturbed


VALUES = [None, True, 7, 1e308, "text", "\ud800", [1], {"a": []}, [{"video": 3}]]
ENTRIES = ["format", "version", "key", "key_contents", "filename_prefix", "variant", "state", "video", "result", "part"]
ENTRIES += ["interrupted", "executions", "plain_attention_from", "report", "sha256", "another"]


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("entry", ENTRIES)
def test_one_wrong_entry_never_costs_a_finished_chunk(tmp_path, undisturbed, entry, sealed):
    if sealed and entry == "sha256":
        pytest.skip("a checksum is not sealed by itself")
    for number, value in enumerate(VALUES):
        if sealed and entry == "version" and isinstance(value, int) and value > 3:
            continue  # a newer version's, by all that can be known
        workspace = stopped(tmp_path / str(number))
        rewrite(workspace, sealed, **{entry: value})
        notes = SessionLog()
        outcome = workspace.dub(notes=notes)
        assert outcome.path.read_bytes() == undisturbed, value
        assert notes.made == [3], value
    record_fault_result(
        "run.json with a wrong entry", "any of them, found on Run", "finished chunks are used; bit-identical video"
    )


@pytest.mark.parametrize("entry", ["state", "video", "result", "report", "key", "format", "version"])
def test_a_damaged_entry_of_a_finished_run_does_not_make_it_anew_where_the_video_is_known(tmp_path, entry):
    for number, value in enumerate(VALUES):
        workspace = stopped(tmp_path / str(number), "finished")
        rewrite(workspace, sealed=False, **{entry: value})
        notes = SessionLog()
        outcome = workspace.dub(notes=notes)
        if entry not in ("video", "result"):
            assert notes.made == [] and outcome.path.name == "v.mp4", value
        assert json.loads(outcome.report) is not None


@pytest.mark.parametrize("content", ["{" * 100_000, "[" * 100_000, '{"a":' * 5000, "NaN", '"text"', "\ufeff{}", "{}"])
def test_a_manifest_that_is_no_manifest(tmp_path, undisturbed, content):
    workspace = stopped(tmp_path)
    (workspace.folder / "run.json").write_text(content)
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == undisturbed and notes.made == [3]
    (workspace.folder / "run.json").write_text(content)
    assert unfinished_runs(workspace.folder.parent) == []


@pytest.mark.parametrize("name", ["v_interrupted_graded.mp4", "v_interrupted (copy).mp4", "v_interrupted_2.mp4"])
def test_files_beside_the_video_that_nobody_noted_stay(tmp_path, undisturbed, name):
    workspace = stopped(tmp_path)
    mine = workspace.root / name
    mine.write_bytes((workspace.root / "v_interrupted.mp4").read_bytes() + b"graded")
    assert workspace.dub().path.read_bytes() == undisturbed
    assert workspace.videos() == sorted(["v.mp4", name]) and mine.read_bytes().endswith(b"graded")


def test_an_interrupted_video_edited_to_the_same_size_stays(tmp_path, undisturbed):
    workspace = stopped(tmp_path)
    mine = workspace.root / "v_interrupted.mp4"
    mine.write_bytes(bytes(mine.stat().st_size))
    assert workspace.dub().path.read_bytes() == undisturbed and mine.exists()


def test_an_interrupted_video_that_cannot_be_noted_stays_the_part_file(tmp_path, undisturbed, monkeypatch):
    workspace = RunFolder(tmp_path)
    monkeypatch.setattr("infinitetalk_core.runs.session._write_report", full_disk)
    workspace.interrupt_at(3)
    monkeypatch.undo()
    assert workspace.videos() == ["v.part.mp4"]
    assert workspace.dub().path.read_bytes() == undisturbed and workspace.videos() == ["v.mp4"]


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "name", ["@eaDir", ".ipynb_checkpoints", "00001-0123456789.mp4", "00009-0123456789.context.new"]
)
@pytest.mark.parametrize("start_over", [True, False])
def test_folders_in_a_runs_folder_do_not_matter_and_stay(tmp_path, undisturbed, name, start_over):
    workspace = stopped(tmp_path)
    (workspace.folder / name).mkdir()
    (workspace.folder / name / "thumb.jpg").write_bytes(b"mine")
    (workspace.folder / "notes.txt").write_bytes(b"mine")
    assert workspace.dub(start_over=start_over).path.read_bytes() == undisturbed
    assert (workspace.folder / name / "thumb.jpg").exists() and (workspace.folder / "notes.txt").exists()
    RunFolder(workspace.root, name="w.mp4").interrupt_at(3)
    (run,) = unfinished_runs(workspace.folder.parent)
    assert remove(run, 0) and (workspace.folder / "notes.txt").exists()


links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@links
def test_links_in_a_runs_folder_are_not_followed(tmp_path, undisturbed):
    workspace = stopped(tmp_path)
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    for name in ("run.json.new", "sound.mp4.new", "00003-0123456789.mp4", "run.json"):
        path = workspace.folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(mine)
    assert workspace.dub().path.read_bytes() == undisturbed
    assert mine.read_bytes() == b"mine"
    (workspace.folder / "lock").unlink()
    (workspace.folder / "lock").symlink_to(mine)
    with pytest.raises(OSError, match=r"lock could not be written \(it is a link"):
        workspace.dub()
    assert mine.read_bytes() == b"mine"


@links
def test_a_run_whose_folder_is_a_link_is_refused(tmp_path):
    workspace = RunFolder(tmp_path / "output")
    workspace.folder.parent.mkdir(parents=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    workspace.folder.symlink_to(mine)
    with pytest.raises(RunError, match="is a link; remove it"):
        workspace.dub()
    assert not list(mine.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["00001-*.mp4", "00002-*.context", "00002-*.json", "run.json", "sound.mp4"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, undisturbed, name):
    workspace = stopped(tmp_path)
    (path,) = workspace.folder.glob(name)
    path.unlink()
    os.mkfifo(path)
    assert workspace.dub().path.read_bytes() == undisturbed
    record_fault_result("named pipe in a run's folder", "in place of any file but the lock", "bit-identical video")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_the_lock_is_named(tmp_path):
    workspace = stopped(tmp_path)
    (workspace.folder / "lock").unlink()
    os.mkfifo(workspace.folder / "lock")
    with pytest.raises(OSError, match="it is a link, a folder, a pipe or a device"):
        workspace.dub()
    with pytest.raises(OSError):
        open_regular(tmp_path)
    assert read_object(tmp_path) is None


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_drive_that_cannot_sync_folders(tmp_path, undisturbed, monkeypatch, code):
    plain = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(code, os.strerror(code))
        plain(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert RunFolder(tmp_path).dub().path.read_bytes() == undisturbed
    record_fault_result("network or FUSE drive", "that cannot sync folders", "bit-identical video")


@pytest.mark.skipif(os.name == "nt", reason="EACCES means a held lock there")
@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOLCK, errno.ENOSYS, errno.EINVAL])
def test_a_drive_without_locks(tmp_path, undisturbed, monkeypatch, code):
    def no_locks(file: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_module, "_try_lock", no_locks)
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.01)
    workspace = RunFolder(tmp_path)
    assert workspace.dub().path.read_bytes() == undisturbed
    record_fault_result("network or FUSE drive", "without file locks", "bit-identical video; one writer at a time")
    with (
        RunLock(tmp_path / "lock", 0.3, 0.05, 0.01),
        pytest.raises(RunError, match="is being made by another ComfyUI"),
        RunLock(tmp_path / "lock", 0.3),
    ):
        pass


@pytest.mark.skipif(os.name == "nt", reason="EACCES means a held lock there")
def test_of_two_that_start_at_once_without_locks_one_has_the_run(tmp_path, monkeypatch):
    def no_locks(file: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock_module, "_try_lock", no_locks)
    other = RunLock(tmp_path / "lock", 0.1, 60, 0)
    plain = lock_module.time.sleep

    def meanwhile(seconds: float) -> None:
        if seconds == 0.25:
            monkeypatch.setattr(lock_module.time, "sleep", plain)
            other.__enter__()
        plain(0)

    monkeypatch.setattr(lock_module.time, "sleep", meanwhile)
    with pytest.raises(RunError, match="has taken this run over"), RunLock(tmp_path / "lock", 0.1, 60, 0.25):
        pass
    other.check()
    other.__exit__(None, None, None)


def test_a_part_file_removed_in_mid_run_is_named_and_costs_nothing(tmp_path, undisturbed):
    def gone(chunk: int) -> None:
        if chunk == 3:
            (tmp_path / "v.part.mp4").unlink()

    workspace = RunFolder(tmp_path)
    with pytest.raises(RunError, match=r"v\.part\.mp4 was removed or replaced while it was written; run again"):
        workspace.dub(notes=SessionLog(on_chunk=gone))
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == undisturbed and notes.made == []
    record_fault_result(
        "part file removed", "during a run", "an error message; then a bit-identical video, no chunk made"
    )


@links
def test_an_end_between_the_two_names_of_the_video_leaves_one(tmp_path):
    workspace = stopped(tmp_path, "finished")
    os.link(workspace.root / "v.mp4", workspace.root / "v.part.mp4")
    assert workspace.dub().path.name == "v.mp4" and workspace.videos() == ["v.mp4"]
    (workspace.root / "v.part.mp4").write_bytes(b"mine")
    workspace.dub()
    assert workspace.videos() == ["v.mp4", "v.part.mp4"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_at_random_never_crashes_and_never_changes_the_video(tmp_path, undisturbed, damage):
    """A short run of `tools/fuzz.py runs`."""
    workspace = stopped(tmp_path)
    damage_run(workspace.folder, damage, random.Random(damage))
    assert workspace.dub().path.read_bytes() == undisturbed

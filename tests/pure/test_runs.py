"""Press Run again after any accident: the video is the same, to the bit, and at most one chunk was lost."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infinitetalk_core.chunks.redo import AfterRedo
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.errors import InputError, RunError
from infinitetalk_core.runs.disk import SCRATCH
from infinitetalk_core.runs.manifest import VERSION, checksum
from infinitetalk_core.video.partfile import PartFile
from infinitetalk_core.video.source import PictureBatch
from tests.support.fault_table import record_fault_result
from tests.support.runs import FailingDisk, RunFolder, SessionLog, no_space, power_cut, small_job


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The video of a run to which nothing happens."""
    return RunFolder(tmp_path_factory.mktemp("calm")).dub().path.read_bytes()


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many things such a run does to the disk."""
    disk = FailingDisk()
    RunFolder(tmp_path_factory.mktemp("counted")).dub(disk)
    return disk.count


def die_at(workspace: RunFolder, operation: int) -> bool:
    """A process of its own makes the video and is gone at this operation of the disk; whether it got that far."""
    child = os.fork()
    if child == 0:
        workspace.dub(FailingDisk(operation, power_cut))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137


def test_a_run_leaves_a_video_its_report_and_a_note_of_itself(tmp_path):
    workspace = RunFolder(tmp_path)
    notes = SessionLog()
    outcome = workspace.dub(notes=notes)
    assert workspace.videos() == ["v.mp4"] and outcome.path == tmp_path / "v.mp4"
    assert json.loads((tmp_path / "v.json").read_text())["complete"]
    assert (notes.found_done, notes.made, notes.joined) == (0, [1, 2, 3], [])
    left = {path.name for path in workspace.folder.iterdir()}
    assert left == {"run.json", "lock"}, "a finished run gives up its intermediates"
    manifest = json.loads((workspace.folder / "run.json").read_text())
    assert manifest["state"] == "finished" and len(manifest["report"]["chunks"]) == 3


def test_the_manifest_is_what_its_schema_says(tmp_path):
    schema = json.loads((Path(__file__).parents[2] / "docs" / "run.schema.json").read_text())
    workspace = RunFolder(tmp_path)
    for stop in (2, None):
        if stop:
            workspace.interrupt_at(stop)
        else:
            workspace.dub()
        manifest = json.loads((workspace.folder / "run.json").read_text())
        assert set(schema["required"]) <= set(manifest) <= set(schema["properties"])
        assert manifest["state"] == ("unfinished" if stop else "finished")
        assert manifest["version"] == schema["properties"]["version"]["const"]
        jsonschema.validate(manifest, schema)


def test_the_manifest_tells_of_each_execution_and_its_warnings(tmp_path):
    workspace = RunFolder(tmp_path)
    workspace.interrupt_at(3)
    (segment,) = workspace.folder.glob("00002-*.mp4")
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    workspace.dub()
    first, second = json.loads((workspace.folder / "run.json").read_text())["executions"]
    assert first["from_chunk"] == 1 and first["state"].startswith("stopped by ")
    assert second["from_chunk"] == 3 and second["state"] == "finished" and second["seconds"] >= 0
    assert any("00002-" in text and "damaged" in text for text in second["warnings"])
    assert first["began"].endswith("+00:00") and first["machine"]
    workspace.dub()
    manifest = json.loads((workspace.folder / "run.json").read_text())
    assert len(manifest["executions"]) == 2, "a video that is taken as it is adds no execution"
    assert manifest["state"] == "finished"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_power_cut_at_any_moment_changes_nothing(tmp_path, undisturbed, operations):
    assert operations > 80
    for operation in range(1, operations + 1):
        workspace = RunFolder(tmp_path / str(operation))
        workspace.root.mkdir()
        assert die_at(workspace, operation)
        done = len(list(workspace.folder.glob("0*.json"))) if workspace.folder.exists() else 0
        notes = SessionLog()
        outcome = workspace.dub(notes=notes)
        assert outcome.path.read_bytes() == undisturbed, f"operation {operation}"
        assert len(notes.made) <= 3 - done, "a chunk that was finished is not made again"
        assert workspace.videos() == ["v.mp4"]
        assert not list(workspace.folder.glob("*" + SCRATCH))
    record_fault_result(
        "power cut", f"at each of the {operations} operations of a run on the disk", "bit-identical video"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments=st.lists(st.integers(1, 60), min_size=2, max_size=6))
def test_many_power_cuts_over_one_run(tmp_path_factory, undisturbed, moments):
    workspace = RunFolder(tmp_path_factory.mktemp("cuts"))
    for moment in moments:
        die_at(workspace, moment)
    assert workspace.dub().path.read_bytes() == undisturbed
    assert workspace.videos() == ["v.mp4"]


@pytest.mark.parametrize("lasting", [False, True])
def test_a_full_disk_at_any_moment_is_named_and_costs_nothing(tmp_path, undisturbed, operations, lasting):
    for operation in range(1, operations + 1):
        workspace = RunFolder(tmp_path / str(operation))
        workspace.root.mkdir()
        try:
            workspace.dub(FailingDisk(operation, no_space, lasting))
        except OSError as error:
            assert "free some space there, then run again" in str(error) or "No space" in str(error)
        outcome = workspace.dub()
        assert outcome.path.read_bytes() == undisturbed, f"operation {operation}"
        assert workspace.videos() == ["v.mp4"], "what was kept of the unfinished video made room for the whole one"
    record_fault_result(
        "disk full", f"at each of the {operations} operations of a run on the disk", "bit-identical video"
    )


@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_a_full_disk_while_the_video_grows(tmp_path, undisturbed, monkeypatch, write):
    count = iter(range(1, 10_000))

    def failing(self, data, plain=PartFile.write):
        if next(count) == write:
            self.failed = True
            no_space()
        return plain(self, data)

    monkeypatch.setattr(PartFile, "write", failing)
    workspace = RunFolder(tmp_path)
    with pytest.raises(OSError):
        workspace.dub()
    monkeypatch.undo()
    assert workspace.dub().path.read_bytes() == undisturbed
    assert workspace.videos() == ["v.mp4"]


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
def test_what_happens_inside_a_chunk_costs_that_chunk(tmp_path, undisturbed, chunk, error):
    def strike(now: int) -> None:
        if now == chunk:
            raise error("in the middle")

    workspace = RunFolder(tmp_path)
    with pytest.raises(error):
        workspace.dub(notes=SessionLog(on_chunk=strike))
    assert workspace.videos() == (["v_interrupted.mp4"] if chunk > 1 else []), "what is finished stays as a video"
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == undisturbed
    assert notes.found_done == chunk - 1 and notes.made == list(range(chunk, 4))
    assert workspace.videos() == ["v.mp4"], "the unfinished one made room"


def test_an_unfinished_video_that_somebody_has_changed_is_theirs(tmp_path, undisturbed):
    workspace = RunFolder(tmp_path)
    for chunk in (2, 3):
        workspace.interrupt_at(chunk)
        (tmp_path / "v_interrupted.mp4").write_bytes(b"mine")
    assert workspace.dub().path.read_bytes() == undisturbed
    assert workspace.videos() == ["v.mp4", "v_interrupted.mp4"]
    assert (tmp_path / "v_interrupted.mp4").read_bytes() == b"mine"


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
@pytest.mark.parametrize("kind", ["mp4", "context", "json"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_a_damaged_file_is_found_and_made_again(tmp_path, undisturbed, damage, kind, chunk):
    workspace = RunFolder(tmp_path)
    workspace.interrupt_at(3)
    (path,) = workspace.folder.glob(f"0000{chunk}-*.{kind}")
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"cut": data[:middle], "flipped": flipped, "empty": b""}[damage])
    assert workspace.dub().path.read_bytes() == undisturbed


def test_a_damaged_manifest_and_a_damaged_sound_are_made_again(tmp_path, undisturbed):
    workspace = RunFolder(tmp_path)
    workspace.interrupt_at(3)
    for name in ("run.json", "sound.mp4"):
        (workspace.folder / name).write_bytes(b"{")
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == undisturbed
    assert notes.made == [3]


def test_a_run_of_a_newer_version_is_left_alone(tmp_path, undisturbed):
    workspace = RunFolder(tmp_path)
    workspace.interrupt_at(2)
    path = workspace.folder / "run.json"
    newer = {**json.loads(path.read_text()), "version": VERSION + 1}
    newer["sha256"] = checksum({name: value for name, value in newer.items() if name != "sha256"})
    path.write_text(json.dumps(newer))
    before = {p.name: p.read_bytes() for p in workspace.folder.iterdir() if p.name != "lock"}
    with pytest.raises(InputError, match=r"begun by a newer version .*\(format 4, this one knows 3\); update"):
        workspace.dub()
    assert {p.name: p.read_bytes() for p in workspace.folder.iterdir() if p.name != "lock"} == before
    notes = SessionLog()
    assert workspace.dub(notes=notes, start_over=True).path.read_bytes() == undisturbed
    assert notes.made == [1, 2, 3]


def another(workspace: RunFolder) -> RunFolder:
    """Another job with the same name in the same output folder, as a second server has it."""
    return RunFolder(workspace.root, key="fedcba9876543210")


def test_two_servers_make_two_videos_of_one_name_at_once(tmp_path, undisturbed):
    workspace, outcomes = RunFolder(tmp_path), []
    first = workspace.dub(
        notes=SessionLog(on_chunk=lambda chunk: outcomes or outcomes.append(another(workspace).dub()))
    )
    assert [first.path.name, outcomes[0].path.name] == ["v.mp4", "v_2.mp4"] and workspace.videos() == [
        "v.mp4",
        "v_2.mp4",
    ]
    assert first.path.read_bytes() == outcomes[0].path.read_bytes() == undisturbed
    assert all(json.loads((tmp_path / name).read_text())["complete"] for name in ("v.json", "v_2.json"))


def test_of_two_servers_that_choose_the_same_name_at_the_same_moment_one_gets_it(tmp_path, undisturbed, monkeypatch):
    meet, plain = threading.Barrier(2), RunFolder.new_path
    met: set[int] = set()

    def chosen(self):
        path = plain(self)
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            meet.wait(60)
        return path

    monkeypatch.setattr(RunFolder, "new_path", chosen)
    workspace = RunFolder(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        videos = list(pool.map(lambda one: one.dub().path, (workspace, another(workspace))))
    assert sorted(path.name for path in videos) == ["v.mp4", "v_2.mp4"]
    assert [path.read_bytes() for path in videos] == [undisturbed] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_waits_to_be_continued_keeps_its_name(tmp_path, undisturbed, operations):
    workspace = RunFolder(tmp_path)
    assert die_at(workspace, operations // 2) and (tmp_path / "v.part.mp4").exists()
    assert another(workspace).dub().path.name == "v_2.mp4"
    assert (tmp_path / "v.part.mp4").exists(), "what there is can be watched"
    outcome = workspace.dub()
    assert outcome.path.name == "v.mp4" and outcome.path.read_bytes() == undisturbed
    assert sorted(path.name for path in tmp_path.glob("v*")) == ["v.json", "v.mp4", "v_2.json", "v_2.mp4"]


def test_a_run_that_failed_before_its_first_chunk_leaves_no_file_beside_the_videos(tmp_path):
    workspace = RunFolder(tmp_path)
    workspace.interrupt_at(1)
    assert not list(tmp_path.glob("v*"))


def test_a_finished_video_is_taken_as_it_is_while_it_is_whole(tmp_path, undisturbed):
    workspace = RunFolder(tmp_path)
    first = workspace.dub()
    notes = SessionLog()
    assert workspace.dub(notes=notes).path == first.path and notes.made == []
    first.path.write_bytes(first.path.read_bytes()[:-1])
    again = workspace.dub()
    assert again.path.name == "v_2.mp4" and again.path.read_bytes() == undisturbed
    again.path.unlink()
    assert workspace.dub().path.read_bytes() == undisturbed
    assert workspace.dub(start_over=True).path.name != again.path.name


def test_another_name_is_another_file_of_the_same_chunks(tmp_path, undisturbed):
    workspace = RunFolder(tmp_path)
    workspace.interrupt_at(3)
    workspace.name = "w.mp4"
    notes = SessionLog()
    outcome = workspace.dub(notes=notes)
    assert outcome.path.name == "w.mp4" and outcome.path.read_bytes() == undisturbed and notes.made == [3]


def test_a_chunk_made_again_changes_it_and_what_follows(tmp_path):
    workspace = RunFolder(tmp_path, job=small_job(40), keep=True)
    first = workspace.dub()
    notes = SessionLog()
    again = workspace.dub(notes=notes, redo="3=77")
    assert (notes.joined, notes.made) == ([1, 2], [3, 4, 5]) and again.path != first.path
    assert again.path.read_bytes() != first.path.read_bytes()
    # Undone, nothing is made again.
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == first.path.read_bytes() and notes.made == []
    # And a fresh run with the same wish comes to the same video.
    other = RunFolder(tmp_path / "other", job=small_job(40))
    other.root.mkdir()
    assert other.dub(redo="3=77").path.read_bytes() == again.path.read_bytes()


def test_a_chunk_made_again_with_the_following_ones_kept(tmp_path):
    workspace = RunFolder(tmp_path, job=small_job(40), keep=True)
    first = json.loads(workspace.dub().report)["chunks"]
    notes = SessionLog()
    redone = json.loads(workspace.dub(notes=notes, redo="3@0.5", after_redo=AfterRedo.KEEP).report)["chunks"]
    assert (notes.joined, notes.made) == ([1, 2, 4, 5], [3])
    assert redone[2]["reference_frames"] == [12] and first[2]["reference_frames"] == [0]
    assert redone[4] == first[4]
    other = RunFolder(tmp_path / "other", job=small_job(40))
    other.root.mkdir()
    fresh = other.dub(redo="3@0.5", after_redo=AfterRedo.KEEP).path.read_bytes()
    assert fresh == workspace.dub(redo="3@0.5", after_redo=AfterRedo.KEEP).path.read_bytes()


@pytest.mark.parametrize(
    ("redo", "sentence"),
    [
        ("four", "'four' is no chunk to redo; write chunk=seed or chunk@seconds"),
        ("9=1", "there is no chunk 9 to redo: this video has chunks 1 to 3"),
        ("2@50", "chunk 2 cannot use the source at 50 s: it lasts 1.2 s from 0"),
        ("2=-1", "the seed of chunk 2 must be between 0 and"),
        ("2", "chunk 2 would come out as it is: give another seed, such as 2=77"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(tmp_path, redo, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        RunFolder(tmp_path).dub(redo=redo)


def test_tails_do_not_fill_the_disk(tmp_path):
    workspace = RunFolder(tmp_path, job=small_job(13 + 8 * 12))
    most: list[int] = []

    def count(now: int) -> None:
        most.append(len(list(workspace.folder.glob("*.context"))))

    workspace.dub(notes=SessionLog(on_chunk=count))
    assert max(most) <= 3, "the last two and every eighth"


def test_shots_begin_afresh_after_a_crash_too(tmp_path):
    def job():
        source = PictureBatch(torch.rand(45, 32, 48, 3, generator=torch.Generator().manual_seed(5)))
        return small_job(40, source=source, settings=ReferenceSettings(Policy.CHUNK_START), cuts=(14, 30))

    calm = RunFolder(tmp_path / "a", job=job())
    calm.root.mkdir()
    whole = calm.dub().path.read_bytes()
    for chunk in range(1, len(job().plan) + 1):
        workspace = RunFolder(tmp_path / f"b{chunk}", job=job())
        workspace.root.mkdir()
        workspace.interrupt_at(chunk)
        assert workspace.dub().path.read_bytes() == whole


def test_a_source_that_changes_stops_the_run(tmp_path, monkeypatch):
    workspace = RunFolder(tmp_path)
    monkeypatch.setattr(type(workspace.job.reference.source), "changed", lambda self: True)
    with pytest.raises(RunError, match="the source file was changed while the video was being made"):
        workspace.dub()


def test_files_of_another_run_with_the_same_plan_are_not_taken(tmp_path, undisturbed):
    """As when somebody copies a run's folder over another one, or renames it: its chunks show other pictures."""
    other = RunFolder(tmp_path / "other", job=small_job(source=PictureBatch(torch.zeros(30, 32, 48, 3))), keep=True)
    other.root.mkdir()
    other.dub()
    workspace = RunFolder(tmp_path / "mine", key="fedcba9876543210")
    shutil.copytree(other.folder, workspace.folder)
    assert list(workspace.folder.glob("0*.json"))
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == undisturbed
    assert notes.made == [1, 2, 3] and notes.joined == []


VERSIONS = {"job": {"seed": 0}, "versions": {"torch": "2.9", "pack": "1"}, "precision": {"fast": []}}


def begun(tmp_path: Path, key_contents: dict[str, Any], key: str = "00aa") -> RunFolder:
    """A run of this description that was stopped in its third chunk."""
    workspace = RunFolder(tmp_path, key=key, key_contents=key_contents)
    workspace.interrupt_at(3)
    return workspace


def test_after_an_upgrade_it_is_said_what_changed_and_what_is_lost(tmp_path):
    begun(tmp_path, VERSIONS)
    now = {**VERSIONS, "versions": {"torch": "2.10", "pack": "1"}, "precision": {"fast": ["fp16"]}}
    notes = SessionLog()
    RunFolder(tmp_path, key="11bb", key_contents=now).dub(notes=notes)
    (warning,) = notes.warned
    assert "torch was 2.9 and is now 2.10" in warning and "fast was [] and is now ['fp16']" in warning
    assert "2 finished chunks (under a minute of work) in 00aa are not used" in warning
    assert notes.made == [1, 2, 3]


@pytest.mark.parametrize(
    "now",
    [
        VERSIONS,
        {**VERSIONS, "job": {"seed": 1}},
        {**VERSIONS, "job": {"seed": 1}, "versions": {}},
        {**VERSIONS, "job": {"seed": None}, "versions": {}},
        {**VERSIONS, "job": {"seed": 0, "components": {"positive": {"fingerprint": 2}}}},
    ],
    ids=["nothing", "the job", "both", "a setting taken away", "a setting that is new, in the same version"],
)
def test_where_something_else_changed_nothing_is_said(tmp_path, now):
    begun(tmp_path, VERSIONS)
    notes = SessionLog()
    RunFolder(tmp_path, key="11bb", key_contents=now).dub(notes=notes)
    assert notes.warned == []


def test_an_upgrade_may_bring_new_settings_and_encode_the_prompt_otherwise(tmp_path):
    text = {"components": {"positive": {"fingerprint": "a"}}}
    begun(tmp_path, {**VERSIONS, "job": {"seed": 0, **text}})
    other = {"components": {"positive": {"fingerprint": "b"}}}
    notes = SessionLog()
    now = {**VERSIONS, "job": {"seed": 0, "new_setting": 0.5, **other}, "versions": {"torch": "3", "pack": "2"}}
    RunFolder(tmp_path, key="11bb", key_contents=now).dub(notes=notes)
    (warning,) = notes.warned
    assert "this job, or one with another prompt, was begun before" in warning and "pack was 1 and is now 2" in warning


def test_a_finished_run_of_another_version_is_no_loss(tmp_path):
    RunFolder(tmp_path, key="00aa", key_contents=VERSIONS).dub()
    notes = SessionLog()
    RunFolder(tmp_path, key="11bb", key_contents={**VERSIONS, "versions": {}}).dub(notes=notes)
    assert notes.warned == []

"""The batch client's output folder: it replaces and deletes only what it made itself, and no damage there stops it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the client needs aiohttp, which ComfyUI brings")

REPO = Path(__file__).resolve().parents[2]
sys.path += [str(REPO / "tests" / "support")]

from dub_runs import contents, dub, make_jobs, out, state_of, states  # noqa: E402
from fake_comfyui import FakeComfyUI  # noqa: E402
from file_names import safe_name, same_file_key, shortened  # noqa: E402
from folder_lock import locked  # noqa: E402

USERS = b"the user's only copy"
REDO = ("--set", "ChunkSampler.seed=1")


def video(name: str) -> bytes:
    return f"video dubbed/{name}_00001_.mp4".encode()


@pytest.mark.parametrize("out_name", ["jobs", "./jobs/", "link"])
def test_the_folder_of_the_jobs_is_no_output_folder(tmp_path, capsys, out_name):
    jobs = make_jobs(tmp_path)
    (tmp_path / "link").symlink_to(jobs)
    before = contents(jobs)
    with FakeComfyUI() as server:
        assert dub(jobs, server, more=("--out", f"{tmp_path}/{out_name}")) == 2
        assert not server.prompts
    assert contents(jobs) == before
    assert "--out is the folder of the jobs" in capsys.readouterr().err


def test_a_list_beside_its_films_may_put_videos_there_and_replaces_none(tmp_path):
    jobs = make_jobs(tmp_path)
    before = contents(jobs)
    listed = jobs / "jobs.jsonl"
    listed.write_text('{"source": "anna.mp4", "voice": "anna.wav"}\n{"source": "ben.mp4", "voice": "ben.wav"}\n')
    with FakeComfyUI() as server:
        assert dub(listed, server, more=("--out", str(jobs))) == 0
        assert dub(listed, server, more=("--out", str(jobs), *REDO)) == 0
    after = contents(jobs)
    assert {name: after[name] for name in before} == before
    assert after["anna (2).mp4"] == video("anna") and "anna (3).mp4" not in after


def an_edited_result(folder: Path) -> None:
    (folder / "anna.mp4").write_bytes(USERS)


def an_edit_of_the_same_size(folder: Path) -> None:
    (folder / "anna.mp4").write_bytes(USERS.ljust(len(video("anna")), b".")[: len(video("anna"))])


def a_folder(folder: Path) -> None:
    (folder / "anna.mp4").unlink(missing_ok=True)
    (folder / "anna.mp4").mkdir()


def a_link_to_another_film(folder: Path) -> None:
    (folder / "anna.mp4").unlink(missing_ok=True)
    (folder.parent / "elsewhere.mp4").write_bytes(USERS)
    (folder / "anna.mp4").symlink_to(folder.parent / "elsewhere.mp4")


def a_dangling_link(folder: Path) -> None:
    (folder / "anna.mp4").unlink(missing_ok=True)
    (folder / "anna.mp4").symlink_to(folder.parent / "nowhere.mp4")


def in_capitals(folder: Path) -> None:
    (folder / "anna.mp4").unlink(missing_ok=True)
    (folder / "ANNA.MP4").write_bytes(USERS)


def an_edited_report(folder: Path) -> None:
    (folder / "anna.json").write_bytes(USERS)


OBSTACLES = [
    an_edited_result,
    an_edit_of_the_same_size,
    a_folder,
    a_link_to_another_film,
    a_dangling_link,
    in_capitals,
    an_edited_report,
]


def listing(folder: Path) -> dict[str, Any]:
    """What is there, of the user: a file's content, a link's target, a folder."""
    return {
        path.name: os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in folder.iterdir()
        if path.name.casefold().startswith("anna")
    }


@pytest.mark.parametrize("made_before", [True, False])
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_another_hand_made_stays_and_the_result_gets_another_name(tmp_path, obstacle, made_before, capsys):
    jobs = make_jobs(tmp_path, ("anna",))
    out(jobs).mkdir()
    with FakeComfyUI() as server:
        if made_before:
            assert dub(jobs, server) == 0
        obstacle(out(jobs))
        before = listing(out(jobs))
        server.broken_reports = False
        capsys.readouterr()
        assert dub(jobs, server, more=REDO) == 0
    after, record = listing(out(jobs)), state_of(jobs)["anna"]
    theirs = "anna.json" if obstacle is an_edited_report else next(n for n in before if n.casefold() == "anna.mp4")
    assert after[theirs] == before[theirs]
    assert (out(jobs) / record["video"]).read_bytes() == video("anna")
    assert json.loads((out(jobs) / record["report"]).read_text())["state"] == "finished"
    assert theirs not in (record["video"], record["report"])
    assert "it is kept, this is anna (2)" in capsys.readouterr().out
    assert not (tmp_path / "nowhere.mp4").exists()


def test_a_result_of_ours_that_nobody_changed_is_replaced(tmp_path):
    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
        names = set(contents(out(jobs)))
        assert dub(jobs, server, more=("--prefix", "other", *REDO)) == 0
    assert set(contents(out(jobs))) == names
    assert (out(jobs) / "anna.mp4").read_bytes() == b"video other/anna_00001_.mp4"


def test_a_result_that_became_an_input_is_not_replaced(tmp_path):
    """The state notes it as made by this program, and a later list takes it for its source."""
    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
        listed = jobs / "second.jsonl"
        listed.write_text('{"source": "../out/anna.mp4", "voice": "anna.wav", "name": "anna"}')
        assert dub(listed, server, more=("--prefix", "second")) == 0
    assert (out(jobs) / "anna.mp4").read_bytes() == video("anna")
    assert (out(jobs) / "anna (2).mp4").read_bytes() == b"video second/anna_00001_.mp4"


@pytest.mark.parametrize("other", ["Anna", "ANNA", "anná", "anna\u0301"])
def test_names_that_are_one_file_on_some_systems_are_two_results(tmp_path, other):
    first = "anná" if other == "anna\u0301" else "anna"
    jobs = make_jobs(tmp_path, (first, other))
    with FakeComfyUI() as server:
        status = dub(jobs, server)
    if other == "anna\u0301":
        assert status == 2, "the two look the same: one has to be renamed"
        return
    assert status == 0
    made = [state_of(jobs)[name]["video"] for name in state_of(jobs)]
    assert len({same_file_key(name) for name in made}) == 2
    assert {(out(jobs) / name).read_bytes() for name in made} == {video(first), video(other)}


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("anna", "anna"),
        ("安娜 take 2", "安娜 take 2"),
        ("CON", "_CON"),
        ("nul.take", "_nul.take"),
        ("lpt1", "_lpt1"),
        ("COM¹", "_COM¹"),
        ("anna. ", "anna"),
        ("...", "_"),
        (".hidden", "hidden"),
        ('a<b>:"c|d?*', "a_b___c_d__"),
        ("a\x00b\nc\x7f", "a_b_c_"),
        ("a\udce9", "a_"),
        ("e\u0301", "é"),
        ("", "_"),
        ("..\\..\\x", "_.._x"),
    ],
)
def test_names_are_valid_on_every_system(name, safe):
    assert safe_name(name) == safe
    assert safe_name(safe) == safe


def test_a_long_name_is_cut_and_stays_its_own():
    first, second = shortened("é" * 200, 150), shortened("é" * 200 + "b", 150)
    assert len(first.encode()) <= 150 and first != second and first.startswith("ééé")
    assert shortened("anna", 150) == "anna"


@pytest.mark.parametrize("name", ["a" * 245, "é" * 123, "100%date%"])
def test_a_name_that_a_server_cannot_store_is_made_under_another(tmp_path, name):
    jobs = make_jobs(tmp_path, (name, "ben"))
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
    for workflow in server.prompts:
        prefix = workflow["31"]["inputs"]["filename_prefix"]
        assert len(prefix.encode()) < 170 and "%" not in prefix
    assert all(len(upload.rpartition("/")[2].encode()) < 130 for upload in server.uploads)
    assert states(jobs) == {name: "finished", "ben": "finished"}


@pytest.mark.parametrize("name", ["Dub_Folder", "dub_folder"])
def test_no_job_takes_the_place_of_the_state(tmp_path, name):
    with FakeComfyUI() as server:
        assert dub(make_jobs(tmp_path, (name,)), server) == 2


# -- the state file


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    state = json.loads(path.read_text())
    edit(state)
    path.write_text(json.dumps(state))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00\xd8"),
    "a list": lambda path: path.write_text("[]"),
    "a number": lambda path: path.write_text("NaN"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "jobs is a list": lambda path: change(path, lambda s: s.update(jobs=[1])),
    "a job is a number": lambda path: change(path, lambda s: s["jobs"].update(anna=5)),
    "a wrong state": lambda path: change(path, lambda s: s["jobs"]["anna"].update(state="lost")),
    "attempts is a text": lambda path: change(path, lambda s: s["jobs"]["anna"].update(attempts="x")),
    "seconds is negative": lambda path: change(path, lambda s: s["jobs"]["anna"].update(seconds=-1)),
    "warnings holds numbers": lambda path: change(path, lambda s: s["jobs"]["anna"].update(warnings=[1])),
    "video is a list": lambda path: change(path, lambda s: s["jobs"]["anna"].update(video=[])),
    "an unknown field": lambda path: change(path, lambda s: s["jobs"]["anna"].update(new=1)),
    "an unknown job": lambda path: change(path, lambda s: s["jobs"].update(nobody={"state": "queued"})),
    "made is a text": lambda path: change(path, lambda s: s.update(made="x")),
    "a made file is a text": lambda path: change(path, lambda s: s["made"].update({"anna.mp4": "x"})),
    "parts is a number": lambda path: change(path, lambda s: s.update(parts=5)),
    "no field but the state": lambda path: change(path, lambda s: s["jobs"].update(anna={"state": "finished"})),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_repaired_and_said_and_loses_no_result(tmp_path, damage, capsys):
    jobs = make_jobs(tmp_path, ("anna", "ben"))
    path = out(jobs) / "dub_folder.json"
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
        (out(jobs) / "ben.mp4").write_bytes(USERS)
        results = {name: content for name, content in contents(out(jobs)).items() if name.endswith("mp4")}
        DAMAGE[damage](path)
        capsys.readouterr()
        assert dub(jobs, server) == 0
    after = contents(out(jobs))
    assert {name: after[name] for name in results} == results
    assert "anna (2).mp4" not in after, "the same video is recognized"
    assert states(jobs)["anna"] == states(jobs)["ben"] == "finished"
    if damage not in ("an unknown field", "an unknown job", "no field but the state", "parts is a number"):
        said = capsys.readouterr().out
        assert "was damaged" in said or "and the jobs are looked at anew" in said
        assert "Error" not in said


def test_a_job_whose_prompt_is_lost_interrupts_nobody(tmp_path):
    """An interrupt without a prompt stops whatever the server does, of other people too."""
    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
        path = out(jobs) / "dub_folder.json"
        lost = {"state": "queued", "server": server.url, "prompt": ""}
        change(path, lambda state: state["jobs"]["anna"].update(lost))

        asked: list[str] = []

        async def stop(request: Any) -> None:
            asked.append(request.path)
            if len(asked) == 1:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0.3)

        server.answer = stop
        assert dub(jobs, server) == 1
        assert "/interrupt" not in asked


@pytest.mark.parametrize("name", ["../jobs/anna.mp4", "/etc/hosts", ".dub_folder-x/../../jobs/anna.mp4", "ben.mp4"])
def test_a_state_cannot_name_files_to_delete_or_replace(tmp_path, name):
    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
        (out(jobs) / "ben.mp4").write_bytes(USERS)
        path = out(jobs) / "dub_folder.json"
        change(path, lambda state: state["jobs"]["anna"].update(video=name, report=name))
        change(path, lambda state: state.update(parts=[name], made={name: state["made"]["anna.mp4"]}))
        before = contents(jobs)
        assert dub(jobs, server, more=REDO) == 0
    assert contents(jobs) == before and (out(jobs) / "ben.mp4").read_bytes() == USERS


def test_what_a_kill_left_of_a_download_is_removed_and_nothing_else(tmp_path):
    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
        for name in (".dub_folder-1.part", ".dub_folder-mine.part", "anna.mp4.new"):
            (out(jobs) / name).write_bytes(USERS)
        change(out(jobs) / "dub_folder.json", lambda state: state.update(parts=[".dub_folder-1.part"]))
        assert dub(jobs, server, more=REDO) == 0
    left = {name for name in contents(out(jobs)) if "part" in name or "new" in name}
    assert left == {".dub_folder-mine.part", "anna.mp4.new"}
    assert (out(jobs) / "anna.mp4.new").read_bytes() == USERS


def test_a_state_that_is_no_file_is_named(tmp_path, capsys):
    jobs = make_jobs(tmp_path, ("anna",))
    (out(jobs) / "dub_folder.json").mkdir(parents=True)
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 2
    assert "dub_folder.json is no file: move it away" in capsys.readouterr().err


def test_an_older_state_is_read(tmp_path):
    """Of version 1: without notes of what was made."""
    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
        change(out(jobs) / "dub_folder.json", lambda s: (s.pop("made"), s.pop("parts"), s.update(version=1)))
        assert dub(jobs, server) == 0
        assert len(server.prompts) == 1


def test_a_second_program_on_the_same_folder_is_refused(tmp_path, capsys):
    jobs = make_jobs(tmp_path, ("anna",))
    out(jobs).mkdir()
    holder = (
        f"import sys; sys.path.append({str(REPO / 'client')!r}); from pathlib import Path; import folder_lock\n"
        f"with folder_lock.locked(Path({str(out(jobs))!r})): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with FakeComfyUI() as server:
            assert dub(jobs, server) == 2
            assert not server.prompts
            assert "another dub_folder is at work in" in capsys.readouterr().err
            other.kill()
            other.wait()
            assert dub(jobs, server) == 0, "the lock of a program that was killed is free"


@pytest.mark.parametrize("number", ["EACCES", "ENOLCK", "EOPNOTSUPP", "EINVAL"])
def test_a_drive_without_locks_is_used_and_said(tmp_path, monkeypatch, capsys, number):
    import errno

    import folder_lock

    def fail(handle: int) -> None:
        raise OSError(getattr(errno, number), "no locks here")

    monkeypatch.setattr(folder_lock, "_try_lock", fail)
    with locked(tmp_path):
        assert "on a drive without locks" in capsys.readouterr().out


# -- the disk


def test_a_full_disk_while_a_video_is_fetched_fails_this_job_and_leaves_no_part(tmp_path, monkeypatch):
    import comfy_client

    real = comfy_client.ComfyClient.save

    async def save(self: Any, file: dict[str, str], scratch: Path) -> Any:
        if "ben" in file["filename"]:
            scratch.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(scratch))
        return await real(self, file, scratch)

    monkeypatch.setattr(comfy_client.ComfyClient, "save", save)
    jobs = make_jobs(tmp_path)
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 1
        assert states(jobs) == {"anna": "finished", "ben": "failed", "cleo": "finished"}
        error = state_of(jobs)["ben"]["error"]
        assert "cannot be fetched" in error and "No space left on device" in error and "Errno" not in error
        assert not [name for name in contents(out(jobs)) if name.endswith(".part")]
        monkeypatch.undo()
        assert dub(jobs, server) == 0


def test_a_state_that_cannot_be_written_for_a_while_stops_nothing(tmp_path, monkeypatch, capsys):
    import job_state

    jobs = make_jobs(tmp_path)
    real, calls = job_state.StateFile._write, {"number": 0}

    def write(self: Any) -> None:
        calls["number"] += 1
        if 2 <= calls["number"] <= 12:
            raise OSError(28, "No space left on device")
        real(self)

    monkeypatch.setattr(job_state.StateFile, "_write", write)
    with FakeComfyUI() as server:
        assert dub(jobs, server) == 0
    said = capsys.readouterr().out
    assert said.count("cannot be written: No space left on device") == 1
    assert set(states(jobs).values()) == {"finished"}


@pytest.mark.parametrize("kind", ["file", "below a file", "long"])
def test_an_output_folder_that_cannot_be_one_is_named(tmp_path, capsys, kind):
    (tmp_path / "taken").write_bytes(b"")
    where = {"file": "taken", "below a file": "taken/out", "long": "x" * 300}[kind]
    with FakeComfyUI() as server:
        assert dub(make_jobs(tmp_path), server, more=("--out", str(tmp_path / where))) == 2
    said = capsys.readouterr().err
    assert said.startswith("--out") and said.count("\n") == 1 and "Errno" not in said

"""The client for folders of jobs: every job becomes a video, whatever servers and people do in between."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the client needs aiohttp, which ComfyUI brings")

REPO = Path(__file__).resolve().parents[2]
sys.path += [str(REPO / "client"), str(REPO / "tests" / "support")]

import dub_folder  # noqa: E402
from fake_comfyui import FakeComfyUI  # noqa: E402
from jobs import Job, JobError, fill_workflow, read_jobs  # noqa: E402

WORKFLOW = {
    "12": {"class_type": "InfiniteTalkLoadVoice", "inputs": {"path": ""}},
    "11": {"class_type": "InfiniteTalkSpeechEncode", "inputs": {"audio": ["12", 0]}},
    "20": {"class_type": "InfiniteTalkLoadSource", "inputs": {"path": ""}},
    "21": {"class_type": "InfiniteTalkReferencePicker", "inputs": {"image": ["20", 0], "video": ["20", 1]}},
    "31": {"class_type": "InfiniteTalkChunkSampler", "inputs": {"seed": 0, "filename_prefix": "x"}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three jobs, and files that are none."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    for name in ("anna.png", "anna.wav", "ben.mp4", "ben.flac", "cleo.mov", "cleo.wav", "lonely.wav", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    return folder


def dub(folder: Path, *servers: FakeComfyUI, more: tuple[str, ...] = ()) -> int:
    """The program's exit status."""
    out, workflow = folder.parent / "out", folder.parent / "workflow.json"
    urls = [part for server in servers for part in ("--server", server.url)]
    fixed = ["--out", str(out), "--workflow", str(workflow), "--look", "0.1", "--patience", "0.1"]
    return dub_folder.main([str(folder), *fixed, *urls, *more])


def state_of(folder: Path) -> dict:
    return json.loads((folder.parent / "out" / "dub_folder.json").read_text())["jobs"]


def videos(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder.parent / "out").glob("*.m*"))


def test_a_folder_becomes_videos_with_their_reports(folder, capsys):
    with FakeComfyUI() as server:
        assert dub(folder, server) == 0
    assert videos(folder) == ["anna.mp4", "ben.mp4", "cleo.mp4"]
    assert (folder.parent / "out" / "ben.mp4").read_bytes() == b"video dubbed/ben_00001_.mp4"
    report = json.loads((folder.parent / "out" / "ben.json").read_text())
    assert report["state"] == "finished" and report["folder"].startswith("infinitetalk_runs/")
    said = capsys.readouterr().out
    assert "[anna] chunk 2/3, step 1/1, 9 s left" in said
    assert "anna  finished" in said and "anna.mp4; the source ends early" in said
    (name,) = [name for name in server.uploads if "ben" in name and name.endswith(".mp4")]
    assert server.uploads[name] == b"ben.mp4"
    (workflow,) = [w for w in server.prompts if "ben" in w["20"]["inputs"]["path"]]
    assert workflow["20"]["inputs"]["path"] == name
    assert server.most_at_once == 2, "one at work, one waiting"


def test_what_is_finished_is_not_made_again_unless_it_has_changed(folder, monkeypatch):
    with FakeComfyUI() as server:
        assert dub(folder, server) == 0
        monkeypatch.chdir(folder)
        assert dub(Path("../jobs"), server) == 0, "by another name of the same folder"
        assert len(server.prompts) == 3
        (folder / "anna.wav").write_bytes(b"another voice")
        (folder.parent / "out" / "ben.mp4").unlink()
        uploaded = dict(server.uploads)
        assert dub(folder, server) == 0
    assert len(server.prompts) == 5
    assert len(server.uploads) == len(uploaded) + 1, "a file that is there is not sent again"


def times_queued(server: FakeComfyUI, name: str) -> int:
    return sum(name in workflow["20"]["inputs"]["path"] for workflow in server.prompts)


def test_a_server_that_was_there_for_longer_than_our_patience_is_waited_for_too(folder):
    """The patience is counted from when it went away: jobs of hours are the rule."""
    with FakeComfyUI(lambda workflow, count: "crash" if count == 2 else "success") as server:
        assert dub(folder, server, more=("--patience", "0.005")) == 0
    assert videos(folder) == ["anna.mp4", "ben.mp4", "cleo.mp4"]


@pytest.mark.parametrize("lost", [1, 4])
def test_a_job_whose_answer_was_lost_on_the_way_is_not_queued_twice(folder, lost):
    """The first time it is queued, or when it is queued again after an accident."""
    with FakeComfyUI(lambda workflow, count: "error" if count == 2 else "success") as server:
        server.answers = lambda number: "never" if number == lost else "at once"
        assert dub(folder, server) == 0
    assert len(server.prompts) == 4, "three jobs, of which one failed once"
    assert videos(folder) == ["anna.mp4", "ben.mp4", "cleo.mp4"]


@pytest.mark.parametrize("how", ["crash", "crash at once", "error"])
def test_a_server_that_fails_once_is_asked_again(folder, how):
    with FakeComfyUI(lambda workflow, count: how if count == 1 else "success") as server:
        assert dub(folder, server) == 0
    assert videos(folder) == ["anna.mp4", "ben.mp4", "cleo.mp4"]


def test_a_job_that_never_comes_further_is_given_up_and_the_others_are_made(folder, capsys):
    def behave(workflow, count):
        return "error" if "ben" in workflow["20"]["inputs"]["path"] else "success"

    with FakeComfyUI(behave) as server:
        assert dub(folder, server, more=("--retries", "1")) == 1
    assert videos(folder) == ["anna.mp4", "cleo.mp4"]
    entry = state_of(folder)["ben"]
    assert entry["state"] == "failed" and entry["error"] == "InfiniteTalkChunkSampler: made up: error"
    assert times_queued(server, "ben") == 2
    assert "ben   failed" in capsys.readouterr().out


def test_what_a_person_must_mend_is_not_tried_again(folder):
    with FakeComfyUI(lambda workflow, count: "InputError") as server:
        assert dub(folder, server) == 1
        assert len(server.prompts) == 3
        server.refuse = "there is no anna.wav"
        assert dub(folder, server) == 1
    assert state_of(folder)["anna"]["error"] == "InfiniteTalkLoadVoice: there is no anna.wav"


def test_a_video_that_cannot_be_fetched_fails_its_job_only(folder):
    with FakeComfyUI() as server:
        server.lost_files = True
        assert dub(folder, server) == 1
        assert "the video is made, but cannot be fetched" in state_of(folder)["anna"]["error"]
        server.lost_files = False
        assert dub(folder, server) == 0, "fetched at the next start"


def test_a_report_that_cannot_be_read_costs_nothing_but_itself(folder):
    with FakeComfyUI() as server:
        server.broken_reports = True
        assert dub(folder, server) == 0
    assert videos(folder) == ["anna.mp4", "ben.mp4", "cleo.mp4"]
    assert state_of(folder)["anna"]["warnings"] == ["there is no report"]


def test_two_servers_share_the_jobs_and_one_takes_over_for_the_other(folder):
    with FakeComfyUI() as first:
        with FakeComfyUI() as second:
            assert dub(folder, first, second) == 0
            assert first.prompts and second.prompts
        (folder.parent / "out" / "dub_folder.json").unlink()
        asked = len(first.prompts)
        assert dub(folder, first, second, more=("--patience", "0.005")) == 0, "the second is gone"
        assert len(first.prompts) == asked + 3


def test_without_any_server_every_job_has_failed(folder, capsys):
    with FakeComfyUI() as server:
        pass
    assert dub(folder, server, more=("--patience", "0.005")) == 1
    assert "no server is left" in state_of(folder)["anna"]["error"]
    assert "is away, next try in 1 s" in capsys.readouterr().out


@contextlib.contextmanager
def pressing_control_c(server: FakeComfyUI) -> Iterator[None]:
    """Soon after the server has got its first job."""

    def press() -> None:
        while not server.prompts:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    yield
    presser.join()


def test_what_is_no_comfyui_is_given_up_and_the_others_do_its_work(folder, capsys):
    with FakeComfyUI() as server:
        assert dub(folder, server, more=("--server", f"{server.url}/elsewhere", "--patience", "0")) == 0
        assert len(server.prompts) == 3
    assert "/elsewhere] is given up: /elsewhere/system_stats answered 404" in capsys.readouterr().out


def test_an_address_may_be_given_as_people_write_it(folder):
    with FakeComfyUI() as server:
        assert dub(folder, more=("--server", server.url.removeprefix("http://") + "/")) == 0


def test_control_c_while_a_job_is_being_queued_leaves_nothing_going(folder):
    with FakeComfyUI(lambda workflow, count: "wait") as server:
        server.answers = lambda number: "slowly"
        with pressing_control_c(server):
            assert dub(folder, server) == 1
        assert len(server.cancelled) == len(server.prompts) == 1
    assert sorted(entry["state"] for entry in state_of(folder).values()) == ["interrupted", "waiting", "waiting"]


def test_control_c_interrupts_the_jobs_and_the_next_start_goes_on(folder):
    hang = {"on": True}
    with FakeComfyUI(lambda workflow, count: "wait" if hang["on"] else "success") as server:
        before = signal.getsignal(signal.SIGINT)
        with pressing_control_c(server):
            assert dub(folder, server) == 1
        assert signal.getsignal(signal.SIGINT) is before, "and then Ctrl+C is what it was"
        assert len(server.cancelled) == 2, "the one at work and the one waiting"
        assert sorted(entry["state"] for entry in state_of(folder).values()) == [
            "interrupted",
            "interrupted",
            "waiting",
        ]
        hang["on"] = False
        assert dub(folder, server) == 0
    assert videos(folder) == ["anna.mp4", "ben.mp4", "cleo.mp4"]


def test_a_client_that_was_killed_finds_its_jobs_on_the_server(folder, capsys):
    """As a kill leaves it: the state says that a job is queued, and the server has finished it meanwhile."""
    with FakeComfyUI() as server:
        assert dub(folder, server) == 0
        path = folder.parent / "out" / "dub_folder.json"
        state = json.loads(path.read_text())
        for name in ("anna", "ben"):
            (folder.parent / "out" / f"{name}.mp4").unlink()
            state["jobs"][name].update(state="queued", server=server.url, prompt="lost")
        done = next(iter(server._history))
        state["jobs"]["anna"]["prompt"] = done
        path.write_text(json.dumps(state))
        assert dub(folder, server) == 0
        assert len(server.prompts) == 4, "the first is fetched, the second is queued again"
    assert f"[anna] is on {server.url} already" in capsys.readouterr().out


def test_a_list_names_files_and_settings(folder):
    (folder / "jobs.jsonl").write_text(
        '{"source": "anna.png", "voice": "ben.flac", "set": {"ChunkSampler.seed": 7}}\n\n'
        '{"source": "ben.mp4", "voice": "ben.flac", "name": "ben / take 2"}\n'
    )
    jobs = read_jobs(folder / "jobs.jsonl")
    assert [job.name for job in jobs] == ["anna_ben", "ben_take_2"]
    filled = fill_workflow(WORKFLOW, jobs[0], "a.png", "b.flac", "night")
    assert filled["31"]["inputs"] == {"seed": 7, "filename_prefix": "night/anna_ben"}
    assert WORKFLOW["31"]["inputs"]["seed"] == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"source": "anna.png"}', "line 1 of jobs.jsonl is not"),
        ('{"source": "anna.png", "voice": "nobody.wav"}', "there is no file"),
        ("[1]", "line 1 of jobs.jsonl is not"),
    ],
)
def test_a_wrong_list_is_refused_in_a_sentence(folder, line, says):
    (folder / "jobs.jsonl").write_text(line)
    with pytest.raises(JobError, match=says):
        read_jobs(folder / "jobs.jsonl")


def test_a_list_may_come_from_a_windows_editor(folder):
    (folder / "jobs.jsonl").write_text('{"source": "anna.png", "voice": "anna.wav"}\n', encoding="utf-8-sig")
    assert [job.name for job in read_jobs(folder / "jobs.jsonl")] == ["anna"]
    (folder / "jobs.jsonl").write_text('{"source": "anna.png", "voice": "anna.wav"}\n', encoding="utf-16")
    with pytest.raises(JobError, match=r"jobs.jsonl is no text in UTF-8: save it anew"):
        read_jobs(folder / "jobs.jsonl")


def test_a_pair_must_be_clear(folder):
    (folder / "anna.mp3").write_bytes(b"another voice")
    with pytest.raises(JobError, match=r"anna.mp3 and anna.wav are both the voice of 'anna': take one out"):
        read_jobs(folder)


def test_files_without_a_partner_are_named(folder, capsys):
    with FakeComfyUI() as server:
        assert dub(folder, server) == 0
    assert "no partner of the same name, left out: lonely.wav" in capsys.readouterr().out


def test_a_job_cannot_take_the_place_of_the_state_file(folder):
    (folder / "jobs.jsonl").write_text('{"source": "anna.png", "voice": "anna.wav", "name": "dub_folder"}')
    with FakeComfyUI() as server:
        assert dub(folder / "jobs.jsonl", server, more=("--workflow", str(folder.parent / "workflow.json"))) == 2
        assert not server.prompts


def test_a_log_that_cannot_hold_a_name_stops_nothing(folder, monkeypatch):
    """As a file on Windows, to which the output is sent."""
    for name in ("anna.png", "anna.wav"):
        (folder / name).rename(folder / f"安娜{Path(name).suffix}")
    log = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(log, encoding="cp1252", write_through=True))
    with FakeComfyUI() as server:
        assert dub(folder, server) == 0
    assert videos(folder) == ["ben.mp4", "cleo.mp4", "安娜.mp4"] and b"[??] queued" in log.getvalue()


@pytest.mark.parametrize("content", ['{"last_node_id": 3, "nodes": []}', '{"id": "x", "nodes": []}', "[]"])
def test_a_workflow_in_the_other_format_is_refused_in_a_sentence(folder, capsys, content):
    (folder.parent / "workflow.json").write_text(content)
    with FakeComfyUI() as server:
        assert dub(folder, server) == 2
    assert "is not in API format; in ComfyUI choose Workflow > Export (API)" in capsys.readouterr().err


def test_what_a_workflow_cannot_take_is_said_before_anything_is_queued(folder, capsys):
    job = Job("a", folder / "ben.mp4", folder / "ben.flac")
    picture_only = {**WORKFLOW, "20": {"class_type": "LoadImage", "inputs": {"image": ""}}}
    with pytest.raises(JobError, match=r"LoadImage cannot load ben.mp4: it takes .png"):
        fill_workflow(picture_only, job, "ben.mp4", "ben.flac", "x")
    with pytest.raises(JobError, match="must have one node that loads the voice"):
        fill_workflow({i: node for i, node in WORKFLOW.items() if i != "12"}, job, "ben.mp4", "ben.flac", "x")
    with FakeComfyUI() as server:
        assert dub(folder, server, more=("--set", "Nothing.seed=1")) == 2
        assert not server.prompts
    assert "the workflow has no Nothing.seed" in capsys.readouterr().err


def test_files_in_the_input_folder_are_used_where_they_are(folder):
    with FakeComfyUI() as server:
        assert dub(folder, server, more=("--input-folder", str(folder.parent))) == 0
    assert not server.uploads
    assert "jobs/anna.png" in {workflow["20"]["inputs"]["path"] for workflow in server.prompts}

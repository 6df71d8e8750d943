"""The batch client and servers that answer wrongly: what fails for one job costs that job, and the others are made."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the client needs aiohttp, which ComfyUI brings")
from aiohttp import web

REPO = Path(__file__).resolve().parents[2]
sys.path += [str(REPO / "tests" / "support")]

from dub_runs import contents, dub, make_jobs, out, state_of, states  # noqa: E402
from fake_comfyui import FakeComfyUI  # noqa: E402
from job_board import JobBoard  # noqa: E402

Response = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATHS = {"upload": "/upload/image", "queue": "/prompt", "ask": "/history/", "fetch": "/view"}
LOGIN_PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>"


def status(number: int, text: str = "", **headers: str) -> Response:
    async def respond(request: web.Request) -> web.Response:
        return web.Response(status=number, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return respond


def body(content: bytes, kind: str = "application/json") -> Response:
    async def respond(request: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind)

    return respond


async def cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def truncated(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"half of it")
    assert request.transport is not None
    request.transport.close()
    return response


HTML = body(LOGIN_PAGE.encode(), "text/html")
ANSWERS: dict[str, Response] = {
    "500": status(500, "500 Internal Server Error\n\nServer got itself in trouble"),
    "501": status(501),
    "507": status(507, "no room"),
    "502": status(502, "<html><title>502 Bad Gateway</title></html>"),
    "503": status(503, "busy"),
    "429": status(429, "too many", Retry_After="1"),
    "401": status(401, LOGIN_PAGE),
    "403": status(403, "Forbidden"),
    "404": status(404),
    "400": status(400, "{}"),
    "413": status(413),
    "redirect": status(302, Location="https://login.example.com/?next=/"),
    "web page": HTML,
    "no JSON": body(b"not JSON"),
    "a list": body(b"[1]"),
    "deep": body(b"[" * 100_000),
    "empty": body(b""),
    "of another form": body(b'{"a": 1}'),
    "cut": cut,
    "truncated": truncated,
}


class Troubled:
    """Answers wrongly about jobs at one stage of theirs: job "a500" gets the answer "500"; each job `times` times."""

    def __init__(self, stage: str, times: int = 10**6) -> None:
        self.stage, self.times = stage, times
        self.given: Counter[str] = Counter()
        self._jobs: dict[str, str] = {}  # by prompt id

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        name = (await self._name(request)).rpartition("/")[2]
        answer = next((key for key in ANSWERS if re.match(f"a{job_name(key)}(_|$)", name)), "")
        concerned = request.path.startswith(PATHS[self.stage]) and request.method != "HEAD"
        if not answer or not concerned or self.given[answer] >= self.times:
            return None
        self.given[answer] += 1
        return await ANSWERS[answer](request)

    async def _name(self, request: web.Request) -> str:
        if request.path == "/upload/image":
            return (await request.post())["image"].filename  # type: ignore[union-attr]
        if request.path == "/prompt":
            content = await request.json()
            name = content["prompt"]["31"]["inputs"]["filename_prefix"]
            self._jobs[content["prompt_id"]] = name
            return name
        if request.path == "/view":
            return request.query["filename"]
        return self._jobs.get(request.path.rpartition("/")[2], "")


def job_name(answer: str) -> str:
    return answer.replace(" ", "-")


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the waits between tries be a hundredth as long."""
    real, put_back = asyncio.sleep, JobBoard.put_back

    async def sleep(seconds: float, *more: Any) -> None:
        await real(seconds / 100 if seconds >= 1 else seconds, *more)

    monkeypatch.setattr("worker.asyncio.sleep", sleep)
    monkeypatch.setattr(JobBoard, "put_back", lambda self, job, wait=0.0: put_back(self, job, wait / 100))


@pytest.mark.parametrize("stage", PATHS)
def test_what_a_server_answers_to_a_job_costs_at_most_this_job(tmp_path, stage, capsys, monkeypatch):
    """Of many jobs two are well; each of the others meets another wrong answer, again and again."""
    quick(monkeypatch)
    bad = [f"a{job_name(answer)}" for answer in ANSWERS]
    jobs = make_jobs(tmp_path, ("before", *bad, "zoe"))
    with FakeComfyUI() as server:
        server.answer = trouble = Troubled(stage)
        assert dub(jobs, server, more=("--retries", "1", "--patience", "0.005")) == 1
        assert states(jobs) == {"before": "finished", "zoe": "finished", **dict.fromkeys(bad, "failed")}
        assert set(trouble.given) == set(ANSWERS)
        assert not [name for name in contents(out(jobs)) if "part" in name or name.startswith("a")]
        errors = {name: state_of(jobs)[name]["error"] for name in bad}
        server.answer = Troubled(stage, times=0)
        assert dub(jobs, server) == 0, "the next start makes them"
    said = capsys.readouterr()
    assert "is given up" not in said.out and "Traceback" not in said.out + said.err
    for error in errors.values():
        assert error and not re.search(
            r"Error\b(?! Server)|Exception|\[Errno|<|0x", error.replace("Server Error", "")
        ), error


@pytest.mark.parametrize("stage", PATHS)
def test_what_passes_costs_nothing(tmp_path, stage, monkeypatch):
    quick(monkeypatch)
    passing = ("500", "502", "503", "429", "cut", "truncated", "web page", "403", "no JSON")
    jobs = make_jobs(tmp_path, tuple(f"a{job_name(answer)}" for answer in passing))
    with FakeComfyUI() as server:
        server.answer = trouble = Troubled(stage, times=1)
        assert dub(jobs, server) == 0
    assert trouble.given == Counter(passing)
    assert len(server.prompts) == len(passing), "none is made twice"


# -- the whole server


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_server_that_answers_nothing_else_is_left_to_the_others(tmp_path, answer, monkeypatch, capsys):
    quick(monkeypatch)

    async def always(request: web.Request) -> web.StreamResponse:
        return await ANSWERS[answer](request)

    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as bad, FakeComfyUI() as good:
        bad.answer = always
        assert dub(jobs, bad, good, more=("--patience", "0.001")) == 0
        assert not bad.prompts
        if answer in ("401", "403", "redirect"):
            (out(jobs) / "anna.mp4").unlink()
            began = time.monotonic()
            assert dub(jobs, bad, more=("--patience", "5")) == 1, "no login comes by waiting"
            assert time.monotonic() - began < 5
            assert "login" in state_of(jobs)["anna"]["error"]
    said = capsys.readouterr().out
    assert "is away" in said or "is busy" in said or "is given up" in said


def test_a_busy_server_is_asked_again_when_it_says(tmp_path, capsys):
    times: list[float] = []

    async def busy(request: web.Request) -> web.Response | None:
        if request.path == "/system_stats":
            times.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "2"}) if len(times) < 2 else None

    with FakeComfyUI() as server:
        server.answer = busy
        assert dub(make_jobs(tmp_path, ("anna",)), server) == 0
    assert times[1] - times[0] > 1.9
    assert "is busy, next try in 2 s (/system_stats answered 429" in capsys.readouterr().out


def test_a_server_that_hangs_is_given_up_after_our_patience(tmp_path, capsys):
    async def hang(request: web.Request) -> None:
        await asyncio.sleep(4)

    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        server.answer = hang
        assert dub(jobs, server, more=("--patience", "0.02")) == 1
    assert "does not answer in time" in state_of(jobs)["anna"]["error"]


def test_the_patience_counts_from_the_last_progress(tmp_path, monkeypatch):
    """A server that answers /system_stats, and nothing that makes a job go on, is no progress."""
    quick(monkeypatch)

    async def fail(request: web.Request) -> web.Response | None:
        return web.Response(status=503) if request.path in ("/prompt", "/queue") else None

    jobs = make_jobs(tmp_path)
    with FakeComfyUI() as server:
        server.answer = fail
        assert dub(jobs, server, more=("--patience", "0.01")) == 1
    assert set(states(jobs).values()) == {"failed"}


def test_a_job_that_kills_the_server_is_given_up_and_the_others_are_made(tmp_path):
    """It is not the one at work whose fault it is, nor those that wait: the one that was just sent."""

    async def die(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/prompt" and "ben" in (await request.text()):
            server._pending, server._running, server._history = [], None, {}  # restarted
            return await cut(request)
        return None

    jobs = make_jobs(tmp_path)
    with FakeComfyUI() as server:
        server.answer = die
        assert dub(jobs, server, more=("--retries", "1")) == 1
    assert states(jobs) == {"anna": "finished", "ben": "failed", "cleo": "finished"}


def test_a_server_that_forgets_every_job_is_not_asked_for_ever(tmp_path):
    """As two servers behind one address do: one takes the job, the other is asked."""

    async def forget(request: web.Request) -> web.Response | None:
        empty = {"queue_running": [], "queue_pending": []} if request.path == "/queue" else {}
        return web.json_response(empty) if request.path.startswith(("/history", "/queue")) else None

    jobs = make_jobs(tmp_path)
    with FakeComfyUI() as server:
        server.answer = forget
        assert dub(jobs, server, more=("--retries", "1")) == 1
    assert {record["error"] for record in state_of(jobs).values()} == {"the server has lost the job"}


@pytest.mark.parametrize("how", ["closes", "refuses", "speaks nonsense"])
def test_a_websocket_is_not_needed(tmp_path, how, capsys, monkeypatch):
    quick(monkeypatch)
    nonsense = ["not JSON", "[1]", "{}", '{"type": 5}', '{"type": "progress_text"}', '{"type": "status", "data": [1]}']

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.path != "/ws":
            return None
        if how == "refuses":
            return web.Response(status=404)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if how == "speaks nonsense":
            for text in nonsense:
                await socket.send_str(text)
            for content in (
                b"",
                b"x",
                b"\0\0\0\3\xff\xff\xff\xff\xff",
                b"\0\0\0\3\0\0\0\1\xff" + b"chunk 99999999999/",
            ):
                await socket.send_bytes(content)
        await socket.close()
        return socket

    jobs = make_jobs(tmp_path)
    with FakeComfyUI() as server:
        server.answer = answer
        assert dub(jobs, server) == 0
        assert len(server.prompts) == 3
    assert "is away" not in capsys.readouterr().out


def test_a_slow_progress_line_cannot_write_into_the_terminal(tmp_path, capsys):
    def behave(workflow: dict[str, Any], count: int) -> str:
        return "\x1b[2Jerror\r\n" + "x" * 5000

    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI(behave) as server:
        assert dub(jobs, server, more=("--retries", "0")) == 1
    said = capsys.readouterr().out
    assert "\x1b" not in said and max(map(len, said.splitlines())) < 1000


# -- answers about files


HOSTILE = ["../../evil.mp4", "/etc/evil.mp4", "..\\evil.mp4", "C:\\evil.mp4", "a/b.mp4", "..mp4/../x.mp4", "x\0.mp4"]


@pytest.mark.parametrize("field", ["filename", "subfolder"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_server_chooses_no_path_here(tmp_path, name, field):
    entry = {"filename": "anna_00001_.mp4", "subfolder": "dubbed", "type": "output", field: name}

    async def answer(request: web.Request) -> web.Response | None:
        if request.path == "/view" and request.query["type"] == "output":
            report = {"run": "../../../elsewhere", "executions": [{"warnings": ["w"]}]}
            is_video = request.query["filename"].endswith(".mp4")
            return web.Response(body=b"film") if is_video else web.json_response(report)
        prompt = request.path.rpartition("/")[2]
        if not request.path.startswith("/history/") or prompt not in server._history:
            return None
        done = {"outputs": {"31": {"images": [entry]}}, "status": {"status_str": "success", "messages": []}}
        return web.json_response({prompt: done})

    jobs = make_jobs(tmp_path, ("anna",))
    before = set(tmp_path.rglob("*"))
    with FakeComfyUI() as server:
        server.answer = answer
        status = dub(jobs, server)
    new = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    assert new <= {"out", *(f"out/{n}" for n in ("anna.mp4", "anna.json", "dub_folder.json", "dub_folder.lock"))}
    assert status == (0 if field == "subfolder" else 1)


ENTRIES: dict[str, Any] = {
    "no outputs": {"outputs": {}, "status": {"status_str": "success", "messages": []}},
    "outputs missing": {"status": {"status_str": "success"}},
    "outputs a list": {"outputs": [1], "status": {"status_str": "success", "messages": []}},
    "outputs of lists": {"outputs": {"31": [1]}, "status": {"status_str": "success", "messages": []}},
    "items of numbers": {"outputs": {"31": {"images": [5, None]}}, "status": {"status_str": "success"}},
    "a file without a name": {"outputs": {"31": {"images": [{"type": "output"}]}}, "status": {"status_str": "success"}},
    "a name that is a number": {"outputs": {"31": {"images": [{"filename": 5}]}}, "status": {"status_str": "success"}},
    "status null": {"outputs": {}, "status": None},
    "status a text": {"outputs": {}, "status": "error"},
    "messages of another form": {"outputs": {}, "status": {"status_str": "error", "messages": [1, [2], {"a": 3}]}},
    "an error of another form": {"outputs": {}, "status": {"messages": [["execution_error", "text"]]}},
    "an entry of another form": [1, 2],
}


@pytest.mark.parametrize("case", ENTRIES)
def test_a_history_of_another_form_fails_the_job_in_a_sentence(tmp_path, case):
    async def answer(request: web.Request) -> web.Response | None:
        prompt = request.path.rpartition("/")[2]
        known = request.path.startswith("/history/") and prompt in server._history
        return web.json_response({prompt: ENTRIES[case]}) if known else None

    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        server.answer = answer
        assert dub(jobs, server, more=("--retries", "0")) == 1
    error = state_of(jobs)["anna"]["error"]
    assert error and "Error" not in error and "'" not in error


REPORTS: dict[str, Any] = {
    "run is a list": {"run": [1]},
    "executions is a text": {"executions": "abc"},
    "an execution is a number": {"executions": [5]},
    "warnings missing": {"executions": [{}]},
    "warnings of numbers": {"executions": [{"warnings": [5, "said"]}]},
    "a list": [1],
}


@pytest.mark.parametrize("case", REPORTS)
def test_a_report_of_another_form_costs_nothing_but_itself(tmp_path, case):
    async def answer(request: web.Request) -> web.Response | None:
        return web.json_response(REPORTS[case]) if request.query.get("filename", "").endswith(".json") else None

    jobs = make_jobs(tmp_path, ("anna",))
    with FakeComfyUI() as server:
        server.answer = answer
        assert dub(jobs, server) == 0
    assert (out(jobs) / "anna.mp4").exists()


def test_what_the_server_leaves_out_of_a_workflow_is_said(tmp_path, capsys):
    error = {"type": "required_input_missing", "message": "x", "details": "y", "extra_info": {"input_name": "images"}}

    async def answer(request: web.Request) -> web.Response | None:
        if request.path != "/prompt":
            return None
        prompt = (await request.json())["prompt_id"]
        server._pending.append((prompt, (await request.json())["prompt"]))
        server.prompts.append((await request.json())["prompt"])
        return web.json_response(
            {"prompt_id": prompt, "node_errors": {"9": {"class_type": "PreviewImage", "errors": [error]}}}
        )

    with FakeComfyUI() as server:
        server.answer = answer
        assert dub(make_jobs(tmp_path, ("anna",)), server) == 0
    said = capsys.readouterr().out
    assert "the server leaves out a part of the workflow: PreviewImage: its input images is neither connected" in said


def test_a_password_in_an_address_is_used_and_not_written_down(tmp_path, capsys):
    seen: list[str] = []

    async def look(request: web.Request) -> None:
        seen.append(request.headers.get("Authorization", ""))

    jobs = make_jobs(tmp_path, ("anna", "ben"))
    with FakeComfyUI(lambda workflow, count: "error") as server:
        server.answer = look
        assert dub(jobs, more=("--server", server.url.replace("//", "//me:secret@"))) == 1
    assert set(seen) == {"Basic bWU6c2VjcmV0"}
    assert "secret" not in capsys.readouterr().out + (out(jobs) / "dub_folder.json").read_text()


@pytest.mark.parametrize(
    "when", ["/system_stats", "/object_info", "/ws", "/upload/image", "/prompt", "/queue", "/view"]
)
def test_control_c_at_any_time_keeps_the_state_and_the_next_start_goes_on(tmp_path, when):
    """It comes while the server takes its time over one kind of call."""
    pressed = threading.Event()

    async def press(request: web.Request) -> None:
        if request.path == when and request.method != "HEAD" and not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.3)

    jobs = make_jobs(tmp_path)
    with FakeComfyUI() as server:
        server.answer = press
        before = signal.getsignal(signal.SIGINT)
        assert dub(jobs, server) == 1
        assert pressed.is_set() and signal.getsignal(signal.SIGINT) is before
        assert set(states(jobs).values()) <= {"waiting", "interrupted", "finished"}
        assert not [name for name in contents(out(jobs)) if name.endswith(".part")]
        assert dub(jobs, server) == 0
    assert set(states(jobs).values()) == {"finished"}


def test_a_stop_before_anything_began_is_no_traceback(tmp_path, monkeypatch, capsys):
    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dub_folder.read_jobs", stop)
    with FakeComfyUI() as server:
        assert dub(make_jobs(tmp_path), server) == 1
    assert "stopped before anything was queued" in capsys.readouterr().out

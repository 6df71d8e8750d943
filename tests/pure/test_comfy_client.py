"""The API client: what it makes of a server's answers and messages."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the client needs aiohttp, which ComfyUI brings")
from aiohttp import web
from aiohttp.test_utils import TestServer

sys.path.append(str(Path(__file__).resolve().parents[2] / "client"))

from client_errors import BusyError, ServerFaultError, SetupError
from comfy_client import ComfyClient, Message, RefusedError, ServerLostError, read_history
from refusals import node_sentences

PREVIEW = struct.pack(">I", 1) + bytes(20_000_000)
TEXT = struct.pack(">II", 3, 2) + b"31chunk 1/3, step 1/1"


def ask(handler: Callable[[web.Request], Awaitable[Any]], use: Callable[[ComfyClient], Awaitable[Any]]) -> Any:
    """What `use` returns with a client of a server that answers everything with `handler`."""

    async def work() -> Any:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        async with TestServer(app) as server, ComfyClient(str(server.make_url("/"))) as client:
            return await use(client)

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            {"error": {"message": "Cannot execute because node X does not exist."}, "node_errors": []},
            "Cannot execute because node X does not exist.",
        ),
        (
            {"type": "value_smaller_than_min", "message": "Value -1 smaller than min of 1", "details": "steps"},
            "KSampler: Value -1 smaller than min of 1 (steps)",
        ),
        (
            {"type": "custom_validation_failed", "message": "Custom validation failed for node", "details": "no a.wav"},
            "KSampler: no a.wav",
        ),
        ({"nothing": "known"}, '/prompt answered 400: {"nothing": "known"}'),
    ],
)
def test_a_refused_workflow_is_said_in_a_line_and_kept_whole(answer, says):
    if "type" in answer:
        node = {"class_type": "KSampler", "errors": [answer]}
        answer = {"error": {"message": "Prompt outputs failed validation"}, "node_errors": {"3": node}}

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response(answer, status=400)

    with pytest.raises(RefusedError) as refused:
        ask(refuse, lambda client: client.queue({}))
    assert str(refused.value) == says and refused.value.answer == answer


def test_a_large_preview_and_a_line_of_progress_come_whole():
    async def speak(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "status"})
        await socket.send_bytes(PREVIEW)
        await socket.send_bytes(TEXT)
        await socket.close()
        return socket

    async def listen(client: ComfyClient) -> list[Message]:
        heard: list[Message] = []
        with pytest.raises(ServerLostError, match="closed the connection"):
            async for message in client.messages():
                heard.append(message)
        return heard

    status, preview, text = ask(speak, listen)
    assert (status.type, status.data, status.binary) == ("status", {}, b"")
    assert preview.type == "preview" and preview.binary == PREVIEW
    assert text.type == "progress_text" and text.data == {"node": "31", "text": "chunk 1/3, step 1/1"}


def test_an_error_of_the_server_or_another_program_there_is_a_lost_server():
    async def fail(request: web.Request) -> web.Response:
        return web.Response(status=502, text="bad gateway")

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    with pytest.raises(ServerLostError, match="/system_stats answered 502: bad gateway"):
        ask(fail, lambda client: client.system_stats())
    with pytest.raises(ServerLostError, match="does not answer like ComfyUI"):
        ask(page, lambda client: client.system_stats())


def test_a_history_entry_says_how_a_prompt_ended():
    files = [{"filename": "a.mp4", "subfolder": "", "type": "output"}]
    outputs = {"9": {"images": files, "text": ["said"], "animated": [True]}}
    done = read_history({"outputs": outputs, "status": {"status_str": "success", "messages": []}})
    assert done.status == "success" and done.files() == files and done.reason == "" and done.error is None

    def failed(kind: str, **error: str) -> dict[str, Any]:
        return {"outputs": {}, "status": {"status_str": "error", "messages": [[kind, error]]}}

    stopped = read_history(failed("execution_interrupted"))
    assert (stopped.status, stopped.reason) == ("interrupted", "interrupted on the server")
    error = {"node_type": "LoadImage", "exception_type": "x.InputError", "exception_message": "no picture\n"}
    wrong = read_history(failed("execution_error", **error))
    assert wrong.status == "error" and wrong.reason == "LoadImage: no picture" and wrong.is_input_error
    assert not read_history(failed("execution_error", exception_type="OSError")).is_input_error


# -- whose fault an answer is

KINDS = {
    **dict.fromkeys((400, 404, 405, 409, 413, 422, 451), RefusedError),
    **dict.fromkeys((500, 501, 505, 507, 599), ServerFaultError),
    **dict.fromkeys((408, 425, 429, 503), BusyError),
    **dict.fromkeys((502, 504, 520, 522, 530), ServerLostError),
    **dict.fromkeys((301, 302, 303, 307, 308, 401, 403, 407, 511), SetupError),
}


@pytest.mark.parametrize("status", KINDS)
def test_every_status_is_of_one_kind(status):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text="<html><title>Oh\nno</title>", headers={"Location": "https://b/queue"})

    with pytest.raises((RefusedError, ServerLostError)) as raised:
        ask(answer, lambda client: client.queue({}))
    assert type(raised.value) is KINDS[status]
    said = str(raised.value)
    assert "<" not in said and "\n" not in said and (status == 413 or str(status) in said or "sends us on to" in said)


def test_a_redirect_is_not_followed_and_its_address_is_said():
    """A POST that is sent on arrives as a GET, and a file would go where nobody meant it to."""
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound(f"https://example.com:8443{request.path}?from=here")

    with pytest.raises(SetupError, match=r"sends us on to https://example\.com:8443: give the address behind it"):
        ask(redirect, lambda client: client.system_stats())
    assert asked == ["/system_stats"]


@pytest.mark.parametrize("path", ["has", "upload", "save", "view", "outcome", "object_info", "cancel", "free"])
def test_every_call_follows_no_redirect(path, tmp_path):
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("http://elsewhere/")

    (tmp_path / "a.wav").write_bytes(b"a")
    file = {"filename": "a.mp4", "subfolder": "", "type": "output"}
    arguments: dict[str, tuple[Any, ...]] = {
        "has": ("a.wav", 1),
        "upload": (tmp_path / "a.wav", "a.wav"),
        "save": (file, tmp_path / "a.mp4"),
        "view": (file,),
        "outcome": ("1",),
        "cancel": ("1",),
    }
    with pytest.raises(SetupError):
        ask(redirect, lambda client: getattr(client, path)(*arguments.get(path, ())))
    assert [found.name for found in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    ("kind", "extra", "says"),
    [
        ("required_input_missing", {"input_name": "model"}, "its input model is neither connected nor set"),
        (
            "value_smaller_than_min",
            {"input_name": "steps", "received_value": -1, "input_config": ["INT", {"min": 1}]},
            "steps is -1, and 1 is the smallest that it takes",
        ),
        (
            "value_bigger_than_max",
            {"input_name": "cfg", "received_value": 900.0, "input_config": ["FLOAT", {"max": 100.0}]},
            "cfg is 900.0, and 100.0 is the largest that it takes",
        ),
        (
            "value_not_in_list",
            {"input_name": "vae_name", "received_value": "wan.vae", "input_config": [["wan_vae", "x"], {}]},
            "this server has no vae_name 'wan.vae'; did you mean 'wan_vae'?",
        ),
        (
            "value_not_in_list",
            {"input_name": "vae_name", "received_value": "wan", "input_config": None},
            "this server has no vae_name 'wan'",
        ),
        ("return_type_mismatch", {"input_name": "vae"}, "its input vae is connected to an output of another kind"),
        ("invalid_input_type", {"input_name": "seed", "received_value": "x"}, "seed cannot be 'x'"),
        ("something_new", {"input_name": "seed"}, "said (more)"),
        ("value_smaller_than_min", {"input_name": [1]}, "said (more)"),
        ("value_bigger_than_max", {"input_name": "a", "received_value": 1, "input_config": "x"}, "said (more)"),
        ("custom_validation_failed", {"input_name": "path"}, "more"),
    ],
)
def test_what_a_node_refuses_is_said_in_the_words_of_its_widgets(kind, extra, says):
    error = {"type": kind, "message": "said", "details": "more", "extra_info": extra}
    assert node_sentences({"3": {"class_type": "X", "errors": [error]}}) == f"X: {says}"


def test_each_node_has_a_sentence_and_twins_their_number():
    error = {"type": "a", "message": "wrong", "details": ""}
    nodes = {
        "7": {"class_type": "CLIPTextEncode", "errors": [error, error]},
        "8": {"class_type": "CLIPTextEncode", "errors": [error]},
        "9": {"class_type": "VAELoader", "errors": [error]},
    }
    assert node_sentences(nodes) == (
        "CLIPTextEncode (node 7): wrong, wrong; CLIPTextEncode (node 8): wrong; VAELoader: wrong"
    )


def test_a_name_is_stored_as_it_is_written(tmp_path):
    """Letters with accents, and others; and a name cannot end the line that it stands in."""
    stored: list[str] = []

    async def upload(request: web.Request) -> web.Response:
        name = (await request.post())["image"].filename  # type: ignore[union-attr]
        stored.append(name)
        return web.json_response({"name": name, "subfolder": "", "type": "input"})

    (tmp_path / "a").write_bytes(b"a")
    for name in ("José 安娜.mp4", 'a "quoted" name.wav'):
        assert ask(upload, lambda client, name=name: client.upload(tmp_path / "a", name)) == name  # type: ignore[misc]
    assert stored == ["José 安娜.mp4", 'a "quoted" name.wav']


def test_a_file_is_saved_whole_and_only_where_none_is(tmp_path):
    async def film(request: web.Request) -> web.Response:
        return web.Response(body=b"film")

    async def nothing(request: web.Request) -> web.Response:
        return web.Response(body=b"")

    file = {"filename": "a.mp4", "subfolder": "", "type": "output"}
    content = ask(film, lambda client: client.save(file, tmp_path / "new"))
    assert (content.size, content.sha256) == (4, hashlib.sha256(b"film").hexdigest())
    with pytest.raises(FileExistsError):
        ask(film, lambda client: client.save(file, tmp_path / "new"))
    with pytest.raises(ServerLostError, match="sent 0 of 0 bytes"):
        ask(nothing, lambda client: client.save(file, tmp_path / "empty"))
    ask(film, lambda client: client.download(file, tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_an_endless_answer_is_not_kept(monkeypatch):
    monkeypatch.setattr("comfy_client.LARGEST_ANSWER", 1 << 20)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(bytes(1 << 16))
        return response

    with pytest.raises(ServerLostError, match="answers with more than 1 MB of text"):
        ask(endless, lambda client: client.object_info())


@pytest.mark.parametrize(
    "answer", [{"prompt_id": 5}, {"prompt_id": "../x"}, {}, {"prompt_id": ""}, {"prompt_id": "a" * 999}]
)
def test_a_prompt_without_a_usable_id_is_no_comfyui(answer):
    async def queue(request: web.Request) -> web.Response:
        return web.json_response(answer)

    with pytest.raises(ServerLostError, match="/prompt does not answer like ComfyUI"):
        ask(queue, lambda client: client.queue({}))


def test_what_does_not_answer_is_said_in_words():
    async def use() -> str:
        async with ComfyClient("http://127.0.0.1:1") as client:
            with pytest.raises(ServerLostError) as lost:
                await client.system_stats()
        return str(lost.value)

    assert re.fullmatch(r"http://127.0.0.1:1 cannot be reached \(.*refused.*\)", asyncio.run(use()))

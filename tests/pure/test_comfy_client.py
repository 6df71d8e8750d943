"""The API client: what it makes of a server's answers and messages."""

from __future__ import annotations

import asyncio
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

from comfy_client import ComfyClient, Message, RefusedError, ServerLostError, read_history

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

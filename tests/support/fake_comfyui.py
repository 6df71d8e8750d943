"""A server with ComfyUI's API that makes no videos, for tests of the client. Errors and delays can be configured."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

SAMPLER = "InfiniteTalkChunkSampler"
CHUNKS = 3
# (workflow, number of earlier prompts) → success, error, InputError, interrupted, crash, crash at once, or wait
Behavior = Callable[[dict[str, Any], int], str]
SLOWLY = 0.5  # seconds
# What to answer in place of the server; None lets the server answer.
Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


async def no_answer(request: web.Request) -> None:
    """Let the server answer."""


class FakeComfyUI:
    """Serves on 127.0.0.1 from a separate thread; a context manager. Its attributes record the requests."""

    def __init__(self, behave: Behavior = lambda workflow, count: "success") -> None:
        self.behave = behave
        self.uploads: dict[str, bytes] = {}
        self.prompts: list[dict[str, Any]] = []  # every queued workflow
        self.most_at_once = 0
        self.cancelled: list[str] = []
        self.refuse = ""
        self.answers: Callable[[int], str] = lambda number: "at once"  # to the n-th: at once, never, slowly
        self.lost_files = False  # if True, the made files are missing
        self.broken_reports = False
        self.object_info: dict[str, Any] | None = None  # of the nodes; not found if None
        self.answer: Answer = no_answer
        self.url = ""
        self._pending: list[tuple[str, dict[str, Any]]] = []
        self._running: str | None = None
        self._history: dict[str, Any] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FakeComfyUI:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(10)

    # -- thread

    def _run(self) -> None:
        self._main = self._loop.create_task(self._serve())
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        @web.middleware
        async def other_answers(request: web.Request, handler: Any) -> web.StreamResponse:
            given = await self.answer(request)
            return await handler(request) if given is None else given

        app = web.Application(client_max_size=1 << 24, middlewares=[other_answers])
        app.add_routes(
            [
                web.get("/system_stats", self._stats),
                web.get("/object_info", self._object_info),
                web.get("/ws", self._websocket),
                web.post("/prompt", self._prompt),
                web.get("/history/{id}", self._get_history),
                web.get("/queue", self._get_queue),
                web.post("/queue", self._delete),
                web.post("/interrupt", self._interrupt),
                web.post("/upload/image", self._upload),
                web.get("/view", self._view),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set()
        try:
            while True:
                if not self._pending:
                    await asyncio.sleep(0.01)
                elif await self._work(*self._pending.pop(0)):
                    await site.stop()  # a crash: the state is lost, and requests fail for a while
                    for socket in list(self._sockets):
                        await socket.close()
                    self._pending, self._running, self._history = [], None, {}
                    await asyncio.sleep(0.3)
                    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
                    await site.start()
        finally:
            await runner.cleanup()

    async def _work(self, prompt: str, workflow: dict[str, Any]) -> bool:
        """Simulate the making of a video; return whether the server crashed."""
        how, self._running = self.behave(workflow, len(self.prompts) - len(self._pending) - 1), prompt
        await self._tell("execution_start", prompt)
        node = next(i for i, n in workflow.items() if n["class_type"] == SAMPLER)
        for chunk in range(1, CHUNKS + 1):
            await asyncio.sleep(0.05)
            if how == "crash at once":
                return True
            text = f"chunk {chunk}/{CHUNKS}, step 1/1, 9 s left".encode()
            head = struct.pack(">II", 3, len(node)) + node.encode()
            for socket in list(self._sockets):
                with contextlib.suppress(ConnectionError):  # it closes just now
                    await socket.send_bytes(head + text)
            if how == "crash" and chunk == 2:
                await asyncio.sleep(0.05)
                return True
            while how == "wait" and prompt not in self.cancelled:
                await asyncio.sleep(0.01)
            if prompt in self.cancelled:
                how = "interrupted"
        self._history[prompt] = self._entry(workflow[node], how)
        self._running = None
        await self._tell("executing", prompt)
        return False

    def _entry(self, sampler: dict[str, Any], how: str) -> dict[str, Any]:
        """Return the prompt's entry for /history."""
        if how == "success":
            folder, _, name = sampler["inputs"]["filename_prefix"].rpartition("/")
            files = [{"filename": f"{name}_00001_.mp4", "subfolder": folder, "type": "output"}]
            return {"outputs": {"31": {"images": files}}, "status": {"status_str": "success", "messages": []}}
        error = {"node_type": SAMPLER, "exception_type": f"x.{how}", "exception_message": f"made up: {how}"}
        kind = "execution_interrupted" if how == "interrupted" else "execution_error"
        return {"outputs": {}, "status": {"status_str": "error", "messages": [[kind, error]]}}

    async def _tell(self, kind: str, prompt: str) -> None:
        for socket in list(self._sockets):
            with contextlib.suppress(ConnectionError):
                await socket.send_json({"type": kind, "data": {"prompt_id": prompt, "node": None}})

    # -- API

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _object_info(self, request: web.Request) -> web.Response:
        return web.Response(status=404) if self.object_info is None else web.json_response(self.object_info)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        await socket.send_json({"type": "status", "data": {}})
        async for message in socket:
            if message.type == WSMsgType.ERROR:
                break
        self._sockets.discard(socket)
        return socket

    async def _prompt(self, request: web.Request) -> web.Response:
        content = await request.json()
        if self.refuse:
            error = {"type": "custom_validation_failed", "message": "bad", "details": self.refuse}
            details = {"class_type": "InfiniteTalkLoadVoice", "errors": [error]}
            return web.json_response({"error": {"message": "invalid"}, "node_errors": {"12": details}}, status=400)
        if str(uuid.UUID(content["prompt_id"])) != content["prompt_id"]:  # required by ComfyUI 0.33
            return web.json_response({"error": {"message": "prompt_id must be a valid UUID"}}, status=400)
        self.prompts.append(content["prompt"])
        self._pending.append((content["prompt_id"], content["prompt"]))
        self.most_at_once = max(self.most_at_once, len(self._pending) + (self._running is not None))
        how = self.answers(len(self.prompts))
        if how == "slowly":
            await asyncio.sleep(SLOWLY)
        elif how == "never":
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"prompt_id": content["prompt_id"], "number": 1, "node_errors": {}})

    async def _get_history(self, request: web.Request) -> web.Response:
        prompt = request.match_info["id"]
        return web.json_response({prompt: self._history[prompt]} if prompt in self._history else {})

    async def _get_queue(self, request: web.Request) -> web.Response:
        running = [] if self._running is None else [[0, self._running]]
        return web.json_response({"queue_running": running, "queue_pending": [[1, p] for p, _ in self._pending]})

    async def _delete(self, request: web.Request) -> web.Response:
        gone = (await request.json())["delete"]
        self._pending = [item for item in self._pending if item[0] not in gone]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.cancelled.append((await request.json())["prompt_id"])
        return web.Response()

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file, folder = form["image"], form.get("subfolder", "")
        self.uploads[f"{folder}/{file.filename}"] = file.file.read()  # type: ignore[union-attr]
        return web.json_response({"name": file.filename, "subfolder": folder, "type": "input"})  # type: ignore[union-attr]

    async def _view(self, request: web.Request) -> web.Response:
        name, folder = request.query["filename"], request.query["subfolder"]
        if request.query["type"] == "input":
            found = self.uploads.get(f"{folder}/{name}")
            return web.Response(status=404) if found is None else web.Response(body=found)
        if self.lost_files:
            return web.Response(status=404)
        if name == "run.json":
            executions = [{"warnings": ["the source ends early"]}]
            return web.json_response({"state": "finished", "executions": executions, "folder": folder})
        if name.endswith(".json") and self.broken_reports:
            return web.Response(body=b"[{")
        if name.endswith(".json"):
            return web.Response(body=json.dumps({"run": f"infinitetalk_runs/{name}"}).encode())
        return web.Response(body=f"video {folder}/{name}".encode())

"""An asynchronous client for the HTTP and websocket API of one ComfyUI server (0.3.75 to 0.33), on aiohttp.

    async with ComfyClient("http://127.0.0.1:8188") as client:
        prompt_id = await client.queue(workflow)
        async for message in client.messages():
            ...
        outcome = await client.outcome(prompt_id)

It uses no proxy. Every method raises ServerLostError when the server does not answer, and RefusedError when it
answers that it does not do this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp

PROGRESS_TEXT = 3  # BinaryEventTypes.TEXT of ComfyUI's protocol.py
BLOCK = 1 << 20
CONNECT_SECONDS, READ_SECONDS = 15, 300
HEARTBEAT_SECONDS = 120  # long, since loading a model may keep the server from answering
# asyncio's own class: in Python 3.10 it is not yet the built-in TimeoutError.
CONNECTION_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)
PromptStatus = Literal["unknown", "pending", "running", "success", "error", "interrupted"]


class ServerLostError(Exception):
    """The server does not answer: it is down or still starting, or the network fails."""


class RefusedError(Exception):
    """The server refused the call; the message says why, and trying again does not help.

    answer: its JSON, for a workflow with `error` and `node_errors`; empty if the answer is something else.
    """

    def __init__(self, message: str, answer: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.answer = answer or {}


@dataclass(frozen=True)
class Message:
    """One message of the websocket.

    type: ComfyUI's name ("executing", "progress", "executed" …). Of binary messages it is "progress_text", with
    data = {"node": node id, "text": …}, or "preview" for any other. binary: a binary message as it came.
    time: when it came (time.monotonic).
    """

    type: str
    data: dict[str, Any]
    binary: bytes = b""
    time: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class PromptOutcome:
    """What a server knows of a prompt.

    status: "unknown" if it has never heard of it, as after a restart. outputs: what nodes reported to the UI, by node
    id. error: ComfyUI's execution_error (`node_type`, `exception_type`, `exception_message` …) if status is "error".
    """

    status: PromptStatus
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: dict[str, Any] | None = None

    def files(self) -> list[dict[str, str]]:
        """Every file that a node reported: {"filename", "subfolder", "type"}."""
        lists = (found for ui in self.outputs.values() for found in ui.values() if isinstance(found, list))
        return [item for found in lists for item in found if isinstance(item, dict) and "filename" in item]

    @property
    def reason(self) -> str:
        """Why there is no result, in one line; empty if nothing went wrong."""
        if self.status == "interrupted":
            return "interrupted on the server"
        if self.error is None:
            return ""
        message = str(self.error.get("exception_message", "failed")).strip()
        return f"{self.error.get('node_type', 'the server')}: {message}"

    @property
    def is_input_error(self) -> bool:
        """Whether a node refused its inputs (an exception named …InputError), so that trying again does not help."""
        return str((self.error or {}).get("exception_type", "")).endswith("InputError")


class ComfyClient:
    """A client of the server at `url`; an asynchronous context manager.

    client_id: the server sends the messages of a prompt to the client that queued it under this id.
    """

    def __init__(self, url: str, client_id: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.client_id = client_id or uuid.uuid4().hex
        self._open_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ComfyClient:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        self._open_session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._open_session = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._open_session is not None, "use ComfyClient in `async with`"
        return self._open_session

    # -- prompts

    async def queue(self, workflow: dict[str, Any], prompt_id: str | None = None) -> str:
        """Queue a workflow in API format and return its prompt id: `prompt_id`, a UUID, or a new one."""
        content = {"prompt": workflow, "client_id": self.client_id, "prompt_id": prompt_id or str(uuid.uuid4())}
        answer = await self._json("POST", "/prompt", json=content)
        return str(answer["prompt_id"])

    async def outcome(self, prompt_id: str) -> PromptOutcome:
        """Return the state or the result of a prompt, from the server's history and queue."""
        if entry := await self.history(prompt_id):
            return read_history(entry)
        queue = await self._json("GET", "/queue")
        if _is_in(queue["queue_running"], prompt_id):
            return PromptOutcome("running")
        if _is_in(queue["queue_pending"], prompt_id):
            return PromptOutcome("pending")
        # It may have ended after the first look at the history.
        entry = await self.history(prompt_id)
        return read_history(entry) if entry else PromptOutcome("unknown")

    async def history(self, prompt_id: str) -> dict[str, Any]:
        """Return the history entry of a prompt; empty until it has ended."""
        entry: dict[str, Any] = (await self._json("GET", f"/history/{prompt_id}")).get(prompt_id, {})
        return entry

    async def interrupt(self, prompt_id: str | None = None) -> None:
        """Stop the running prompt, or, given an id, this prompt if it is the running one."""
        await self._bytes("POST", "/interrupt", json={"prompt_id": prompt_id} if prompt_id else {})

    async def cancel(self, prompt_id: str) -> None:
        """Remove a prompt from the queue or interrupt it. Files that it has written stay."""
        await self._bytes("POST", "/queue", json={"delete": [prompt_id]})
        await self.interrupt(prompt_id)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield the websocket's messages; the first, "status", comes at once. Ends only by ServerLostError."""
        address = f"{self.url}/ws?clientId={self.client_id}"
        flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
        try:
            async with self._session.ws_connect(address, max_msg_size=0, heartbeat=HEARTBEAT_SECONDS) as socket:
                await socket.send_json(flags)
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        content = json.loads(message.data)
                        yield Message(content["type"], content.get("data") or {})
                    elif message.type == aiohttp.WSMsgType.BINARY:
                        yield read_binary(message.data)
        except CONNECTION_ERRORS as error:
            raise ServerLostError(f"{self.url}: {error!r}") from error
        raise ServerLostError(f"{self.url} closed the connection")

    # -- the server

    async def system_stats(self) -> dict[str, Any]:
        """Return versions, memory and devices; the cheapest way to learn whether the server answers."""
        return await self._json("GET", "/system_stats")

    async def object_info(self) -> dict[str, Any]:
        """Return all node classes with their inputs and outputs."""
        return await self._json("GET", "/object_info")

    async def free(self) -> None:
        """Unload models and drop cached node outputs, as soon as no prompt runs."""
        await self._bytes("POST", "/free", json={"unload_models": True, "free_memory": True})

    async def get(self, path: str) -> bytes:
        """Return the body of GET `path` ("/extensions")."""
        return await self._bytes("GET", path)

    # -- files

    async def has(self, name: str, size: int, folder: str = "") -> bool:
        """Return whether the server's input folder (or `folder` in it) has a file of this size in bytes."""
        query = {"filename": name, "subfolder": folder, "type": "input"}
        async with self._answer("HEAD", "/view", params=query) as answer:
            return answer.status == 200 and answer.headers.get("Content-Length") == str(size)

    async def upload(self, file: Path, name: str, folder: str = "") -> str:
        """Copy a file into the server's input folder, replacing one of that name; return its name in workflows."""
        with file.open("rb") as content:
            form = aiohttp.FormData()
            form.add_field("overwrite", "true")
            form.add_field("subfolder", folder)
            form.add_field("image", content, filename=name, content_type="application/octet-stream")
            answer = await self._json("POST", "/upload/image", data=form)
        return "/".join(part for part in (answer["subfolder"], answer["name"]) if part)

    async def download(self, file: dict[str, str], path: Path) -> None:
        """Save a file that a node reported as `path`, whole or not at all. Raises OSError if the disk fails."""
        query = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        scratch = path.with_name(path.name + ".new")
        try:
            async with self._answer("GET", "/view", params=query) as answer:
                await _check_status(answer)
                with scratch.open("wb") as written:
                    async for block in answer.content.iter_chunked(BLOCK):
                        written.write(block)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    # -- HTTP

    @contextlib.asynccontextmanager
    async def _answer(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(method, self.url + path, **options) as answer:
                yield answer
        except CONNECTION_ERRORS as error:
            raise ServerLostError(f"{self.url}: {error!r}") from error

    async def _bytes(self, method: str, path: str, **options: Any) -> bytes:
        async with self._answer(method, path, **options) as answer:
            await _check_status(answer)
            return await answer.read()

    async def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        body = await self._bytes(method, path, **options)
        try:
            return dict(json.loads(body))
        except (ValueError, TypeError) as error:
            raise ServerLostError(f"{self.url}{path} does not answer like ComfyUI") from error


async def _check_status(answer: aiohttp.ClientResponse) -> None:
    """Raise the error that a status from 400 on stands for."""
    if answer.status < 400:
        return
    if answer.status == 413:
        raise RefusedError(
            "the file is larger than the server takes: start ComfyUI with a larger --max-upload-size (in MB), or put "
            "the file into its input folder"
        )
    text = await answer.text(errors="replace")
    said = f"{answer.url.path} answered {answer.status}: {text[:500]}"
    if answer.status >= 500:
        raise ServerLostError(said)
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    refusal = content if isinstance(content, dict) else {}
    raise RefusedError(_refusal_in_words(refusal) or said, refusal)


def _refusal_in_words(refusal: dict[str, Any]) -> str:
    """What ComfyUI finds wrong with a workflow, in one line; empty if this is no such answer."""
    try:
        nodes = refusal.get("node_errors") or {}  # an empty list if the workflow as a whole is wrong
        found = [f"{node['class_type']}: {_words(error)}" for node in nodes.values() for error in node["errors"]]
        return "; ".join(found) or _words(refusal["error"])
    except (KeyError, TypeError, AttributeError):
        return ""


def _words(error: dict[str, Any]) -> str:
    message, details = str(error["message"]), str(error.get("details") or "")
    if error.get("type") == "custom_validation_failed":
        return details  # the node's own sentence; the message is the same for all nodes
    return f"{message} ({details})" if details else message


def _is_in(queue: list[list[Any]], prompt_id: str) -> bool:
    return any(item[1] == prompt_id for item in queue)


def read_history(entry: dict[str, Any]) -> PromptOutcome:
    """Return what an entry of /history says."""
    messages = dict(entry["status"].get("messages", []))
    if entry["status"].get("status_str") == "success":
        return PromptOutcome("success", entry["outputs"])
    if "execution_interrupted" in messages:
        return PromptOutcome("interrupted", entry["outputs"])
    return PromptOutcome("error", entry["outputs"], messages.get("execution_error", {}))


def read_binary(content: bytes) -> Message:
    """Return a binary message of the websocket as a Message: see there."""
    kind, length = struct.unpack_from(">II", content) if len(content) >= 8 else (None, 0)
    if kind != PROGRESS_TEXT:
        return Message("preview", {}, content)
    node, text = content[8 : 8 + length], content[8 + length :]
    return Message("progress_text", {"node": node.decode(), "text": text.decode(errors="replace")}, content)

"""An asynchronous client for the HTTP and websocket API of one ComfyUI server (0.3.75 to 0.33), on aiohttp.

    async with ComfyClient("http://127.0.0.1:8188") as client:
        prompt_id = await client.queue(workflow)
        async for message in client.messages():
            ...
        outcome = await client.outcome(prompt_id)

It uses no proxy and follows no redirect. Every method raises ServerLostError, or one of its kinds (client_errors.py),
when the server does not answer as ComfyUI does, and RefusedError when it answers that it does not do this.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from client_errors import (
    RefusedError,
    ServerLostError,
    SetupError,
    connection_error,
    no_comfyui,
    redirect_error,
    status_error,
    without_password,
)
from prompt_outcome import PromptOutcome, read_history
from refusals import node_sentences, refusal
from socket_messages import Message, read_binary, read_text

__all__ = ["ComfyClient", "Message", "PromptOutcome", "RefusedError", "ServerLostError", "read_history"]

BLOCK = 1 << 20
LARGEST_ANSWER = 256 << 20  # bytes of JSON or of a websocket message; a film is not bounded
LARGEST_REFUSAL = 1 << 20
LARGE_UPLOAD = 100 << 20  # ComfyUI's own limit, if nobody has set another
CONNECT_SECONDS, READ_SECONDS = 15.0, 300.0
HEARTBEAT_SECONDS = 120  # long, since loading a model may keep the server from answering
# asyncio's own class: in Python 3.10 it is not yet the built-in TimeoutError.
CONNECTION_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)


@dataclass(frozen=True)
class Submitted:
    """A workflow that a server has queued. ignored: which of its nodes the server leaves out and why; often empty."""

    prompt_id: str
    ignored: str = ""


@dataclass(frozen=True)
class Content:
    """What a file contains: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class ComfyClient:
    """A client of the server at `url`; an asynchronous context manager.

    client_id: the server sends the messages of a prompt to the client that queued it under this id. read_seconds: how
    long a call may wait for the next part of its answer. shown: the address without a password in it.
    """

    def __init__(self, url: str, client_id: str | None = None, read_seconds: float = READ_SECONDS) -> None:
        self.url = url.rstrip("/")
        self.shown = without_password(self.url)
        self.read_seconds = read_seconds
        self.client_id = client_id or uuid.uuid4().hex
        self._open_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ComfyClient:
        connect = min(CONNECT_SECONDS, self.read_seconds)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=self.read_seconds)
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
        return (await self.submit(workflow, prompt_id)).prompt_id

    async def submit(self, workflow: dict[str, Any], prompt_id: str | None = None) -> Submitted:
        """Queue a workflow as `queue` does; return also what the server says of nodes that it leaves out."""
        content = {"prompt": workflow, "client_id": self.client_id, "prompt_id": prompt_id or str(uuid.uuid4())}
        answer = await self._json("POST", "/prompt", json=content)
        given = answer.get("prompt_id")
        if not isinstance(given, str) or not re.fullmatch(r"[\w-]{1,100}", given):
            raise no_comfyui(self.shown, "/prompt")
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            return Submitted(given, node_sentences(answer.get("node_errors")))
        return Submitted(given)

    async def outcome(self, prompt_id: str) -> PromptOutcome:
        """Return the state or the result of a prompt, from the server's history and queue."""
        if entry := await self.history(prompt_id):
            return read_history(entry)
        queue = await self._json("GET", "/queue")
        lists = queue.get("queue_running"), queue.get("queue_pending")
        if not all(isinstance(items, list) for items in lists):
            raise no_comfyui(self.shown, "/queue")
        if _is_in(lists[0], prompt_id):
            return PromptOutcome("running")
        if _is_in(lists[1], prompt_id):
            return PromptOutcome("pending")
        # It may have ended after the first look at the history.
        entry = await self.history(prompt_id)
        return read_history(entry) if entry else PromptOutcome("unknown")

    async def history(self, prompt_id: str) -> dict[str, Any]:
        """Return the history entry of a prompt; empty until it has ended."""
        entry = (await self._json("GET", f"/history/{prompt_id}")).get(prompt_id)
        return entry if isinstance(entry, dict) else {}

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
        limits: dict[str, Any] = {"max_msg_size": LARGEST_ANSWER, "heartbeat": HEARTBEAT_SECONDS}
        try:
            async with self._session.ws_connect(address, **limits) as socket:
                await socket.send_json(flags)
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        if (read := read_text(message.data)) is not None:
                            yield read
                    elif message.type == aiohttp.WSMsgType.BINARY:
                        yield read_binary(message.data)
        except CONNECTION_ERRORS as error:
            raise connection_error(self.shown, error) from error
        raise ServerLostError(f"{self.shown} closed the connection")

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
            form = aiohttp.FormData(quote_fields=False)  # else a server would store %C3%A9 for é
            form.add_field("overwrite", "true")
            form.add_field("subfolder", folder)
            form.add_field("image", content, filename=name, content_type="application/octet-stream")
            try:
                answer = await self._json("POST", "/upload/image", data=form)
            except ServerLostError as error:
                if type(error) is not ServerLostError or file.stat().st_size < LARGE_UPLOAD:
                    raise
                raise ServerLostError(
                    f"{error} while {file.name} was sent: if it comes again, start ComfyUI with a larger "
                    "--max-upload-size (in MB), or put the file into its input folder"
                ) from error
        parts = answer.get("subfolder", ""), answer.get("name")
        if not all(isinstance(part, str) for part in parts) or not parts[1]:
            raise no_comfyui(self.shown, "/upload/image")
        return "/".join(part for part in parts if part)

    async def download(self, file: dict[str, str], path: Path) -> None:
        """Save a file that a node reported as `path`, whole or not at all. Raises OSError if the disk fails."""
        scratch = path.with_name(f".{uuid.uuid4().hex}.part")
        await self.save(file, scratch)
        try:
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    async def save(self, file: dict[str, str], scratch: Path) -> Content:
        """Write a file that a node reported into a new file, which is there only if it is whole.

        Raises FileExistsError if there is one already, and OSError if the disk fails.
        """
        digest, size = hashlib.sha256(), 0
        with scratch.open("xb") as written:
            try:
                async with self._view(file) as answer:
                    async for block in answer.content.iter_chunked(BLOCK):
                        digest.update(block)
                        size += written.write(block)
                    told = None if answer.headers.get("Content-Encoding") else answer.content_length
                if size == 0 or told not in (None, size):
                    raise ServerLostError(f"{self.shown} sent {size} of {told} bytes of {file.get('filename')}")
                written.flush()
                await asyncio.to_thread(os.fsync, written.fileno())
            except BaseException:
                written.close()  # Windows removes no open file
                scratch.unlink(missing_ok=True)
                raise
        return Content(size, digest.hexdigest())

    async def view(self, file: dict[str, str]) -> bytes:
        """Return the content of a small file that a node reported."""
        async with self._view(file) as answer:
            return await self._read(answer, LARGEST_ANSWER)

    @contextlib.asynccontextmanager
    async def _view(self, file: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        query = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        async with self._answer("GET", "/view", params=query) as answer:
            await self._check_status(answer)
            name = str(file.get("filename"))
            if answer.content_type == "application/json" and not name.endswith(".json"):
                raise no_comfyui(self.shown, "/view")
            if answer.content_type == "text/html":  # which ComfyUI never sends here
                raise SetupError(f"{self.shown}/view answers with a web page in place of {name}")
            yield answer

    # -- HTTP

    @contextlib.asynccontextmanager
    async def _answer(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            # A POST that is sent on would arrive as a GET, and files would go where nobody meant them to.
            async with self._session.request(method, self.url + path, allow_redirects=False, **options) as answer:
                if 300 <= answer.status < 400:
                    raise redirect_error(self.shown, path, answer.headers.get("Location", ""))
                yield answer
        except CONNECTION_ERRORS as error:
            raise connection_error(self.shown, error) from error

    async def _bytes(self, method: str, path: str, **options: Any) -> bytes:
        async with self._answer(method, path, **options) as answer:
            await self._check_status(answer)
            return await self._read(answer, LARGEST_ANSWER)

    async def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        body = await self._bytes(method, path, **options)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise no_comfyui(self.shown, path)
        return content

    async def _check_status(self, answer: aiohttp.ClientResponse) -> None:
        """Raise the error that a status from 400 on stands for."""
        if answer.status < 400:
            return
        text = (await self._read(answer, LARGEST_REFUSAL)).decode(errors="replace")
        path, wait = answer.url.path, answer.headers.get("Retry-After", "")
        raise status_error(path, answer.status, text, wait) or refusal(path, answer.status, text)

    async def _read(self, answer: aiohttp.ClientResponse, most: int) -> bytes:
        """Return the body. Raises ServerLostError if it has more than `most` bytes."""
        body = bytearray()
        async for block in answer.content.iter_chunked(BLOCK):
            body += block
            if len(body) > most:
                raise ServerLostError(f"{self.shown} answers with more than {most >> 20} MB of text")
        return bytes(body)


def _is_in(queue: Any, prompt_id: str) -> bool:
    return any(isinstance(item, list) and prompt_id in item[1:2] for item in queue)

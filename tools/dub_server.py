"""One ComfyUI server, near or far, as tools/dub_folder.py sees it: requests, the websocket, what became of a prompt."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp

PROGRESS_TEXT = 3  # the kind of binary message that says how far a node is
BLOCK = 1 << 20
Fate = Literal["unknown", "pending", "running", "success", "error", "interrupted"]


class ServerLostError(Exception):
    """The server does not answer: it is down, starting, or the network is."""


class RefusedError(Exception):
    """The server does not take the job; the message says why, and trying again does not help."""


@dataclass(frozen=True)
class Outcome:
    """What a server knows of a prompt. files: what nodes reported; error: in the words of the node that failed;
    lasting: trying again does not help."""

    fate: Fate
    files: tuple[dict[str, str], ...] = ()
    error: str = ""
    lasting: bool = False


@dataclass(frozen=True)
class Told:
    """A message of the websocket: progress in words of a node, or (text empty) that a prompt's state may be new."""

    node: str = ""
    text: str = ""


class DubServer:
    """A server at `url`; every method raises ServerLostError when it does not answer."""

    def __init__(self, url: str, session: aiohttp.ClientSession, client_id: str) -> None:
        self.url = url.rstrip("/")
        self.session, self.client_id = session, client_id

    async def alive(self) -> None:
        """Return if the server answers."""
        await self._json("GET", "/system_stats")

    async def queue(self, workflow: dict[str, Any], prompt_id: str) -> str:
        """Queue a workflow under an id of our choice, a UUID; the id that it has. Raises RefusedError."""
        content = {"prompt": workflow, "client_id": self.client_id, "prompt_id": prompt_id}
        answer = await self._json("POST", "/prompt", json=content)
        return str(answer["prompt_id"])

    async def outcome(self, prompt_id: str) -> Outcome:
        """What became of a prompt; "unknown" if the server has never heard of it, as after a restart."""
        found = (await self._json("GET", f"/history/{prompt_id}")).get(prompt_id)
        if found:
            return read_history(found)
        queue = await self._json("GET", "/queue")
        for name, fate in (("queue_running", "running"), ("queue_pending", "pending")):
            if any(item[1] == prompt_id for item in queue[name]):
                return Outcome(fate)  # type: ignore[arg-type]
        # It may have ended between the two looks.
        found = (await self._json("GET", f"/history/{prompt_id}")).get(prompt_id)
        return read_history(found) if found else Outcome("unknown")

    async def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it: what it has made stays."""
        await self._request("POST", "/queue", json={"delete": [prompt_id]})
        await self._request("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def has(self, folder: str, name: str, size: int) -> bool:
        """Whether a file of this size is in the server's input folder."""
        asked = {"filename": name, "subfolder": folder, "type": "input"}
        try:
            async with self.session.head(f"{self.url}/view", params=asked) as answer:
                return answer.status == 200 and answer.headers.get("Content-Length") == str(size)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise ServerLostError(f"{self.url}: {error!r}") from error

    async def upload(self, file: Path, name: str, folder: str) -> str:
        """Put a file into the server's input folder; its name there. Raises RefusedError, if it is too large."""
        with file.open("rb") as content:
            form = aiohttp.FormData()
            form.add_field("overwrite", "true")
            form.add_field("subfolder", folder)
            form.add_field("image", content, filename=name, content_type="application/octet-stream")
            answer = await self._json("POST", "/upload/image", data=form)
        return f"{answer['subfolder']}/{answer['name']}"

    async def download(self, file: dict[str, str], place: Path) -> None:
        """Fetch a file that a node reported to `place`: all of it or nothing."""
        asked = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        scratch = place.with_name(place.name + ".new")
        try:
            async with self.session.get(f"{self.url}/view", params=asked) as answer:
                await _check(answer, "/view")
                with scratch.open("wb") as written:
                    async for block in answer.content.iter_chunked(BLOCK):
                        written.write(block)
            scratch.replace(place)
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise ServerLostError(f"{self.url}: {error!r}") from error
        finally:
            scratch.unlink(missing_ok=True)

    async def messages(self) -> AsyncIterator[Told]:
        """What the server says, as long as it is there; ends by ServerLostError. First comes an empty one."""
        address = f"{self.url}/ws?clientId={self.client_id}"
        try:
            async with self.session.ws_connect(address, max_msg_size=0, heartbeat=120) as socket:
                yield Told()
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.BINARY:
                        if told := read_progress(message.data):
                            yield told
                    elif message.type == aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"].startswith("exec"):
                        yield Told()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise ServerLostError(f"{self.url}: {error!r}") from error
        raise ServerLostError(f"{self.url} closed the connection")

    async def _json(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        text = await self._request(method, path, **how)
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise ServerLostError(f"{self.url}{path} does not answer like ComfyUI") from error

    async def _request(self, method: str, path: str, **how: Any) -> str:
        try:
            async with self.session.request(method, self.url + path, **how) as answer:
                await _check(answer, path)
                return await answer.text()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise ServerLostError(f"{self.url}: {error!r}") from error


async def _check(answer: aiohttp.ClientResponse, path: str) -> None:
    """Raise what a bad status means."""
    if answer.status < 400:
        return
    text = await answer.text()
    if answer.status == 413:
        raise RefusedError("a file is larger than the server takes (its --max-upload-size); see --input-folder")
    if answer.status >= 500:
        raise ServerLostError(f"{path} answered {answer.status}: {text[:500]}")
    raise RefusedError(_reasons(text) or f"{path} answered {answer.status}: {text[:500]}")


def _reasons(text: str) -> str:
    """What ComfyUI says about a workflow that it refuses, in one line; empty if it is something else."""
    try:
        answer = json.loads(text)
        nodes = [
            f"{node['class_type']}: {error.get('details') or error['message']}"
            for node in answer.get("node_errors", {}).values()
            for error in node["errors"]
        ]
        return "; ".join(nodes) or str(answer["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def read_history(entry: dict[str, Any]) -> Outcome:
    """What an entry of /history says."""
    ended = dict(entry["status"].get("messages", []))
    if entry["status"].get("status_str") == "success":
        lists = (value for ui in entry["outputs"].values() for value in ui.values() if isinstance(value, list))
        files = (item for found in lists for item in found if isinstance(item, dict) and "filename" in item)
        return Outcome("success", tuple(files))
    if "execution_interrupted" in ended:
        return Outcome("interrupted", error="interrupted on the server")
    error = ended.get("execution_error", {})
    message = f"{error.get('node_type', 'the server')}: {str(error.get('exception_message', 'failed')).strip()}"
    return Outcome("error", error=message, lasting=str(error.get("exception_type", "")).endswith("InputError"))


def read_progress(data: bytes) -> Told | None:
    """The words of a binary message, if it is one of words."""
    if len(data) < 8:
        return None
    kind, length = struct.unpack(">II", data[:8])
    if kind != PROGRESS_TEXT:
        return None
    return Told(data[8 : 8 + length].decode(), data[8 + length :].decode(errors="replace"))

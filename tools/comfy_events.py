"""What a ComfyUI server says over its websocket while it works, kept by prompt."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

Status = Literal["success", "error", "interrupted"]


class ServerError(RuntimeError):
    """The server did not start, refused a request or went away; the message holds the end of its log."""


@dataclass(frozen=True)
class Message:
    """One message of the websocket: its type and data, and when it came (time.monotonic)."""

    type: str
    data: dict[str, Any]
    time: float


@dataclass(frozen=True)
class Result:
    """How a prompt ended; `outputs` is what nodes reported to the UI, by node id."""

    prompt_id: str
    status: Status
    outputs: dict[str, dict[str, Any]]
    messages: tuple[Message, ...]
    error: dict[str, Any] | None = None

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The data of all messages of one type, in order ("progress", "executing", "executed" …)."""
        return [message.data for message in self.messages if message.type == kind]

    def files(self) -> list[dict[str, str]]:
        """Every file that a node reported: {"filename", "subfolder", "type"}."""
        entries = (e for ui in self.outputs.values() for e in ui.values() if isinstance(e, list))
        return [item for entry in entries for item in entry if isinstance(item, dict) and "filename" in item]


class Listener(threading.Thread):
    """Reads the websocket in the background and keeps what came, by prompt."""

    def __init__(self, url: str) -> None:
        super().__init__(name="comfyui-websocket", daemon=True)
        self.url = url
        self.binary: list[bytes] = []
        self._messages: dict[str, list[Message]] = {}
        self._changed = threading.Condition()
        self._connected = threading.Event()
        self._failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None

    def start_and_wait(self, timeout: float) -> None:
        """Connect; raises ServerError when that fails."""
        self.start()
        if not self._connected.wait(timeout) or self._failure:
            raise ServerError(f"no websocket connection to {self.url}: {self._failure or 'timeout'}")

    def run(self) -> None:
        try:
            self._task = self._loop.create_task(self._read())
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except (aiohttp.ClientError, OSError) as error:
            self._failure = error
        finally:
            self._connected.set()
            self._loop.close()

    async def _read(self) -> None:
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.ws_connect(self.url, max_msg_size=0) as socket_,
        ):
            features = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
            await socket_.send_json(features)
            self._connected.set()
            async for message in socket_:
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._keep(json.loads(message.data))
                elif message.type == aiohttp.WSMsgType.BINARY:
                    self.binary.append(message.data)

    def _keep(self, message: dict[str, Any]) -> None:
        data = message.get("data") or {}
        prompt = data.get("prompt_id")
        if prompt is None:
            return
        with self._changed:
            self._messages.setdefault(prompt, []).append(Message(message["type"], data, time.monotonic()))
            self._changed.notify_all()

    def wait_for(self, prompt_id: str, seen: int, timeout: float) -> list[Message]:
        """The prompt's messages so far; waits up to `timeout` for more than `seen`."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._messages.get(prompt_id, ())) > seen, timeout)
            return list(self._messages.get(prompt_id, ()))

    def stop(self) -> None:
        """Disconnect and end the thread."""
        if self._task and self.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self.join(timeout=5)


def result_of(prompt_id: str, messages: list[Message]) -> Result:
    """What the messages of a finished prompt say."""
    ends: dict[str, Status] = {
        "execution_success": "success",
        "execution_error": "error",
        "execution_interrupted": "interrupted",
    }
    end = next((m for m in reversed(messages) if m.type in ends), None)
    status: Status = ends[end.type] if end else "error"
    outputs = {m.data["node"]: m.data["output"] or {} for m in messages if m.type == "executed"}
    error = end.data if end and status == "error" else None
    return Result(prompt_id, status, outputs, tuple(messages), error)

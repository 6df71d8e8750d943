"""Run ComfyClient in a thread, for programs without an event loop, and keep the websocket's messages."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

sys.path.append(str(Path(__file__).resolve().parent.parent / "client"))
from comfy_client import ComfyClient, Message

T = TypeVar("T")


class ClientThread(threading.Thread):
    """A thread with an event loop for `client`. binary: all binary messages; lost: why the websocket ended, or None.

    `call` works from any other thread between start_and_wait and stop.
    """

    def __init__(self, client: ComfyClient) -> None:
        super().__init__(name="comfyui-client", daemon=True)
        self.client = client
        self.binary: list[bytes] = []
        self.lost: Exception | None = None
        self._messages: dict[str, list[Message]] = {}  # by prompt id
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._stopping = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    def start_and_wait(self) -> None:
        """Start the thread and return when `call` is usable."""
        self.start()
        self._ready.wait()

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self.client:
            self._ready.set()
            await self._stopping.wait()
            if self._listening:
                self._listening.cancel()
                await asyncio.gather(self._listening, return_exceptions=True)

    def call(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """Run a coroutine of the client and return its result. Raises concurrent.futures.TimeoutError."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        finally:
            future.cancel()  # no effect if it is done

    async def listen(self) -> None:
        """Connect the websocket and keep its messages from now on. Raises ServerLostError. Must run inside `call`."""
        connected: asyncio.Future[None] = self._loop.create_future()
        self._listening = self._loop.create_task(self._read(connected))
        await connected

    async def _read(self, connected: asyncio.Future[None]) -> None:
        try:
            async for message in self.client.messages():
                if not connected.done():
                    connected.set_result(None)
                self._keep(message)
        except Exception as error:  # any error: nobody awaits this task, so waiting callers are notified
            if not connected.done():
                connected.set_exception(error)
            with self._changed:
                self.lost = error
                self._changed.notify_all()

    def _keep(self, message: Message) -> None:
        if message.binary:
            self.binary.append(message.binary)
        if prompt_id := message.data.get("prompt_id"):
            with self._changed:
                self._messages.setdefault(prompt_id, []).append(message)
                self._changed.notify_all()

    def wait_for(self, prompt_id: str, seen: int, timeout: float) -> list[Message]:
        """Return the prompt's messages so far.

        Waits up to `timeout` s for more than `seen` messages, or until the connection ends.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.lost or len(self._messages.get(prompt_id, ())) > seen, timeout)
            return list(self._messages.get(prompt_id, ()))

    def stop(self) -> None:
        """Disconnect and end the thread."""
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self.join(timeout=5)

"""How dub_folder.py carries jobs out: a worker for each server."""

from __future__ import annotations

import asyncio
import contextlib
import time

from client_errors import BusyError, RefusedError, ServerFaultError, ServerLostError, SetupError
from comfy_client import ComfyClient
from job_board import JobBoard
from node_schema import unfit
from results import ResultFolder
from server_jobs import LONGEST_BUSY, ServerJobs, WorkerSettings

LONGEST_WAIT = 30.0  # seconds between tries to reach a server; the first one is short
INTERRUPT_SECONDS = 10.0
SCHEMA_TRIES = 3


class Worker:
    """Keeps one server busy until no job is left."""

    def __init__(self, client: ComfyClient, board: JobBoard, settings: WorkerSettings, results: ResultFolder) -> None:
        self.client, self.board, self.settings = client, board, settings
        self.jobs = ServerJobs(client, board, settings, results)
        self._news = asyncio.Event()  # the state of a job may have changed
        self._wait = 1.0  # seconds until the next try to reach the server
        self._lost_since: float | None = None
        self._worked = False  # the server has once answered as ComfyUI does
        self._schema_tries = 0

    async def work(self) -> None:
        """Return when every job is settled, or this server has not come further for longer than `patience`."""
        while self.board.unsettled:
            try:
                await self.client.system_stats()
                if why := await self._unfit():
                    self._give_up(why, unfit=True)
                    return
                self._worked = True
                await self._work_while_connected()
            except (ServerLostError, RefusedError) as error:  # a proxy may refuse while the server behind it starts
                self._lost_since = time.monotonic() if self._lost_since is None else self._lost_since
                away = time.monotonic() - self._lost_since
                if away > self.settings.patience or (isinstance(error, SetupError) and not self._worked):
                    self._give_up(str(error))
                    return
                await self._rest(error, self.settings.patience - away)

    async def _rest(self, error: Exception, left: float) -> None:
        """Wait before the next try; `left` are the seconds of our patience."""
        asked = min(error.wait, LONGEST_BUSY) if isinstance(error, BusyError) else 0.0
        wait = min(max(self._wait, asked), left + 1.0)
        what = "is busy" if isinstance(error, BusyError) else "is away"
        print(f"[{self.client.shown}] {what}, next try in {wait:.0f} s ({error})", flush=True)
        await asyncio.sleep(wait)
        self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _give_up(self, why: str, unfit: bool = False) -> None:
        print(f"[{self.client.shown}] is given up: {why}", flush=True)
        self.board.give_up(self.client.shown, [active.job for active in self.jobs.active], why, unfit)

    async def _unfit(self) -> str:
        """Say why the server cannot carry out the jobs as they are written; empty if it can, or does not say."""
        if self._schema_tries >= SCHEMA_TRIES:
            return ""
        self._schema_tries += 1
        try:
            info = await self.client.object_info()
        except (ServerLostError, RefusedError) as error:
            lost = isinstance(error, ServerLostError) and not isinstance(error, ServerFaultError)
            if lost and self._schema_tries < SCHEMA_TRIES:
                raise
            print(f"[{self.client.shown}] does not tell its nodes, so settings are not checked ({error})", flush=True)
            self._schema_tries = SCHEMA_TRIES
            return ""
        self._schema_tries = SCHEMA_TRIES
        return unfit(info, self.settings.workflow, self.board.jobs)

    async def interrupt(self) -> None:
        """Stop our jobs on this server; the next start of the program resumes them."""
        for job in self.board.jobs_on(self.client.shown):
            with contextlib.suppress(ServerLostError, RefusedError, asyncio.TimeoutError):
                prompt = self.board.state.records[job.name].prompt
                await asyncio.wait_for(self.client.cancel(prompt), INTERRUPT_SECONDS)
            self.board.settle(job, state="interrupted")

    async def _work_while_connected(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            while self.board.unsettled:
                await self.jobs.queue_more()
                await self.jobs.check_all()
                self._wait, self._lost_since = 1.0, None
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self.settings.poll)
                self._news.clear()
                if listening.done():
                    listening.result()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        """Follow the websocket, and open it again when it ends: it shows progress, and nothing depends on it."""
        wait, silent = 1.0, 0
        while True:
            try:
                async for message in self.client.messages():
                    wait, silent = 1.0, 0
                    if message.type == "execution_start":
                        self.jobs.note_running(message.data.get("prompt_id"))
                    if message.type == "progress_text":
                        self.jobs.show_progress(str(message.data.get("text", "")))
                    elif message.type == "status" or message.type.startswith("exec"):
                        self._news.set()
            except (ServerLostError, RefusedError) as error:
                silent += 1
                if silent == 3:
                    print(f"[{self.client.shown}] sends no progress, only results ({error})", flush=True)
            self._news.set()  # the server may have gone away, which the next call finds
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

"""How dub_folder.py carries jobs out: a worker for each server, and the board from which workers take jobs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_client import ComfyClient, PromptOutcome, RefusedError, ServerLostError
from job_state import StateFile
from jobs import Job, JobError, fill_workflow

JOBS_AT_ONCE = 2  # on a server: one that runs, one that waits, so that it is never idle
LINE_SECONDS = 15.0  # between progress lines of a job within one chunk
LONGEST_WAIT = 30.0  # seconds between tries to reach a server; the first one is short
UPLOAD_FOLDER = "dub_folder"  # in the server's input folder
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v")
CHUNK = r"chunk (\d+)/"


@dataclass(frozen=True)
class WorkerSettings:
    """How jobs are carried out.

    out: folder for videos, reports and the state file. prefix: folder for videos in the server's output. input_folder:
    the server's, if this machine has it too. patience: seconds to wait for a server that does not answer. poll: seconds
    after which the outcome of a job is asked for again, where no message of the server comes before.
    """

    workflow: dict[str, Any]
    out: Path
    prefix: str = "dubbed"
    input_folder: Path | None = None
    retries: int = 2
    patience: float = 1800.0
    poll: float = 5.0


class JobBoard:
    """The jobs that no worker has taken yet, and the number of those without a result."""

    def __init__(self, jobs: list[Job], state: StateFile, urls: list[str]) -> None:
        self.jobs, self.state, self.urls = jobs, state, list(urls)
        self.waiting = [job for job in jobs if state.records[job.name].state != "finished"]
        self.unsettled = len(self.waiting)
        for job in self.waiting:
            if state.records[job.name].server not in urls:
                self._release(job)

    def _release(self, job: Job) -> None:
        self.state.update(job, state="waiting", server="", prompt="")

    def take(self, url: str, first: bool) -> Job | None:
        """Return a job for this server: one that is queued there, else a free one.

        Unless it is the server's first, only if there are free jobs for all servers.
        """
        queued_there = [job for job in self.waiting if self.state.records[job.name].server == url]
        free = [job for job in self.waiting if not self.state.records[job.name].server]
        if not first and len(free) < len(self.urls):
            free = []
        found = next(iter([*queued_there, *free]), None)
        if found is not None:
            self.waiting.remove(found)
        return found

    def jobs_on(self, url: str) -> list[Job]:
        """Return the jobs that this server has, or may have: its answer may be lost."""
        return [job for job in self.jobs if self.state.records[job.name].server == url]

    def give_up(self, url: str, taken: list[Job], why: str) -> None:
        """Release the jobs of a server that does not come back; if it was the last one, all of them have failed."""
        self.urls.remove(url)
        self.waiting += taken
        for job in list(self.waiting):
            if self.state.records[job.name].server == url:
                self._release(job)
            if not self.urls:
                self.waiting.remove(job)
                self.settle(job, state="failed", error=f"no server is left: {why}")

    def settle(self, job: Job, **result: Any) -> None:
        """Record that the job is finished, failed or interrupted."""
        self.unsettled -= 1
        record = self.state.update(job, **{"server": "", "prompt": "", **result})
        log(job, f"{record.state} {record.error or record.video}".strip())


@dataclass
class ActiveJob:
    """A job that is queued on a server.

    started: when it was queued, then when it was first seen running (time.monotonic). chunk: the newest one in
    progress. logged: when its last progress line was printed.
    """

    job: Job
    prompt: str
    running: bool = False
    started: float = field(default_factory=time.monotonic)
    chunk: int = 0
    logged: float = 0.0


class Worker:
    """Keeps one server busy until no job is left."""

    def __init__(self, client: ComfyClient, board: JobBoard, settings: WorkerSettings) -> None:
        self.client, self.board, self.settings = client, board, settings
        self.active: list[ActiveJob] = []
        self._news = asyncio.Event()  # the state of a job may have changed

    async def work(self) -> None:
        """Return when every job is settled, or this server has not answered for longer than `patience`."""
        wait = 1.0
        lost_since: float | None = None
        while self.board.unsettled:
            try:
                await self.client.system_stats()
                wait, lost_since = 1.0, None
                await self._work_while_connected()
            except (ServerLostError, RefusedError) as error:  # a proxy may refuse while the server behind it starts
                lost_since = time.monotonic() if lost_since is None else lost_since
                if time.monotonic() - lost_since > self.settings.patience:
                    self._give_up(error)
                    return
                print(f"[{self.client.url}] is away, next try in {wait:.0f} s ({error})", flush=True)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _give_up(self, why: Exception) -> None:
        print(f"[{self.client.url}] is given up: {why}", flush=True)
        self.board.give_up(self.client.url, [active.job for active in self.active], str(why))

    async def interrupt(self) -> None:
        """Stop our jobs on this server; the next start of the program resumes them."""
        for job in self.board.jobs_on(self.client.url):
            with contextlib.suppress(ServerLostError, RefusedError):
                await self.client.cancel(self.board.state.records[job.name].prompt)
            self.board.settle(job, state="interrupted")

    async def _work_while_connected(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            while self.board.unsettled:
                await self._queue_more()
                for active in list(self.active):
                    await self._check(active)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self.settings.poll)
                self._news.clear()
                if listening.done():
                    listening.result()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            async for message in self.client.messages():
                if message.type == "progress_text":
                    self._show_progress(message.data["text"])
                elif message.type == "status" or message.type.startswith("exec"):
                    self._news.set()
        finally:
            self._news.set()

    def _show_progress(self, text: str) -> None:
        """Print a line for each chunk, and every LINE_SECONDS between.

        A server sends these texts to all clients and without a prompt id: they are ours only while our job runs.
        """
        found = re.search(CHUNK, text)
        for active in self.active:
            if not active.running or found is None:
                continue
            chunk = int(found[1])
            if chunk > active.chunk:
                if active.chunk:
                    self.board.state.update(active.job, attempts=0)  # a new chunk: earlier failures no longer count
                active.chunk = chunk
            elif time.monotonic() - active.logged < LINE_SECONDS:
                continue
            active.logged = time.monotonic()
            log(active.job, text)

    async def _queue_more(self) -> None:
        while len(self.active) < JOBS_AT_ONCE and (job := self.board.take(self.client.url, first=not self.active)):
            try:
                record = self.board.state.records[job.name]
                active = ActiveJob(job, record.prompt)
                if record.prompt:
                    log(job, f"is on {self.client.url} already")
                else:
                    await self._queue(active)
                self.active.append(active)
            except (RefusedError, JobError, OSError) as error:
                self.board.settle(job, state="failed", error=str(error))
            except BaseException:
                self.board.waiting.insert(0, job)
                raise

    async def _queue(self, active: ActiveJob) -> None:
        """Upload the job's files where necessary and queue its workflow."""
        job, state = active.job, self.board.state
        source, voice = await self._input_name(job.source), await self._input_name(job.voice)
        workflow = fill_workflow(self.settings.workflow, job, source, voice, self.settings.prefix)
        active.running, active.started = False, time.monotonic()
        # Recorded first: if this program ends now, or the answer is lost, the server is asked about it later.
        active.prompt = str(uuid.uuid4())
        state.update(job, state="queued", server=self.client.url, prompt=active.prompt)
        active.prompt = await self.client.queue(workflow, active.prompt)
        state.update(job, prompt=active.prompt)
        log(job, f"queued on {self.client.url}")

    async def _input_name(self, file: Path) -> str:
        """The name of a file in the server's input folder, into which it is uploaded if it is not there."""
        folder = self.settings.input_folder
        if folder is not None and file.resolve().is_relative_to(folder.resolve()):
            return file.resolve().relative_to(folder.resolve()).as_posix()
        digest = await asyncio.to_thread(_content_hash, file)
        name = re.sub(r"[^\w.-]+", "_", f"{file.stem}_{digest}{file.suffix}")
        if await self.client.has(name, file.stat().st_size, UPLOAD_FOLDER):
            return f"{UPLOAD_FOLDER}/{name}"
        return await self.client.upload(file, name, UPLOAD_FOLDER)

    async def _check(self, active: ActiveJob) -> None:
        """Ask for the outcome of a job and act on it."""
        outcome = await self.client.outcome(active.prompt)
        if outcome.status == "pending":
            return
        if outcome.status == "running":
            if not active.running:
                active.running, active.started = True, time.monotonic()
            return
        record, now = self.board.state.records[active.job.name], time.monotonic()
        self.board.state.update(active.job, seconds=round(record.seconds + now - active.started, 1))
        active.started = now  # not counted twice, should the video have to be fetched twice
        if outcome.status == "unknown":
            await self._retry(active, "the server has lost the job", counts=active.running)
        elif outcome.status == "error" and not outcome.is_input_error:
            await self._retry(active, outcome.reason, counts=True)
        else:
            await self._settle(active, outcome)

    async def _retry(self, active: ActiveJob, why: str, counts: bool) -> None:
        """Queue the job again, which resumes it; after too many failures that count, give it up."""
        attempts = self.board.state.records[active.job.name].attempts + counts
        self.board.state.update(active.job, attempts=attempts, error=why)
        if attempts > self.settings.retries:
            self.active.remove(active)
            self.board.settle(active.job, state="failed", error=why)
            return
        log(active.job, f"{why}; queued again")
        try:
            await self._queue(active)
        except (RefusedError, JobError, OSError) as error:
            self.active.remove(active)
            self.board.settle(active.job, state="failed", error=str(error))

    async def _settle(self, active: ActiveJob, outcome: PromptOutcome) -> None:
        if outcome.status == "success":
            try:
                result = await self._fetch(active.job, outcome)
            except (RefusedError, OSError) as error:  # gone there, or no room here
                result = {"state": "failed", "error": f"the video is made, but cannot be fetched: {error}"}
        else:
            result = {"state": "failed" if outcome.status == "error" else "interrupted", "error": outcome.reason}
        self.active.remove(active)
        self.board.settle(active.job, **result)

    async def _fetch(self, job: Job, outcome: PromptOutcome) -> dict[str, Any]:
        """Download the video and, as the job's report, the manifest of its run."""
        videos = [file for file in outcome.files() if file["filename"].lower().endswith(VIDEO_SUFFIXES)]
        if not videos:
            return {"state": "failed", "error": "the workflow ended without a video"}
        file = videos[-1]
        video = self.settings.out / f"{job.name}{Path(file['filename']).suffix}"
        report = self.settings.out / f"{job.name}.json"
        await self.client.download(file, video)
        result = {"state": "finished", "video": video.name, "report": "", "error": "", "warnings": []}
        try:
            await self.client.download({**file, "filename": f"{Path(file['filename']).stem}.json"}, report)
            run = json.loads(report.read_text(encoding="utf-8")).get("run")
            if run:
                await self.client.download({"filename": "run.json", "subfolder": run, "type": "output"}, report)
            manifest = json.loads(report.read_text(encoding="utf-8"))
        except (RefusedError, ValueError, AttributeError):
            return {**result, "warnings": ["there is no report"]}
        warnings = [text for execution in manifest.get("executions", []) for text in execution["warnings"]]
        return {**result, "report": report.name, "warnings": list(dict.fromkeys(warnings))}


def _content_hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:8]


def log(job: Job, text: str) -> None:
    """Print a line about a job."""
    print(f"[{job.name}] {text}", flush=True)

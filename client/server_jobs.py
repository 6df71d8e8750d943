"""The jobs that one server has: sent there, asked about, fetched; and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_errors import (
    BusyError,
    JobError,
    RefusedError,
    ServerFaultError,
    ServerLostError,
    SetupError,
    disk_words,
    one_line,
)
from comfy_client import ComfyClient
from fetching import fetch
from file_names import shortened
from job_board import JobBoard, log
from jobs import Job, fill_workflow
from prompt_outcome import PromptOutcome
from results import ResultFolder, content_of

LONGEST_BUSY = 300.0  # seconds that a busy server may ask us to stay away
JOBS_AT_ONCE = 2  # on a server: one that runs, one that waits, so that it is never idle
LINE_SECONDS = 15.0  # between progress lines of a job within one chunk
UPLOAD_FOLDER = "dub_folder"  # in the server's input folder
UPLOAD_STEM = 100  # bytes of a file's name there
NOT_IN_UPLOADS = r"[^\w.-]+"
CHUNK = r"chunk (\d{1,9})/"


@dataclass(frozen=True)
class WorkerSettings:
    """How jobs are carried out.

    prefix: folder for videos in the server's output. input_folder:
    the server's, if this machine has it too. patience: seconds to wait for a server that does not answer. poll: seconds
    after which the outcome of a job is asked for again, where no message of the server comes before.
    """

    workflow: dict[str, Any]
    prefix: str = "dubbed"
    input_folder: Path | None = None
    retries: int = 2
    patience: float = 1800.0
    poll: float = 5.0


@dataclass
class ActiveJob:
    """A job that is queued on a server.

    started: when it was queued, then when it was first seen running (time.monotonic). chunk: the newest one in
    progress. logged: when its last progress line was printed. sent: the server may have got it. unknown_since: since
    when the server fails to say how it stands with it; 0 if it says. fetches: failed tries to fetch its video.
    """

    job: Job
    prompt: str
    running: bool = False
    started: float = field(default_factory=time.monotonic)
    chunk: int = 0
    logged: float = 0.0
    sent: bool = False
    unknown_since: float = 0.0
    fetches: int = 0


class ServerJobs:
    """Up to JOBS_AT_ONCE jobs on the server of `client`.

    Its methods raise ServerLostError when the server as a whole does not answer. A failure that concerns one job is
    counted for this job, and the others go on.
    """

    def __init__(self, client: ComfyClient, board: JobBoard, settings: WorkerSettings, results: ResultFolder) -> None:
        self.client, self.board, self.settings, self.results = client, board, settings, results
        self.active: list[ActiveJob] = []
        self._unanswered: set[str] = set()  # jobs that were sent, while the answer is lost

    def note_running(self, prompt_id: Any) -> None:
        """Note that the server has begun a prompt, if it is one of ours."""
        for active in self.active:
            if active.prompt == prompt_id and not active.running:
                active.running, active.started = True, time.monotonic()

    def show_progress(self, text: str) -> None:
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

    # -- to the server

    async def queue_more(self) -> None:
        """Queue jobs of the board until the server has enough."""
        while len(self.active) < JOBS_AT_ONCE and (job := self.board.take(self.client.shown, first=not self.active)):
            record = self.board.state.records[job.name]
            active = ActiveJob(job, record.prompt)
            if record.prompt:
                log(job, f"is on {self.client.shown} already")
                self.active.append(active)
            else:
                await self._queue(active)

    async def _queue(self, active: ActiveJob) -> None:
        """Queue a job that no list holds: it is active then, or settled, or waits on the board for another try."""
        job, board = active.job, self.board
        try:
            await self._send(active)
        except (RefusedError, JobError) as error:
            board.settle(job, state="failed", error=str(error))
        except ServerLostError as error:
            await self._not_queued(active, error)
        except OSError as error:
            board.settle(job, state="failed", error=disk_words(error))
        except BaseException:
            board.waiting.insert(0, job)
            raise
        else:
            board.no_trouble(job)
            self.active.append(active)

    async def _not_queued(self, active: ActiveJob, error: ServerLostError) -> None:
        """Let a job that the server did not take wait for another try; raise the error if the whole server is away."""
        job, board = active.job, self.board
        if active.sent and not isinstance(error, (BusyError, ServerFaultError, SetupError)):
            # The answer is lost, and the server may have the job: it is asked about it.
            self._unanswered.add(job.name)
            board.waiting.insert(0, job)
        else:
            board.release(job)
            if not isinstance(error, BusyError):
                self._count_failure(job, str(error))
            elif (troubled := board.troubled_for(job)) > self.settings.patience:
                board.settle(job, state="failed", error=str(error))
            else:
                log(job, f"{error}; tried again later")
                board.put_back(job, wait=min(max(1.0, troubled, error.wait), LONGEST_BUSY))
        if await self.is_away():
            raise error

    async def is_away(self) -> bool:
        """Whether the whole server fails, and not only what was asked about one job."""
        try:
            await self.client.system_stats()
        except (ServerLostError, RefusedError):
            return True
        return False

    async def _send(self, active: ActiveJob) -> None:
        """Upload the job's files where necessary and queue its workflow."""
        job, state = active.job, self.board.state
        active.sent = False
        source, voice = await self._input_name(job.source), await self._input_name(job.voice)
        workflow = fill_workflow(self.settings.workflow, job, source, voice, self.settings.prefix)
        active.running, active.started = False, time.monotonic()
        # Recorded first: if this program ends now, or the answer is lost, the server is asked about it later.
        active.prompt, active.sent = str(uuid.uuid4()), True
        state.update(job, state="queued", server=self.client.shown, prompt=active.prompt)
        submitted = await self.client.submit(workflow, active.prompt)
        active.prompt = submitted.prompt_id
        state.update(job, prompt=active.prompt)
        log(job, f"queued on {self.client.shown}")
        if submitted.ignored:
            log(job, f"the server leaves out a part of the workflow: {submitted.ignored}")

    def _count_failure(self, job: Job, why: str) -> None:
        """After too many failures give the job up, else let it wait while others go on."""
        attempts = self.board.state.records[job.name].attempts + 1
        self.board.state.update(job, attempts=attempts, error=why)
        if attempts > self.settings.retries:
            self.board.settle(job, state="failed", error=why)
        else:
            log(job, f"{why}; tried again later")
            self.board.put_back(job, wait=2.0 ** min(attempts - 1, 5))

    async def _input_name(self, file: Path) -> str:
        """The name of a file in the server's input folder, into which it is uploaded if it is not there."""
        folder = self.settings.input_folder
        if folder is not None and file.resolve().is_relative_to(folder.resolve()):
            return file.resolve().relative_to(folder.resolve()).as_posix()
        content = await asyncio.to_thread(content_of, file)
        stem = shortened(re.sub(NOT_IN_UPLOADS, "_", file.stem), UPLOAD_STEM)
        name = re.sub(NOT_IN_UPLOADS, "_", f"{stem}_{content.sha256[:8]}{file.suffix}")
        if await self.client.has(name, content.size, UPLOAD_FOLDER):
            return f"{UPLOAD_FOLDER}/{name}"
        return await self.client.upload(file, name, UPLOAD_FOLDER)

    # -- from the server

    async def check_all(self) -> None:
        """Ask for the outcome of every job and act on it."""
        for active in list(self.active):
            await self._check(active)

    async def _check(self, active: ActiveJob) -> None:
        try:
            outcome = await self.client.outcome(active.prompt)
        except (ServerLostError, RefusedError) as error:
            if isinstance(error, ServerLostError) and await self.is_away():
                active.unknown_since = 0.0
                raise
            active.unknown_since = active.unknown_since or time.monotonic()
            if time.monotonic() - active.unknown_since > self.settings.patience:
                self.active.remove(active)
                self.board.settle(active.job, state="failed", error=str(error))
            return
        active.unknown_since = 0.0
        if outcome.status == "unknown":
            await self._retry(active, "the server has lost the job", counts=self._is_suspect(active))
            return
        self._unanswered.discard(active.job.name)
        if outcome.status == "pending":
            return
        if outcome.status == "running":
            self.note_running(active.prompt)
            return
        record, now = self.board.state.records[active.job.name], time.monotonic()
        self.board.state.update(active.job, seconds=round(record.seconds + now - active.started, 1))
        active.started = now  # not counted twice, should the video have to be fetched twice
        if outcome.status == "error" and not outcome.is_input_error:
            await self._retry(active, outcome.reason, counts=True)
        else:
            await self._settle(active, outcome)

    def _is_suspect(self, active: ActiveJob) -> bool:
        """Whether a job that the server has lost may be why: the one just sent, or that ran, or else the first one."""
        sent = [other for other in self.active if other.job.name in self._unanswered]
        running = [other for other in self.active if other.running]
        return active in (sent or running or self.active[:1])

    async def _retry(self, active: ActiveJob, why: str, counts: bool) -> None:
        """Queue the job again, which resumes it; after too many failures that count, give it up."""
        job = active.job
        self.active.remove(active)
        if job.name in self._unanswered:
            self._unanswered.remove(job.name)
            self.board.release(job)
            self._count_failure(job, why)
            return
        attempts = self.board.state.records[job.name].attempts + counts
        self.board.state.update(job, attempts=attempts, error=why)
        if attempts > self.settings.retries:
            self.board.settle(job, state="failed", error=why)
            return
        log(job, f"{why}; queued again")
        await self._queue(active)

    async def _settle(self, active: ActiveJob, outcome: PromptOutcome) -> None:
        result: dict[str, Any] = {"state": "failed" if outcome.status == "error" else "interrupted"}
        result["error"] = outcome.reason
        if outcome.status == "success":
            try:
                result = await fetch(self.client, active.job, outcome, self.results)
            except ServerLostError as error:
                active.fetches += 1
                if active.fetches <= self.settings.retries:
                    log(active.job, f"the video is made, but not fetched yet: {error}")
                    if await self.is_away():
                        raise
                    return  # others go on; the next round tries again
                result = not_fetched(str(error))
            except RefusedError as error:  # gone there
                result = not_fetched(str(error))
            except OSError as error:  # no room here
                result = not_fetched(disk_words(error))
        self.active.remove(active)
        self.board.settle(active.job, **result)


def not_fetched(why: str) -> dict[str, Any]:
    """Return the result of a job whose video stays on the server; the next start of the program fetches it."""
    return {"state": "failed", "error": f"the video is made, but cannot be fetched: {one_line(why)}"}

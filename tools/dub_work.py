"""Jobs of tools/dub_folder.py on their way: who has which, one worker for each server."""

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

from dub_jobs import Job, JobError, StateFile, fill
from dub_server import DubServer, Outcome, RefusedError, ServerLostError

AT_ONCE = 2  # jobs on a server: one at work, one waiting, so that it never idles
LINE_SECONDS = 15.0  # between progress lines of a job within one chunk
LONGEST_WAIT = 30.0  # seconds between tries to reach a server; the first one is short
UPLOADS = "dub_folder"  # in the server's input folder
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v")
CHUNK = re.compile(r"chunk (\d+)/")


@dataclass(frozen=True)
class Settings:
    """How jobs are carried out. patience: seconds to wait for a server that is away; look: seconds between looks at
    what became of a job, besides when the server says that something has."""

    workflow: dict[str, Any]
    out: Path
    prefix: str = "dubbed"
    input_folder: Path | None = None
    retries: int = 2
    patience: float = 1800.0
    look: float = 5.0


class Board:
    """The jobs that nobody has yet, and how many are not settled."""

    def __init__(self, jobs: list[Job], state: StateFile, urls: list[str]) -> None:
        self.jobs, self.state, self.urls = jobs, state, list(urls)
        self.waiting = [job for job in jobs if state.entries[job.name].state != "finished"]
        self.open = len(self.waiting)
        for job in self.waiting:
            if state.entries[job.name].server not in urls:
                self._free(job)

    def _free(self, job: Job) -> None:
        self.state.note(job, state="waiting", server="", prompt="")

    def take(self, url: str, first: bool) -> Job | None:
        """A job for this server: one that it has already, else any. A second one only if each server gets a first."""
        mine = [job for job in self.waiting if self.state.entries[job.name].server == url]
        free = [job for job in self.waiting if not self.state.entries[job.name].server]
        if not first and len(free) < len(self.urls):
            free = []
        found = next(iter([*mine, *free]), None)
        if found is not None:
            self.waiting.remove(found)
        return found

    def on(self, url: str) -> list[Job]:
        """The jobs that this server has, or may have: its answer may be lost."""
        return [job for job in self.jobs if self.state.entries[job.name].server == url]

    def leave(self, url: str, jobs: list[Job], why: str) -> None:
        """This server does not come back: others get its jobs, and where none is left they have failed."""
        self.urls.remove(url)
        self.waiting += jobs
        for job in list(self.waiting):
            if self.state.entries[job.name].server == url:
                self._free(job)
            if not self.urls:
                self.waiting.remove(job)
                self.settle(job, state="failed", error=f"no server is left: {why}")

    def settle(self, job: Job, **result: Any) -> None:
        """The job is finished, failed or interrupted."""
        self.open -= 1
        entry = self.state.note(job, **{"server": "", "prompt": "", **result})
        say(job, f"{entry.state} {entry.error or entry.video}".strip())


@dataclass
class Active:
    """A job that a server has. began: when it was seen at work; chunk: how far it came; said: the time of its last
    line."""

    job: Job
    prompt: str
    running: bool = False
    began: float = field(default_factory=time.monotonic)
    chunk: int = 0
    said: float = 0.0


class Worker:
    """Keeps one server busy until no job is left."""

    def __init__(self, server: DubServer, board: Board, settings: Settings) -> None:
        self.server, self.board, self.settings = server, board, settings
        self.active: list[Active] = []
        self._news = asyncio.Event()

    async def work(self) -> None:
        """Return when every job is settled, or this server has been away for longer than our patience."""
        wait = 1.0
        away: float | None = None  # since when
        while self.board.open:
            try:
                await self.server.alive()
                wait, away = 1.0, None
                await self._serve()
            except (ServerLostError, RefusedError) as error:  # a proxy may refuse while the server behind it starts
                away = time.monotonic() if away is None else away
                if time.monotonic() - away > self.settings.patience:
                    self._leave(error)
                    return
                print(f"[{self.server.url}] is away, next try in {wait:.0f} s ({error})", flush=True)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _leave(self, why: Exception) -> None:
        print(f"[{self.server.url}] is given up: {why}", flush=True)
        self.board.leave(self.server.url, [active.job for active in self.active], str(why))

    async def interrupt(self) -> None:
        """Stop what this server does for us; the next start goes on."""
        for job in self.board.on(self.server.url):
            with contextlib.suppress(ServerLostError, RefusedError):
                await self.server.cancel(self.board.state.entries[job.name].prompt)
            self.board.settle(job, state="interrupted")

    async def _serve(self) -> None:
        """Work while the server is there."""
        listening = asyncio.create_task(self._listen())
        try:
            while self.board.open:
                await self._fill_up()
                for active in list(self.active):
                    await self._encode_reference(active)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self.settings.look)
                self._news.clear()
                if listening.done():
                    listening.result()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            async for told in self.server.messages():
                if told.text:
                    self._show(told.text)
                else:
                    self._news.set()
        finally:
            self._news.set()

    def _show(self, text: str) -> None:
        """A line for each chunk and now and then between. Words of others' jobs on this server are not ours."""
        found = CHUNK.search(text)
        for active in self.active:
            if not active.running or found is None:
                continue
            chunk = int(found[1])
            if chunk > active.chunk:
                if active.chunk:
                    self.board.state.note(active.job, attempts=0)  # it came on: whatever befell it was no dead end
                active.chunk = chunk
            elif time.monotonic() - active.said < LINE_SECONDS:
                continue
            active.said = time.monotonic()
            say(active.job, text)

    async def _fill_up(self) -> None:
        while len(self.active) < AT_ONCE and (job := self.board.take(self.server.url, first=not self.active)):
            try:
                entry = self.board.state.entries[job.name]
                active = Active(job, entry.prompt)
                if entry.prompt:
                    say(job, f"is on {self.server.url} already")
                else:
                    await self._queue(active)
                self.active.append(active)
            except (RefusedError, JobError, OSError) as error:
                self.board.settle(job, state="failed", error=str(error))
            except BaseException:
                self.board.waiting.insert(0, job)
                raise

    async def _queue(self, active: Active) -> None:
        """Put the job into the server's queue, its files into the input folder."""
        job, state = active.job, self.board.state
        source, voice = await self._place(job.source), await self._place(job.voice)
        workflow = fill(self.settings.workflow, job, source, voice, self.settings.prefix)
        active.running, active.began = False, time.monotonic()
        # Noted first: if we end between the two, or the answer is lost, the server is asked about it later.
        active.prompt = str(uuid.uuid4())
        state.note(job, state="queued", server=self.server.url, prompt=active.prompt)
        active.prompt = await self.server.queue(workflow, active.prompt)
        state.note(job, prompt=active.prompt)
        say(job, f"queued on {self.server.url}")

    async def _place(self, file: Path) -> str:
        """The name of a file in the server's input folder."""
        folder = self.settings.input_folder
        if folder is not None and file.resolve().is_relative_to(folder.resolve()):
            return file.resolve().relative_to(folder.resolve()).as_posix()
        mark = await asyncio.to_thread(_mark, file)
        name = re.sub(r"[^\w.-]+", "_", f"{file.stem}_{mark}{file.suffix}")
        if await self.server.has(UPLOADS, name, file.stat().st_size):
            return f"{UPLOADS}/{name}"
        return await self.server.upload(file, name, UPLOADS)

    async def _encode_reference(self, active: Active) -> None:
        """Act on what became of a job."""
        outcome = await self.server.outcome(active.prompt)
        if outcome.fate == "pending":
            return
        if outcome.fate == "running":
            if not active.running:
                active.running, active.began = True, time.monotonic()
            return
        entry, now = self.board.state.entries[active.job.name], time.monotonic()
        self.board.state.note(active.job, seconds=round(entry.seconds + now - active.began, 1))
        active.began = now  # not counted twice, should the video have to be fetched twice
        if outcome.fate == "unknown":
            await self._try_again(active, "the server has lost the job", counts=active.running)
        elif outcome.fate == "error" and not outcome.lasting:
            await self._try_again(active, outcome.error, counts=True)
        else:
            await self._settle(active, outcome)

    async def _try_again(self, active: Active, why: str, counts: bool) -> None:
        """Queue the job anew, which goes on where it stopped; not for ever if it never comes further."""
        attempts = self.board.state.entries[active.job.name].attempts + counts
        self.board.state.note(active.job, attempts=attempts, error=why)
        if attempts > self.settings.retries:
            self.active.remove(active)
            self.board.settle(active.job, state="failed", error=why)
            return
        say(active.job, f"{why}; queued again")
        try:
            await self._queue(active)
        except (RefusedError, JobError, OSError) as error:
            self.active.remove(active)
            self.board.settle(active.job, state="failed", error=str(error))

    async def _settle(self, active: Active, outcome: Outcome) -> None:
        if outcome.fate == "success":
            try:
                result = await self._fetch(active.job, outcome)
            except (RefusedError, OSError) as error:  # gone there, or no room here
                result = {"state": "failed", "error": f"the video is made, but cannot be fetched: {error}"}
        else:
            result = {"state": "failed" if outcome.fate == "error" else "interrupted", "error": outcome.error}
        self.active.remove(active)
        self.board.settle(active.job, **result)

    async def _fetch(self, job: Job, outcome: Outcome) -> dict[str, Any]:
        """Bring the video here, and the run's manifest, which is the job's report."""
        videos = [file for file in outcome.files if file["filename"].lower().endswith(VIDEO_SUFFIXES)]
        if not videos:
            return {"state": "failed", "error": "the workflow ended without a video"}
        file = videos[-1]
        video = self.settings.out / f"{job.name}{Path(file['filename']).suffix}"
        place = self.settings.out / f"{job.name}.json"
        await self.server.download(file, video)
        result = {"state": "finished", "video": video.name, "report": "", "error": "", "warnings": []}
        try:
            await self.server.download({**file, "filename": f"{Path(file['filename']).stem}.json"}, place)
            run = json.loads(place.read_text(encoding="utf-8")).get("run")
            if run:
                await self.server.download({"filename": "run.json", "subfolder": run, "type": "output"}, place)
            manifest = json.loads(place.read_text(encoding="utf-8"))
        except (RefusedError, ValueError, AttributeError):
            return {**result, "warnings": ["there is no report"]}
        warnings = [text for sitting in manifest.get("sittings", []) for text in sitting["warnings"]]
        return {**result, "report": place.name, "warnings": list(dict.fromkeys(warnings))}


def _mark(file: Path) -> str:
    """Some letters that change with the content."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:8]


def say(job: Job, text: str) -> None:
    """A line about a job."""
    print(f"[{job.name}] {text}", flush=True)

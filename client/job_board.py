"""The board from which the workers of dub_folder.py take jobs, and where they bring the results."""

from __future__ import annotations

import time
from typing import Any

from client_errors import one_line
from job_state import StateFile
from jobs import Job


class JobBoard:
    """The jobs that no worker has taken yet, and the number of those without a result.

    refusal: why no server can carry out the jobs as they are written; empty unless that is so.
    """

    def __init__(self, jobs: list[Job], state: StateFile, urls: list[str]) -> None:
        self.jobs, self.state, self.urls = jobs, state, list(urls)
        self.waiting = [job for job in jobs if state.records[job.name].state != "finished"]
        self.unsettled = len(self.waiting)
        self.refusal = ""
        self._servers = len(urls)
        self._unfit: list[str] = []  # why servers cannot carry out the jobs
        self._not_before: dict[str, float] = {}  # by job, on the clock of time.monotonic
        self._troubled_since: dict[str, float] = {}
        for job in self.waiting:
            record = state.records[job.name]
            if record.server not in urls or not record.prompt:
                self.release(job)

    def release(self, job: Job) -> None:
        """Record that no server has the job."""
        self.state.update(job, state="waiting", server="", prompt="")

    def take(self, url: str, first: bool) -> Job | None:
        """Return a job for this server: one that is queued there, else a free one.

        Unless it is the server's first, only if there are free jobs for all servers.
        """
        queued_there = [job for job in self.waiting if self.state.records[job.name].server == url]
        now = time.monotonic()
        free = [job for job in self.waiting if not self.state.records[job.name].server]
        free = [job for job in free if self._not_before.get(job.name, 0.0) <= now]
        if not first and len(free) < len(self.urls):
            free = []
        found = next(iter([*queued_there, *free]), None)
        if found is not None:
            self.waiting.remove(found)
        return found

    def put_back(self, job: Job, wait: float = 0.0) -> None:
        """Let a taken job wait behind the others, for at least `wait` seconds."""
        self._not_before[job.name] = time.monotonic() + wait
        self.waiting.append(job)

    def troubled_for(self, job: Job) -> float:
        """Return for how many seconds a server has answered to this job only that it cannot now."""
        now = time.monotonic()
        return now - self._troubled_since.setdefault(job.name, now)

    def no_trouble(self, job: Job) -> None:
        """Note that a server has taken the job."""
        self._troubled_since.pop(job.name, None)

    def jobs_on(self, url: str) -> list[Job]:
        """Return the jobs that this server has, or may have: its answer may be lost."""
        return [job for job in self.jobs if self.state.records[job.name].server == url]

    def give_up(self, url: str, taken: list[Job], why: str, unfit: bool = False) -> None:
        """Release the jobs of a server that does not come back; if it was the last one, all of them have failed.

        unfit: it cannot carry out the jobs as they are written. If that is so of every server, the jobs stay as they
        are: `refusal` says what to change.
        """
        self.urls.remove(url)
        self._unfit += [why] * unfit
        self.waiting += taken
        if len(self._unfit) == self._servers:
            self.refusal, self.unsettled = "; ".join(dict.fromkeys(self._unfit)), 0
            return
        for job in list(self.waiting):
            if self.state.records[job.name].server == url:
                self.release(job)
            if not self.urls:
                self.waiting.remove(job)
                self.settle(job, state="failed", error=f"no server is left: {why}")

    def settle(self, job: Job, **result: Any) -> None:
        """Record that the job is finished, failed or interrupted."""
        self.unsettled -= 1
        record = self.state.update(job, **{"server": "", "prompt": "", **result})
        log(job, f"{record.state} {record.error or record.video}".strip())


def log(job: Job, text: str) -> None:
    """Print a line about a job."""
    print(f"[{job.name}] {one_line(text, 2000)}", flush=True)

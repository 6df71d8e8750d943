"""The state file of dub_folder.py: what is queued, finished or failed, kept across restarts of the program."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from jobs import Job, JobError, Workflow

STATE_FILE = "dub_folder.json"  # in the output folder
JobState = Literal["waiting", "queued", "finished", "failed", "interrupted"]


def fingerprint(job: Job, workflow: Workflow) -> str:
    """Return a hash that changes when a file of the job (path, size, time), its settings or the workflow change."""
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in (job.source, job.voice)]
    text = json.dumps([files, dict(job.settings), workflow], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class JobRecord:
    """The state of a job, as the state file holds it.

    prompt: its prompt id on `server` while it is queued there. attempts: failures in a row without a new chunk.
    seconds: how long servers worked on it. video, report: names of files in the output folder.
    """

    state: JobState = "waiting"
    fingerprint: str = ""
    server: str = ""
    prompt: str = ""
    attempts: int = 0
    seconds: float = 0.0
    video: str = ""
    report: str = ""
    error: str = ""
    warnings: list[str] = field(default_factory=list)


class StateFile:
    """The records of all jobs, in a JSON file that is written at each change: a client that is killed goes on there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, JobRecord] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.records = {name: JobRecord(**fields) for name, fields in found["jobs"].items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(f"{path} cannot be read ({error!r}); move it away to begin anew") from error

    def begin(self, jobs: Iterable[Job], workflow: Workflow) -> None:
        """Start with these jobs: those that changed, and those whose video is gone, are to be made anew.

        Raises JobError if the report of one would replace this file.
        """
        for job in jobs:
            if f"{job.name}.json" == self.path.name:
                raise JobError(
                    f"no job can be called {job.name!r}: its report would replace {self.path.name}; rename it"
                )
            current = fingerprint(job, workflow)
            record = self.records.get(job.name)
            if record is None or record.fingerprint != current or not self._is_valid(record):
                self.records[job.name] = JobRecord(fingerprint=current)
        self.save()

    def _is_valid(self, record: JobRecord) -> bool:
        if record.state == "finished":
            return (self.path.parent / record.video).is_file()
        return record.state == "queued"

    def update(self, job: Job, **changes: Any) -> JobRecord:
        """Change fields of a job's record and write the file before returning."""
        record = self.records[job.name]
        for name, value in changes.items():
            setattr(record, name, value)
        self.save()
        return record

    def save(self) -> None:
        """Write the file; a crash meanwhile leaves the one that was there before."""
        jobs = {name: asdict(record) for name, record in self.records.items()}
        text = json.dumps({"version": 1, "jobs": jobs}, indent=1)
        scratch = self.path.with_suffix(".new")
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path)

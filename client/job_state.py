"""The state file of dub_folder.py: what is queued, finished or failed, and which files this program has made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from client_errors import JobError
from file_names import numbered, same_file_key
from jobs import Job, Workflow
from strict_json import parse, read_text

STATE_FILE = "dub_folder.json"  # in the output folder
PART_PREFIX, PART_SUFFIX = ".dub_folder-", ".part"  # of a file that is being fetched
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


@dataclass(frozen=True)
class MadeFile:
    """A file in the output folder as this program made it: for which job, its size in bytes, its SHA-256."""

    job: str = ""
    size: int = 0
    sha256: str = ""


class StateFile:
    """The records of all jobs, in a JSON file that is written at each change: a client that is killed goes on there.

    made: by name, the files in the output folder that this program made, and may replace while they are unchanged.
    parts: names of files that are being fetched, or were when the program was killed. What of the file is damaged is
    dropped and said; a file that is no such state is moved aside. Raises JobError if it can be neither read nor moved.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, JobRecord] = {}
        self.made: dict[str, MadeFile] = {}
        self.parts: list[str] = []
        self._unwritten = False
        if path.exists() or path.is_symlink():
            self._read()

    def _read(self) -> None:
        if not self.path.is_file():
            raise JobError(f"{self.path} is no file: move it away, its place is this program's")
        try:
            found = parse(read_text(self.path), str(self.path))
        except JobError as error:
            if isinstance(error.__cause__, OSError):
                raise
            self._move_aside(str(error))
            return
        if not isinstance(found, dict) or not isinstance(found.get("jobs"), dict):
            self._move_aside(f"{self.path} is no state of this program")
            return
        dropped: list[str] = []
        self.records = {name: _valid(JobRecord, entry, name, dropped) for name, entry in found["jobs"].items()}
        made = found.get("made", {})
        if not isinstance(made, dict):
            made, dropped = {}, [*dropped, "made"]
        known = {name: _valid(MadeFile, entry, name, dropped) for name, entry in made.items() if _is_plain(name)}
        self.made = {name: file for name, file in known.items() if file.sha256}
        parts = found.get("parts", [])
        self.parts = [name for name in parts if _is_part(name)] if isinstance(parts, list) else []
        if dropped:
            print(f"{self.path} was damaged; this part of it is dropped: {', '.join(dropped)[:500]}", flush=True)

    def _move_aside(self, why: str) -> None:
        names = numbered(f"{self.path.stem}.damaged", self.path.suffix)
        aside = next(path for path in map(self.path.with_name, names) if not path.exists() and not path.is_symlink())
        try:
            self.path.rename(aside)
        except OSError as error:
            raise JobError(f"{why}; move it away to begin anew ({error.strerror})") from error
        print(f"{why}: it is now {aside.name}, and the jobs are looked at anew", flush=True)

    def begin(self, jobs: Iterable[Job], workflow: Workflow) -> None:
        """Start with these jobs: those that changed, and those whose video is gone, are to be made anew.

        Raises JobError if the report of one would replace this file, and if a file cannot be read or written.
        """
        for job in jobs:
            if same_file_key(f"{job.name}.json") == same_file_key(self.path.name):
                raise JobError(
                    f"no job can be called {job.name!r}: its report would replace {self.path.name}; rename it"
                )
            try:
                current = fingerprint(job, workflow)
            except OSError as error:
                raise JobError(f"{job.called}: {error.filename} cannot be read: {error.strerror}") from error
            record = self.records.get(job.name)
            if record is None or record.fingerprint != current or not self._is_valid(record):
                self.records[job.name] = JobRecord(fingerprint=current)
        for name in self.parts:
            left = self.path.with_name(name)
            if left.is_file() and not left.is_symlink():
                with contextlib.suppress(OSError):
                    left.unlink()
        self.parts = []
        try:
            self._write()
        except OSError as error:
            raise JobError(f"{self.path} cannot be written: {error.strerror}") from error

    def _is_valid(self, record: JobRecord) -> bool:
        if record.state == "finished":
            return _is_plain(record.video) and (self.path.parent / record.video).is_file()
        return record.state == "queued"

    def update(self, job: Job, **changes: Any) -> JobRecord:
        """Change fields of a job's record and write the file before returning."""
        record = self.records[job.name]
        for name, value in changes.items():
            setattr(record, name, value)
        self.save()
        return record

    def save(self) -> bool:
        """Write the file; a crash meanwhile leaves the one that was there before. Return whether it is written.

        If the disk is full this is said once, and the next change tries again: the work goes on.
        """
        try:
            self._write()
        except OSError as error:
            if not self._unwritten:
                print(f"{self.path} cannot be written: {error.strerror}; this is tried again", flush=True)
            self._unwritten = True
            return False
        self._unwritten = False
        return True

    def _write(self) -> None:
        jobs = {name: asdict(record) for name, record in self.records.items()}
        made = {name: asdict(file) for name, file in self.made.items()}
        text = json.dumps({"version": 2, "jobs": jobs, "made": made, "parts": self.parts}, indent=1)
        scratch = self.path.with_name(f"{PART_PREFIX}state{PART_SUFFIX}")
        scratch.unlink(missing_ok=True)  # of a kill; if it is a link, only the link
        try:
            with scratch.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise
        sync_folder(self.path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder outlast a power cut, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows opens no folder, some network drives sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _valid(kind: type[Any], entry: Any, name: str, dropped: list[str]) -> Any:
    """Return an entry as a `kind`; fields of a wrong type get their default and are added to `dropped`."""
    made = kind()
    if not isinstance(entry, dict):
        dropped.append(name)
        return made
    wrong = [f.name for f in fields(kind) if f.name in entry and not _fits(entry[f.name], getattr(made, f.name))]
    state = entry.get("state", "waiting")
    if kind is JobRecord and "state" not in wrong and state not in get_args(JobState):
        wrong.append("state")
    dropped += [f"{name} ({key})" for key in wrong]
    return kind(**{f.name: entry[f.name] for f in fields(kind) if f.name in entry and f.name not in wrong})


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(default, str):
        return isinstance(value, str)
    kinds = (int, float) if isinstance(default, float) else (int,)
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= 0 and math.isfinite(value)


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip(". ")) and not any(c in name for c in "/\\\0")


def _is_part(name: Any) -> bool:
    return _is_plain(name) and name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)

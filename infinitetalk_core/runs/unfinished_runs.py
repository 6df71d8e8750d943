"""Runs that were begun and not finished: what they are, what they take, and how to be rid of old ones."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .disk import Disk
from .lock import RunLock
from .session import LOCK
from .store import FORMAT, MANIFEST

DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that is not finished. video: the file that it was to become; days: since anything in it was written."""

    folder: Path
    video: str
    size_bytes: int
    days: float

    def __str__(self) -> str:
        return f"{self.folder.name}: {self.video}, {self.size_bytes / 1e9:.2f} GB, {self.days:.1f} days old"


def unfinished_runs(runs: Path, now: float | None = None) -> list[UnfinishedRun]:
    """The unfinished runs in `runs`, the oldest first. What does not look like a run of ours is none."""
    now = time.time() if now is None else now
    found = []
    for manifest in runs.glob(f"*/{MANIFEST}"):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or not ours to read
            notes = json.loads(manifest.read_text(encoding="utf-8"))
            if not isinstance(notes, dict) or notes.get("format") != FORMAT or notes.get("state") != "unfinished":
                continue
            # The lock has a heartbeat, which says nothing about the work.
            files = [path.stat() for path in manifest.parent.iterdir() if path.is_file() and path.name != LOCK]
            days = (now - max(file.st_mtime for file in files)) / DAY_SECONDS
            size = sum(file.st_size for file in files)
            found.append(UnfinishedRun(manifest.parent, str(notes.get("video", "?")), size, days))
    return sorted(found, key=lambda run: -run.days)


def describe_unfinished_runs(found: Sequence[UnfinishedRun]) -> str:
    """How many there are and what they take, in a sentence."""
    size = sum(run.size_bytes for run in found) / 1e9
    runs = "1 unfinished run takes" if len(found) == 1 else f"{len(found)} unfinished runs take"
    oldest = f", the oldest is {max(run.days for run in found):.0f} days old" if found else ""
    return f"{runs} {size:.2f} GB in output/infinitetalk_runs{oldest}"


def remove(run: UnfinishedRun, older_than_days: float, now: float | None = None) -> bool:
    """Remove an unfinished run that nobody has written to for so long and nobody holds; whether it was removed.

    It is looked at again under its lock: somebody may have gone on with it, or finished it, in the meantime. A folder
    from the future (a clock that was wrong) is young.
    """
    try:
        with RunLock(run.folder / LOCK):
            again = {known.folder: known for known in unfinished_runs(run.folder.parent, now)}.get(run.folder)
            if again is None or again.days < older_than_days:
                return False
            # The manifest last: without it nobody would find the rest again.
            for path in sorted(run.folder.iterdir(), key=lambda path: path.name == MANIFEST):
                if path.is_file() and path.name != LOCK:
                    Disk().remove(path)
    except (InputError, OSError):  # it is being made, or the disk refuses
        return False
    # Not under the lock: Windows removes no file that is open. Where somebody has begun anew, the folder is not empty.
    with contextlib.suppress(OSError):
        (run.folder / LOCK).unlink()
        run.folder.rmdir()
    return True

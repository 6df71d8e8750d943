"""Listing and removal of unfinished runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, RunError
from ..file_access import read_object
from ..wording import counted
from .disk import Disk
from .lock import RunLock
from .manifest import FORMAT, MANIFEST, is_video_name
from .session import LOCK
from .store import own_files

DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class UnfinishedRun:
    """An unfinished run. video: its planned output file; days: since the last write to the folder."""

    folder: Path
    video: str
    size_bytes: int
    days: float

    def __str__(self) -> str:
        return f"{self.folder.name}: {self.video}, {self.size_bytes / 1e9:.2f} GB, {self.days:.1f} days old"


def unfinished_runs(runs: Path, now: float | None = None) -> list[UnfinishedRun]:
    """List the unfinished runs in `runs`, the oldest first. Folders that are not runs of this pack are ignored."""
    now = time.time() if now is None else now
    found = []
    for manifest in runs.glob(f"*/{MANIFEST}"):
        with contextlib.suppress(OSError, ValueError):  # removed meanwhile, or not readable
            notes = read_object(manifest) or {}  # of any version
            link = manifest.parent.is_symlink()
            if link or notes.get("format") != FORMAT or notes.get("state") != "unfinished":
                continue
            # Without the lock file: its heartbeat changes it without any progress of the run.
            files = [path.stat() for path in own_files(manifest.parent)]
            days = (now - max(file.st_mtime for file in files)) / DAY_SECONDS
            size = sum(file.st_size for file in files)
            video = notes["video"] if is_video_name(notes.get("video")) else "?"
            found.append(UnfinishedRun(manifest.parent, video, size, days))
    return sorted(found, key=lambda run: -run.days)


def describe_unfinished_runs(found: Sequence[UnfinishedRun]) -> str:
    """Describe the number, the total size and the greatest age of `found` in a sentence."""
    size = sum(run.size_bytes for run in found) / 1e9
    runs = f"{counted(len(found), 'unfinished run')} {'takes' if len(found) == 1 else 'take'}"
    oldest = f", the oldest is {counted(round(max(run.days for run in found)), 'day')} old" if found else ""
    return f"{runs} {size:.2f} GB in output/infinitetalk_runs{oldest}"


def remove(run: UnfinishedRun, older_than_days: float, now: float | None = None) -> bool:
    """Remove an unfinished run that is older than `older_than_days` and not locked. Returns whether it was removed.

    Its state is read again under its lock, because it may have been resumed or finished in the meantime. A folder with
    times in the future (a wrong clock) counts as new.
    """
    try:
        with RunLock(run.folder / LOCK):
            again = {known.folder: known for known in unfinished_runs(run.folder.parent, now)}.get(run.folder)
            if again is None or again.days < older_than_days:
                return False
            # The manifest last: without it, remaining files would not be found again.
            for path in sorted(own_files(run.folder), key=lambda path: path.name == MANIFEST):
                Disk().remove(path)
    except (RunError, InputError, OSError):  # the run is in progress, or the disk fails
        return False
    # After releasing the lock: Windows cannot delete an open file. If the run was begun anew, the folder is not empty.
    with contextlib.suppress(OSError):
        (run.folder / LOCK).unlink()
        run.folder.rmdir()
    return True

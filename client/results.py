"""The output folder: results get names there that replace nothing but what this program made itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from comfy_client import Content
from file_names import numbered, safe_name, same_file_key, shortened
from job_state import PART_PREFIX, PART_SUFFIX, MadeFile, StateFile, sync_folder
from jobs import Job

LONGEST_STEM = 200  # bytes: room for " (2)" and the longest suffix


class ResultFolder:
    """The folder of a state file. inputs: files that are never replaced, whatever the state says of them.

    A file is replaced only if the state notes it as made by this program for the same job, and it has the noted size
    and hash still: not if a person has edited it, and not if another system takes the name for that of another file.
    """

    def __init__(self, state: StateFile, inputs: Iterable[Path]) -> None:
        self.folder, self.state = state.path.parent, state
        self._inputs = {_identity(path) for path in inputs} - {None}

    @contextlib.contextmanager
    def part(self) -> Iterator[Path]:
        """Yield a path for a file that is being fetched; what is left there at the end is removed.

        It is noted before, so that the next start of the program removes what a kill leaves.
        """
        path = self.folder / f"{PART_PREFIX}{uuid.uuid4().hex}{PART_SUFFIX}"
        self.state.parts.append(path.name)
        self.state.save()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            self.state.parts.remove(path.name)
            self.state.save()

    def place(self, part: Path, content: Content, job: Job, suffix: str) -> tuple[str, str]:
        """Give a fetched file the job's name, or the next free one, and note it as made.

        Return the name, and a warning if it is not the usual one. Raises OSError.
        """
        usual = shortened(safe_name(job.name), LONGEST_STEM)
        for name in numbered(usual, suffix):
            found = self._place_as(name, part, content, job)
            if found is None:
                continue
            self.state.made[found] = MadeFile(job.name, content.size, content.sha256)
            self.state.save()
            kept = f"{usual}{suffix} was there and is not this program's or was changed: it is kept, this is {found}"
            return found, "" if same_file_key(found) == same_file_key(f"{usual}{suffix}") else kept
        raise OSError(f"there are too many files called {usual}")

    def _place_as(self, name: str, part: Path, content: Content, job: Job) -> str | None:
        """Return the name that the file has now; None if this name is taken."""
        there = [other for other in os.listdir(self.folder) if same_file_key(other) == same_file_key(name)]
        target = self.folder / (there[0] if there else name)
        if there and (len(there) > 1 or not self._is_ours(target, content, job)):
            return None
        if not there:
            try:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # no one else takes it
            except FileExistsError:
                return None
        try:
            os.replace(part, target)
        except OSError:
            if not there:
                target.unlink(missing_ok=True)
            raise
        sync_folder(self.folder)
        return target.name

    def _is_ours(self, path: Path, content: Content, job: Job) -> bool:
        """Whether a file may be replaced: as we made it for this job, or the very content that is to be written."""
        if path.is_symlink() or not path.is_file() or _identity(path) in self._inputs:
            return False
        noted = self.state.made.get(path.name)
        if noted is not None and noted.job != job.name:
            return False
        known = {content} | ({Content(noted.size, noted.sha256)} if noted else set())
        size = path.stat().st_size
        return any(item.size == size for item in known) and content_of(path) in known


def content_of(path: Path) -> Content:
    """Return size and hash of a file. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return Content(size, digest.hexdigest())


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells whether two paths are one file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

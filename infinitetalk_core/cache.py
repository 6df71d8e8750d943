"""Models that are loaded once and shared by all who ask for them, as long as anybody uses them and a while longer.

What a user of a model holds is a `Lease`. A model whose last lease has ended is idle: it is kept for the next who asks,
as far as the budget allows, and the one that has been idle longest goes first. A model on lease never goes.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class FileStamp:
    """What a file on disk is, without reading it: equal as long as nobody has replaced or rewritten it.

    parts: (name, size in bytes, times in ns of the last change of content and of inode, inode) of the file, or of each
    file of a model that is a folder. The inode tells a replaced file of equal size and times; it is 0 where the file
    system has none. The second time tells a change whose first time was set back (cp -p, editors, archives).
    """

    path: str
    parts: tuple[tuple[str, int, int, int, int], ...]

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Of a file or a folder, links followed. Raises OSError where there is none."""
        place = path.resolve()
        files = sorted(f for f in place.iterdir() if f.is_file()) if place.is_dir() else [place]
        return cls(str(place), tuple(_state(file.name, file.stat()) for file in files))

    @classmethod
    def of_open(cls, file: IO[bytes]) -> FileStamp:
        """Of an open file, which need not be the one that has its name by now. Raises OSError."""
        return cls(str(file.name), (_state(Path(file.name).name, os.fstat(file.fileno())),))

    def same_content(self, other: FileStamp) -> bool:
        """Whether sizes and times of content are equal. The time of the inode alone also changes when a file is renamed
        or loses its name."""
        return [part[1:3] for part in self.parts] == [part[1:3] for part in other.parts]

    @property
    def changed_ns(self) -> int:
        """The last change of a file's content or inode, in ns since 1970."""
        return max((max(part[2], part[3]) for part in self.parts), default=0)


def _state(name: str, status: os.stat_result) -> tuple[str, int, int, int, int]:
    return name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@dataclass(frozen=True)
class ModelKey:
    """What is asked for: a file, what it is to be loaded as, and every option that makes other weights of it.

    What only changes how weights are used (attention, strength) does not belong here.
    """

    file: FileStamp
    kind: str
    options: tuple[Any, ...] = ()

    def is_older_state_of(self, other: ModelKey) -> bool:
        """Whether both are the same request, and the file has changed in between."""
        same = (self.file.path, self.kind, self.options) == (other.file.path, other.kind, other.options)
        return same and self.file != other.file


class Lease:
    """The right to use a model. It ends when nobody holds it any more."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass
class Entry:
    """A model in the cache. users: leases that have not ended. idle_since: a count that only grows."""

    key: ModelKey
    value: Any
    size_bytes: int
    users: int = 0
    idle_since: int = 0
    keep: bool = True  # once it is idle


@dataclass(frozen=True)
class Contents:
    """A look into the cache. entries: those longest idle first, those in use last. evictions: for want of room."""

    entries: tuple[Entry, ...]
    budget_bytes: int
    hits: int
    misses: int
    evictions: int

    @property
    def idle_bytes(self) -> int:
        """Of the models that nobody uses."""
        return sum(entry.size_bytes for entry in self.entries if not entry.users)


@dataclass
class _Counts:
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    clock: int = 0


@dataclass
class ModelCache:
    """One for all. Every method may be called from any thread.

    budget_bytes: for idle models. size: the bytes of a loaded model.
    """

    budget_bytes: int
    size: Callable[[Any], int]
    _entries: dict[ModelKey, Entry] = field(default_factory=dict)
    _loading: dict[ModelKey, threading.Event] = field(default_factory=dict)
    # Entries whose lease has ended. The end comes from the garbage collector: in any thread, in the middle of
    # anything, even while that thread holds the lock. So it is noted here and dealt with as soon as the lock is free.
    _ended: deque[Entry] = field(default_factory=deque)
    _counts: _Counts = field(default_factory=_Counts)
    _lock: Any = field(default_factory=threading.Lock)

    def get(self, key: ModelKey, load: Callable[[], Any]) -> Lease:
        """A lease of the model of `key`, which `load` makes if it is not here. Who asks while another is loading it
        waits; if that fails, the error is the other's, and the next one tries for himself."""
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None:
                    self._counts.hits += 1
                    lease = self._lend(entry)
                    break
                others = self._loading.get(key)
                if others is None:
                    self._loading[key] = threading.Event()
                    self._counts.misses += 1
            if others is None:
                lease = self._load(key, load)
                break
            others.wait()
        self._settle()
        return lease

    def set_budget(self, budget_bytes: int) -> None:
        """What idle models may take from now on."""
        with self._lock:
            self.budget_bytes = budget_bytes
            gone = self._make_room()
        # Outside the lock, here and below: freeing a model runs other people's code.
        gone.clear()
        self._settle()

    def empty(self, can_go: Callable[[Any], bool] = lambda value: True) -> bool:
        """Let idle models go, and those in use as soon as they are idle, unless they are asked for again until then.

        can_go: which of the idle ones can go right now. Returns whether none of them is left.
        """
        with self._lock:
            self._note_ends()
            for entry in self._entries.values():
                entry.keep = False
            gone = [e for e in self._entries.values() if not e.users and can_go(e.value)]
            self._take_out(gone)
            none_left = all(e.users for e in self._entries.values())
        gone.clear()
        self._settle()
        return none_left

    def contents(self) -> Contents:
        """What is in it now."""
        self._settle()
        with self._lock:
            entries = sorted(self._entries.values(), key=lambda e: (e.users > 0, e.idle_since))
            counts = self._counts
            return Contents(tuple(entries), self.budget_bytes, counts.hits, counts.misses, counts.evictions)

    def _load(self, key: ModelKey, load: Callable[[], Any]) -> Lease:
        gone: list[Entry] = []
        try:
            value = load()
            size = self.size(value)
            with self._lock:
                for entry in self._entries.values():
                    # Nobody can ask for it again.
                    entry.keep &= not entry.key.is_older_state_of(key)
                entry = self._entries[key] = Entry(key, value, size)
                lease = self._lend(entry)
                gone = self._make_room()
        finally:
            with self._lock:
                self._loading.pop(key).set()
        gone.clear()
        return lease

    def _lend(self, entry: Entry) -> Lease:
        entry.users += 1
        entry.keep = True
        lease = Lease(entry.value)
        weakref.finalize(lease, self._end, entry).atexit = False
        return lease

    def _end(self, entry: Entry) -> None:
        self._ended.append(entry)
        self._settle()

    def _settle(self) -> None:
        """Take note of ended leases and make room. Never waits: whoever has the lock comes here after releasing it."""
        while self._ended and self._lock.acquire(blocking=False):
            try:
                gone = self._make_room()
            finally:
                self._lock.release()
            gone.clear()

    def _make_room(self) -> list[Entry]:
        """What goes; the lock is held."""
        self._note_ends()
        idle = sorted((e for e in self._entries.values() if not e.users), key=lambda e: e.idle_since)
        gone = [entry for entry in idle if not entry.keep]
        kept = [entry for entry in idle if entry.keep]
        over = sum(entry.size_bytes for entry in kept) - self.budget_bytes
        while over > 0:
            gone.append(kept.pop(0))
            over -= gone[-1].size_bytes
            self._counts.evictions += 1
        self._take_out(gone)
        return gone

    def _note_ends(self) -> None:
        while self._ended:
            entry = self._ended.popleft()
            entry.users -= 1
            self._counts.clock += 1
            entry.idle_since = self._counts.clock

    def _take_out(self, gone: list[Entry]) -> None:
        for key in [entry.key for entry in gone]:
            del self._entries[key]

"""A reference-counted cache of loaded models, shared by all callers, with a byte budget for idle ones.

A caller holds a `Lease` on a model. A model without leases is idle: it stays cached while the idle models fit the
budget, and the one that has been idle longest is evicted first. A model with a lease is never evicted.
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
    """Identifies the state of a file on disk without reading it: equal as long as it is neither replaced nor rewritten.

    parts: (name, size in bytes, times in ns of the last change of content and of inode, inode) of the file, or of each
    file of a model that is a folder. The inode tells a replaced file of equal size and times; it is 0 where the file
    system has none. The second time tells a change whose first time was set back (cp -p, editors, archives).
    """

    path: str
    parts: tuple[tuple[str, int, int, int, int], ...]

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Return the stamp of a file or a folder, following links. Raises OSError if it does not exist."""
        resolved = path.resolve()
        files = sorted(f for f in resolved.iterdir() if f.is_file()) if resolved.is_dir() else [resolved]
        return cls(str(resolved), tuple(_state(file.name, file.stat()) for file in files))

    @classmethod
    def of_open(cls, file: IO[bytes]) -> FileStamp:
        """Return the stamp of an open file, even if another file has its name by now. Raises OSError."""
        return cls(str(file.name), (_state(Path(file.name).name, os.fstat(file.fileno())),))

    def same_content(self, other: FileStamp) -> bool:
        """Return whether sizes and content times are equal. Inode times are ignored: they also change when a file is
        renamed or unlinked."""
        return [part[1:3] for part in self.parts] == [part[1:3] for part in other.parts]

    @property
    def changed_ns(self) -> int:
        """The time of the latest change of any file's content or inode, in ns since 1970; 0 without files."""
        return max((max(part[2], part[3]) for part in self.parts), default=0)


def _state(name: str, status: os.stat_result) -> tuple[str, int, int, int, int]:
    return name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@dataclass(frozen=True)
class ModelKey:
    """Key of a cached model: the file, what it is loaded as, and every option that changes the loaded weights.

    Options that only change how the weights are used (attention, strength) do not belong here.
    """

    file: FileStamp
    kind: str
    options: tuple[Any, ...] = ()

    def is_older_state_of(self, other: ModelKey) -> bool:
        """Return whether both keys are the same request and the file has changed in between."""
        same = (self.file.path, self.kind, self.options) == (other.file.path, other.kind, other.options)
        return same and self.file != other.file


class Lease:
    """A reference to a cached model (`value`). It ends when the garbage collector frees it."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass
class Entry:
    """A model in the cache.

    users: number of open leases; idle_since: value of the cache's clock (a counter) when the last lease ended; keep:
    whether it may stay once it is idle.
    """

    key: ModelKey
    value: Any
    size_bytes: int
    users: int = 0
    idle_since: int = 0
    keep: bool = True


@dataclass(frozen=True)
class Contents:
    """A snapshot of the cache. entries: longest idle first, those in use last; evictions: caused by the budget."""

    entries: tuple[Entry, ...]
    budget_bytes: int
    hits: int
    misses: int
    evictions: int

    @property
    def idle_bytes(self) -> int:
        """Total size of the models without leases."""
        return sum(entry.size_bytes for entry in self.entries if not entry.users)


@dataclass
class _Counts:
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    clock: int = 0


@dataclass
class ModelCache:
    """A thread-safe model cache; one instance serves the whole process.

    budget_bytes: for idle models; size: returns the size of a loaded model in bytes.
    """

    budget_bytes: int
    size: Callable[[Any], int]
    _entries: dict[ModelKey, Entry] = field(default_factory=dict)
    _loading: dict[ModelKey, threading.Event] = field(default_factory=dict)
    # Entries whose lease has ended. Finalizers run in any thread at any point, even while that thread holds the lock,
    # so they only append here; `_process_ended` handles the entries as soon as the lock is free.
    _ended: deque[Entry] = field(default_factory=deque)
    _counts: _Counts = field(default_factory=_Counts)
    _lock: Any = field(default_factory=threading.Lock)

    def get(self, key: ModelKey, load: Callable[[], Any]) -> Lease:
        """Return a lease on the model of `key`, calling `load` if it is not cached.

        Concurrent callers for the same key wait for the first load. If it raises, only its caller sees the error, and
        the next waiter loads again.
        """
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None:
                    self._counts.hits += 1
                    lease = self._new_lease(entry)
                    break
                loading = self._loading.get(key)
                if loading is None:
                    self._loading[key] = threading.Event()
                    self._counts.misses += 1
            if loading is None:
                lease = self._load(key, load)
                break
            loading.wait()
        self._process_ended()
        return lease

    def set_budget(self, budget_bytes: int) -> None:
        """Change the budget for idle models and evict what exceeds it."""
        with self._lock:
            self.budget_bytes = budget_bytes
            evicted = self._evict()
        # Outside the lock, here and below: freeing a model runs code of other packages (finalizers).
        evicted.clear()
        self._process_ended()

    def empty(self, can_go: Callable[[Any], bool] = lambda value: True) -> bool:
        """Evict idle models now, and models in use when they become idle, unless they are requested again before that.

        can_go: whether an idle model can be evicted right now. Returns whether no idle model is left.
        """
        with self._lock:
            self._release_ended()
            for entry in self._entries.values():
                entry.keep = False
            evicted = [e for e in self._entries.values() if not e.users and can_go(e.value)]
            self._remove(evicted)
            none_left = all(e.users for e in self._entries.values())
        evicted.clear()
        self._process_ended()
        return none_left

    def contents(self) -> Contents:
        """Return a snapshot of entries and counters."""
        self._process_ended()
        with self._lock:
            entries = sorted(self._entries.values(), key=lambda e: (e.users > 0, e.idle_since))
            counts = self._counts
            return Contents(tuple(entries), self.budget_bytes, counts.hits, counts.misses, counts.evictions)

    def _load(self, key: ModelKey, load: Callable[[], Any]) -> Lease:
        evicted: list[Entry] = []
        try:
            value = load()
            size = self.size(value)
            with self._lock:
                for entry in self._entries.values():
                    # The file has changed, so no later key can match this entry.
                    entry.keep &= not entry.key.is_older_state_of(key)
                entry = self._entries[key] = Entry(key, value, size)
                lease = self._new_lease(entry)
                evicted = self._evict()
        finally:
            with self._lock:
                self._loading.pop(key).set()
        evicted.clear()
        return lease

    def _new_lease(self, entry: Entry) -> Lease:
        entry.users += 1
        entry.keep = True
        lease = Lease(entry.value)
        weakref.finalize(lease, self._on_lease_end, entry).atexit = False
        return lease

    def _on_lease_end(self, entry: Entry) -> None:
        self._ended.append(entry)
        self._process_ended()

    def _process_ended(self) -> None:
        """Process ended leases and evict. Never blocks: a thread that holds the lock calls this after releasing it."""
        while self._ended and self._lock.acquire(blocking=False):
            try:
                evicted = self._evict()
            finally:
                self._lock.release()
            evicted.clear()

    def _evict(self) -> list[Entry]:
        """Remove idle entries that must not be kept or exceed the budget, and return them.

        The caller holds the lock.
        """
        self._release_ended()
        idle = sorted((e for e in self._entries.values() if not e.users), key=lambda e: e.idle_since)
        evicted = [entry for entry in idle if not entry.keep]
        kept = [entry for entry in idle if entry.keep]
        excess = sum(entry.size_bytes for entry in kept) - self.budget_bytes
        while excess > 0:
            evicted.append(kept.pop(0))
            excess -= evicted[-1].size_bytes
            self._counts.evictions += 1
        self._remove(evicted)
        return evicted

    def _release_ended(self) -> None:
        while self._ended:
            entry = self._ended.popleft()
            entry.users -= 1
            self._counts.clock += 1
            entry.idle_since = self._counts.clock

    def _remove(self, evicted: list[Entry]) -> None:
        for key in [entry.key for entry in evicted]:
            del self._entries[key]

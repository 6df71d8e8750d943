"""float32 buffers that move from memory to an unnamed temporary file when they grow large.

The file disappears with its last user, and with the process, however that ends.
"""

from __future__ import annotations

import tempfile
import threading
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import disk_error

# Smaller buffers stay in memory: the speech encoder needs about as much anyway (a window of 3 minutes has 166 MB).
# 256 MB hold 4.6 minutes of features of wav2vec base or over an hour of a voice at 16 kHz.
KEPT_BYTES = 256 << 20
COPIED_NUMBERS = 1 << 20

Floats = NDArray[np.float32]


def nameless_file(folder: Path) -> IO[bytes]:
    """Open a new unnamed temporary file in `folder`, which is created if missing. Raises OSError in one sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        raise disk_error(folder, error) from error


def write_all(file: IO[bytes], numbers: Floats, folder: Path) -> None:
    """Append `numbers` to `file`. Raises OSError in one sentence.

    Uses write, not mmap: on a full disk, storing to a mapped page kills the process (SIGBUS).
    """
    view = memoryview(np.ascontiguousarray(numbers).view(np.uint8).reshape(-1))  # type: ignore[arg-type]
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise disk_error(folder, error) from error


class DiskTensor:
    """float32 rows in an unnamed file, read a few at a time. Thread-safe.

    shape: (rows, *shape of one row). The file is read, not mapped: mapped pages count as memory of this process, which
    must not grow with length.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...]) -> None:
        self._file, self.shape = file, shape
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Read the rows with these indices (integers from 0, any shape): (*shape of indices, *shape of one row)."""
        flat = rows.reshape(-1)
        first, last = int(flat.min()), int(flat.max())
        block = self._read(first, last + 1)
        return block[flat - first].reshape(*rows.shape, *self.shape[1:])

    def _read(self, first: int, stop: int) -> Tensor:
        size = prod(self.shape[1:])
        with self._lock:
            self._file.seek(first * size * 4)
            data = bytearray((stop - first) * size * 4)
            view = memoryview(data)
            while view:
                count = self._file.readinto(view)  # type: ignore[attr-defined]
                if not count:
                    raise OSError("the temporary file with the speech features is shorter than it was: run again")
                view = view[count:]
        return torch.frombuffer(data, dtype=torch.float32).reshape(stop - first, *self.shape[1:])


class RowWriter:
    """Collects float32 rows of a tensor whose `shape` is known from the start.

    folder: where to store them if they take more than 256 MB in all; None keeps them in memory.
    """

    def __init__(self, shape: tuple[int, ...], folder: Path | None = None) -> None:
        self._shape, self._folder = shape, folder
        self._file: IO[bytes] | None = None
        self._tensor: Tensor | None = None
        self._count = 0
        if folder is not None and prod(shape) * 4 > KEPT_BYTES:
            self._file = nameless_file(folder)
        else:
            self._tensor = torch.zeros(shape)

    def append(self, rows: Tensor) -> None:
        """Append `rows`. Raises OSError, in one sentence, when the disk is full."""
        if self._tensor is not None:
            self._tensor[self._count : self._count + len(rows)] = rows
        else:
            assert self._file is not None and self._folder is not None
            write_all(self._file, rows.numpy(), self._folder)
        self._count += len(rows)

    def rows(self) -> Tensor | DiskTensor:
        """Return all rows: a tensor, or a `DiskTensor`, which is indexed like one."""
        if self._tensor is not None:
            return self._tensor
        assert self._file is not None
        return DiskTensor(self._file, self._shape)


class Spool:
    """Collects float32 numbers of unknown total length into one array.

    folder: where to store them once they take more than 256 MB; None keeps everything in memory. shared: number of
    spools that grow side by side and share the 256 MB.
    """

    def __init__(self, folder: Path | None = None, shared: int = 1) -> None:
        self._folder, self._kept = folder, KEPT_BYTES // shared
        self._parts: list[Floats] = []
        self._file: IO[bytes] | None = None
        self.count = 0

    def append(self, numbers: Floats) -> None:
        """Append `numbers` (n,). Raises OSError, in one sentence, when the disk is full."""
        self.count += len(numbers)
        if self._folder is None:
            self._parts.append(numbers)
            return
        if self._file is None and self.count * 4 > self._kept:
            self._file = nameless_file(self._folder)
            for part in self._parts:
                write_all(self._file, part, self._folder)
            self._parts.clear()
        if self._file is None:
            self._parts.append(numbers)
        else:
            write_all(self._file, numbers, self._folder)

    def array(self) -> Floats:
        """Return all numbers, (count,).

        From a file this is a copy-on-write memory map: the system loads pages on access and drops them when memory is
        short; changes stay in memory.
        """
        if self._file is None:
            return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        mapped = np.memmap(self._file, np.float32, mode="c", shape=(self.count,))  # type: ignore[call-overload]
        return mapped.view(np.ndarray)


class ChannelBuffer:
    """Collects rows of float32 numbers that grow together, such as the channels of a sound, into one array.

    folder: where to store them once they take more than 256 MB in all; None keeps everything in memory.
    """

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        self.rows = rows
        self._spools = [Spool(folder, rows) for _ in range(rows)]

    @property
    def count(self) -> int:
        """Numbers in each row so far."""
        return self._spools[0].count

    def append(self, numbers: Floats) -> None:
        """Append `numbers` (rows, n). Raises OSError, in one sentence, when the disk is full."""
        for spool, row in zip(self._spools, numbers, strict=True):
            spool.append(row)

    def array(self) -> Floats:
        """Return all numbers, (rows, count), stored as by `Spool.array`. Nothing can be appended afterwards."""
        first, *others = self._spools
        count = first.count
        for spool in others:
            row = spool.array()
            for start in range(0, count, COPIED_NUMBERS):
                first.append(row[start : start + COPIED_NUMBERS])
        return np.reshape(first.array(), (self.rows, count))

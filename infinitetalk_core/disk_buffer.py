"""Numbers that are too many for memory, in a file without a name: it is gone with the last who uses it, and with the
process, however that ends."""

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

# Below this, numbers stay in memory: so much the speech encoder works with anyway (a window of 3 minutes has 166 MB),
# and 256 MB are 4.6 minutes of features of wav2vec base or over an hour of a voice at 16 kHz.
KEPT_BYTES = 256 << 20
COPIED_NUMBERS = 1 << 20

Floats = NDArray[np.float32]


def nameless_file(folder: Path) -> IO[bytes]:
    """A new file in `folder`, made if need be, that nobody else can find. Raises OSError in one sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        raise disk_error(folder, error) from error


def write_all(file: IO[bytes], numbers: Floats, folder: Path) -> None:
    """Append `numbers`. Written and not mapped: what a full disk does to a mapped file ends the process."""
    view = memoryview(np.ascontiguousarray(numbers).view(np.uint8).reshape(-1))  # type: ignore[arg-type]
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise disk_error(folder, error) from error


class DiskTensor:
    """float32 rows of one shape, in memory or in a nameless file, read a few at a time.

    A file is read and not mapped: pages of a mapped one count as this process's memory, which is to stay flat. Threads
    may read at once. shape: (rows, *shape of one).
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...]) -> None:
        self._file, self.shape = file, shape
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The rows of these numbers (any shape, whole, from 0): (*shape of rows, *shape of one)."""
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
    """Rows that are finished one after the other and wanted as one thing.

    folder: where to put them if all together are more than 256 MB; None keeps them in memory.
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
        """Put these behind the others. Raises OSError, in one sentence, when the disk is full."""
        if self._tensor is not None:
            self._tensor[self._count : self._count + len(rows)] = rows
        else:
            assert self._file is not None and self._folder is not None
            write_all(self._file, rows.numpy(), self._folder)
        self._count += len(rows)

    def rows(self) -> Tensor | DiskTensor:
        """All of them: a tensor, or what reads like one row by row."""
        if self._tensor is not None:
            return self._tensor
        assert self._file is not None
        return DiskTensor(self._file, self._shape)


class Spool:
    """float32 numbers that come one after the other and are wanted as one array.

    folder: where to put them once they are more than 256 MB; None keeps everything in memory. shared: how many spools
    grow side by side and share these.
    """

    def __init__(self, folder: Path | None = None, shared: int = 1) -> None:
        self._folder, self._kept = folder, KEPT_BYTES // shared
        self._parts: list[Floats] = []
        self._file: IO[bytes] | None = None
        self.count = 0

    def append(self, numbers: Floats) -> None:
        """Put these behind the others. Raises OSError, in one sentence, when the disk is full."""
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
        """All of them, (count,). Of a file it is a view whose pages the system reads when they are touched, and drops
        when memory is short; changes to it stay in memory."""
        if self._file is None:
            return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        mapped = np.memmap(self._file, np.float32, mode="c", shape=(self.count,))  # type: ignore[call-overload]
        return mapped.view(np.ndarray)


class ChannelBuffer:
    """Rows of float32 numbers, such as the channels of a sound, that grow side by side and are wanted as one array.

    folder: where to put them once all together are more than 256 MB; None keeps everything in memory.
    """

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        self.rows = rows
        self._spools = [Spool(folder, rows) for _ in range(rows)]

    @property
    def count(self) -> int:
        """Numbers in each row."""
        return self._spools[0].count

    def append(self, numbers: Floats) -> None:
        """Put (rows, n) behind the others. Raises OSError, in one sentence, when the disk is full."""
        for spool, row in zip(self._spools, numbers, strict=True):
            spool.append(row)

    def array(self) -> Floats:
        """All of them, (rows, count), as `Spool.array` gives them. Nothing can be appended after that."""
        first, *others = self._spools
        count = first.count
        for spool in others:
            row = spool.array()
            for start in range(0, count, COPIED_NUMBERS):
                first.append(row[start : start + COPIED_NUMBERS])
        return np.reshape(first.array(), (self.rows, count))

"""Numbers that are too many for memory, in a file without a name: it is gone with the last who uses it, and with the
process, however that ends."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .errors import disk_error

# Below this, numbers stay in memory: so much the speech encoder works with anyway (a window of 3 minutes has 166 MB),
# and 256 MB are 4.6 minutes of features of wav2vec base or over an hour of a voice at 16 kHz.
KEPT_BYTES = 256 << 20

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


class Spool:
    """float32 numbers that come one after the other and are wanted as one array.

    folder: where to put what is more than `kept` bytes; None keeps everything in memory.
    """

    def __init__(self, folder: Path | None = None, kept: int = KEPT_BYTES) -> None:
        self._folder, self._kept = folder, kept
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

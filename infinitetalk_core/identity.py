"""What something is, in a few letters: equal for equal content, whatever it is called and wherever it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .cache import FileStamp

BLOCK_BYTES = 1 << 16
BLOCKS = 256  # of what is larger than all of them together, so many blocks are read, spread evenly
PIECE = 1 << 20  # samples
LENGTH = 32  # hexadecimal digits


def _places(size: int) -> Iterator[int]:
    """Where blocks begin: all of them up to 16 MB, else 256 with the first and the last."""
    if size <= BLOCK_BYTES * BLOCKS:
        yield from range(0, size, BLOCK_BYTES)
    else:
        yield from ((size - BLOCK_BYTES) * i // (BLOCKS - 1) for i in range(BLOCKS))


def stream_identity(file: BinaryIO) -> str:
    """Of a seekable binary file: its size, and its content by samples of 16 MB in all. Its position stays."""
    here = file.tell()
    size = file.seek(0, 2)
    digest = hashlib.sha256(str(size).encode())
    for place in _places(size):
        file.seek(place)
        digest.update(file.read(BLOCK_BYTES))
    file.seek(here)
    return digest.hexdigest()[:LENGTH]


def file_identity(path: Path) -> str:
    """Of a file, as `stream_identity`. A copy is the same; gigabytes take milliseconds."""
    with open(path, "rb") as file:
        return stream_identity(file)


class FileIdentities:
    """Identities of files that are read only once as long as they stay as they are. May be used from any thread."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[FileStamp, str]] = {}

    def of(self, path: Path) -> str:
        """`file_identity`, from memory where the file is still the same by size, time and inode."""
        stamp = FileStamp.of(path)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = (stamp, file_identity(path))
        return known[1]


def sound_identity(waveform: Tensor) -> str:
    """Type, shape and the whole content of (channels, samples): one word of hours may be another (0.1 s for 10 minutes
    in stereo at 48 kHz)."""
    digest = hashlib.sha256(f"{waveform.dtype} {tuple(waveform.shape)}".encode())
    for channel in waveform:
        for part in channel.split(PIECE):
            digest.update(memoryview(part.contiguous().numpy()).cast("B"))
    return digest.hexdigest()[:LENGTH]


def tensor_identity(tensor: Tensor) -> str:
    """Type, shape and content; of more than 16 MB by samples."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    for place in _places(len(data)):
        digest.update(data[place : place + BLOCK_BYTES].numpy().tobytes())
    return digest.hexdigest()[:LENGTH]


def run_key(made_of: Mapping[str, Any]) -> str:
    """The name of a run: equal exactly where everything that changes the video is. `made_of` must be JSON."""
    text = json.dumps(made_of, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]

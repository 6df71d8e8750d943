"""Read the tensors of a weights file into memory and compute the fingerprint of what was read.

The file is not memory-mapped: a mapped file that is truncated while its tensors are in use kills the process (SIGBUS),
and one that is overwritten in place silently changes weights that are in use.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch
import xxhash
from torch import Tensor

from ..errors import InputError, RunError
from ..fingerprint import key_of
from ..model_cache import FileStamp
from .header import Header
from .opened import opened
from .tensor_entry import DTYPES

READ_BLOCK_BYTES = 1 << 20  # read and hashed at once: small enough to stay in the CPU cache for the hash


def read_tensors(path: Path, header: Header, names: Iterable[str]) -> tuple[dict[str, Tensor], str]:
    """Read the tensors `names` of the file that `header` was read from, and return them with their fingerprint.

    Tensors of a type in `DTYPES` get their dtype and shape; all others are raw bytes, (bytes,) uint8. They are read in
    file order through one handle, each directly into its own memory, so the peak memory is the size of the file. The
    fingerprint covers their whole content. Raises RunError if the file has changed since its header was read, or
    changes during the read.
    """
    found, fingerprints = {}, {}
    with opened(path) as file:
        refuse_if_changed(file, header.stamp, path)
        for name in sorted(names, key=header.starts.__getitem__):
            dtype, shape = header.dtypes[name], header.shapes[name]
            known = DTYPES.get(dtype)
            data = _new_memory(header.sizes[name], path)
            digest = xxhash.xxh3_128(f"{known or dtype} {shape}".encode())
            file.seek(header.starts[name])
            if not _fill(file, data.numpy().data, digest):
                raise InputError(f"{path.name} ends early, inside the tensor {name}; download it again")
            found[name] = data if known is None else data.view(known).reshape(shape)
            fingerprints[name] = digest.hexdigest()
        refuse_if_changed(file, header.stamp, path)
    return found, weights_fingerprint(fingerprints)


def _new_memory(size: int, path: Path) -> Tensor:
    """Return memory of `size` bytes. Raises RunError if there is not as much."""
    try:
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    except RuntimeError as error:
        raise RunError(
            f"{path.name} holds a tensor of {size / 1e9:.0f} GB, for which there is no memory; close other programs, "
            "or use a smaller file"
        ) from error


def weights_fingerprint(tensors: dict[str, str]) -> str:
    """Return the fingerprint of named tensors from the fingerprint of each (`tensor_fingerprint`), in any order."""
    return key_of(tensors)


def refuse_if_changed(file: BinaryIO, stamp: FileStamp, path: Path) -> None:
    """Raise RunError if the open file has changed since `stamp` was taken."""
    if FileStamp.of_open(file) != stamp:
        raise RunError(f"{path.name} was changed while it was read; wait until it is written, and run again")


def _fill(file: BinaryIO, memory: memoryview, digest: xxhash.xxh3_128) -> bool:
    """Fill `memory` from `file` and hash it. Returns False if the file ends early."""
    while memory:
        count = file.readinto(memory[:READ_BLOCK_BYTES])  # type: ignore[attr-defined]
        if not count:
            return False
        digest.update(memory[:count])
        memory = memory[count:]
    return True

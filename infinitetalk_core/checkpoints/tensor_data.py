"""Reading the tensors of a weights file into memory of our own, with the fingerprint of what was read.

Nothing is mapped from the file. A mapped file that is cut off while its tensors are in use ends the process (SIGBUS),
and one that is written in place changes weights that are in use without a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch
import xxhash
from torch import Tensor

from ..cache import FileStamp
from ..errors import InputError
from ..fingerprint import key_of
from .header import DTYPES, Header

PIECE_BYTES = 1 << 20  # is hashed while it is still in the processor's cache


def read_tensors(path: Path, header: Header, names: Iterable[str]) -> tuple[dict[str, Tensor], str]:
    """These tensors of the file that `header` was read from, and the fingerprint of their whole content.

    Tensors of a type in `DTYPES` have their type and shape; all others are bytes, (bytes,) uint8. They are read in the
    order in which they lie in the file, through one handle, each straight into its memory: what is taken is the size of
    the file. Raises InputError where the file is not the one of the header any more, or changes meanwhile.
    """
    found, fingerprints = {}, {}
    with path.open("rb", buffering=0) as file:
        refuse_if_changed(file, header.stamp, path)
        for name in sorted(names, key=header.starts.__getitem__):
            dtype, shape = header.dtypes[name], header.shapes[name]
            known = DTYPES.get(dtype)
            data = torch.empty(header.sizes[name], dtype=torch.uint8, device="cpu")
            digest = xxhash.xxh3_128(f"{known or dtype} {shape}".encode())
            file.seek(header.starts[name])
            if not _fill(file, data.numpy().data, digest):
                raise InputError(f"{path.name} ends early, inside the tensor {name}; download it again")
            found[name] = data if known is None else data.view(known).reshape(shape)
            fingerprints[name] = digest.hexdigest()
        refuse_if_changed(file, header.stamp, path)
    return found, weights_fingerprint(fingerprints)


def weights_fingerprint(tensors: dict[str, str]) -> str:
    """Of named tensors, from the fingerprint of each (`tensor_fingerprint`), in whatever order."""
    return key_of(tensors)


def refuse_if_changed(file: BinaryIO, stamp: FileStamp, path: Path) -> None:
    """InputError unless the open file is still what it was when `stamp` was taken."""
    if FileStamp.of_open(file) != stamp:
        raise InputError(f"{path.name} was changed while it was read; wait until it is written, and run again")


def _fill(file: BinaryIO, memory: memoryview, digest: xxhash.xxh3_128) -> bool:
    """Read into all of `memory`, and hash it; whether the file was long enough."""
    while memory:
        count = file.readinto(memory[:PIECE_BYTES])  # type: ignore[attr-defined]
        if not count:
            return False
        digest.update(memory[:count])
        memory = memory[count:]
    return True

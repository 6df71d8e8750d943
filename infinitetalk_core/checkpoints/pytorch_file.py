"""Read the tensors of a PyTorch file (.bin, .pt, .pth). No code in it is run: it is unpickled with weights_only."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import InputError, RunError
from ..fingerprint import tensor_fingerprint
from ..model_cache import FileStamp
from .header import MAX_NAME, MAX_TENSORS
from .opened import opened
from .tensor_data import refuse_if_changed, weights_fingerprint

WRAPPERS = ("state_dict", "model")  # under which training programs put the tensors
END_OF_ARCHIVE = 22  # bytes of a zip archive's last record, which PyTorch writes without a comment
PICKLE = "data.pkl"
MAX_PICKLE_BYTES = 4_000_000  # names and shapes; a speech encoder has 50 kB, and each MB takes up to a second
DAMAGED = "{} is a damaged or incomplete PyTorch file; download it again"


@dataclass(frozen=True)
class PytorchFile:
    """An opened PyTorch file. load: reads tensors by name, and returns them with their fingerprint."""

    shapes: Mapping[str, tuple[int, ...]]
    load: Callable[[Collection[str]], tuple[dict[str, Tensor], str]]


def open_pytorch(path: Path) -> PytorchFile:
    """Read names and shapes. Raises InputError if the file is damaged or holds anything but tensors by name."""
    with opened(path) as file:
        stamp = FileStamp.of_open(file)
    zipped = zipfile.is_zipfile(path)  # not before torch 1.6
    if zipped:
        _check_archive(path, stamp)
    # Memory-mapped to read names and shapes only, so that a large file of another model is rejected quickly.
    shapes = {name: tuple(value.shape) for name, value in _unpickle(path, path, mapped=zipped).items()}

    def load(names: Collection[str]) -> tuple[dict[str, Tensor], str]:
        with opened(path, buffering=-1) as file:
            refuse_if_changed(file, stamp, path)
            found = _unpickle(path, file)
            refuse_if_changed(file, stamp, path)
        fingerprint = weights_fingerprint({name: tensor_fingerprint(found[name]) for name in names})
        return {name: found[name] for name in names}, fingerprint

    return PytorchFile(shapes, load)


def _check_archive(path: Path, stamp: FileStamp) -> None:
    """Raise InputError for an archive that PyTorch does not write: it could unpack to any size, or never end."""
    with opened(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - END_OF_ARCHIVE))
        parts = file.read(END_OF_ARCHIVE)[10:12]
    plain = len(parts) == 2 and struct.unpack("<H", parts)[0] < 0xFFFF
    try:
        entries = zipfile.ZipFile(path).infolist() if plain else []
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise InputError(DAMAGED.format(path)) from error
    pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == PICKLE]
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if len(pickles) != 1 or not stored or pickles[0].file_size > MAX_PICKLE_BYTES:
        raise InputError(f"{path} is an archive, but not one that PyTorch writes; download it again")


def _unpickle(path: Path, source: Path | BinaryIO, mapped: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch file by name. source: the path or the open file; mapped: memory-map it (path only).

    Raises InputError if the file holds code or is damaged, RunError if there is no memory for it.
    """
    try:
        found = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, and what else is in it would be run as a program; "
            "use the model.safetensors or pytorch_model.bin of the same model"
        ) from error
    except MemoryError as error:
        raise RunError(f"there is no memory to read {path}; close other programs, or use a smaller file") from error
    except Exception as error:  # a damaged pickle can make the interpreter of its instructions do anything
        raise InputError(DAMAGED.format(path)) from error
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or len(found) > MAX_TENSORS:
        what = "nothing" if found is None else f"a {type(found).__name__}"
        raise InputError(
            f"{path} holds {what} where named tensors are expected; use the model.safetensors of the same model"
        )
    tensors = {name: value.detach() for name, value in found.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        _check(path, name, value)
    return tensors


def _check(path: Path, name: Any, value: Tensor) -> None:
    """Raise InputError for a name that no tensor has, and for a tensor that is not stored as its own numbers."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable() or " " in name:
        raise InputError(f"{path} is damaged: it holds a tensor without a name; download it again")
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_nested
    if not plain or value.is_quantized or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(
            f"{path} stores the tensor {name} sparse, quantized or expanded, which cannot be read; use the "
            "model.safetensors of the same model"
        )

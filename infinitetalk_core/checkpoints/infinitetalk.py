"""Files of InfiniteTalk weights."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from .files import Header
from .kinds import Kind
from .plain import read_plain_header

WHERE = "get InfiniteTalk weights (for example Wan2_1-InfiniTetalk-Single_fp16.safetensors) into models/model_patches"


def read_infinitetalk_header(path: Path) -> Header:
    """The header of a file of InfiniteTalk weights. Reads no weights, so a wrong file is refused at once."""
    return read_plain_header(path, Kind.INFINITETALK, WHERE)


def load_infinitetalk(path: Path, header: Header) -> dict[str, Tensor]:
    """The weights under the names of `model.audio_adapter`, in the file's type.

    fp8 stays fp8: it needs layers that cast where they compute, as a host's do.
    """
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(header.prefix + name) for name in header.shapes}

"""Files of the Uni3C ControlNet."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from .files import Header
from .kinds import Kind
from .plain import read_plain_header

WHERE = "get Wan21_Uni3C_controlnet_fp16.safetensors into models/controlnet"

# Kijai's release is diffusers' naming; ComfyUI renames the attention as Wan has it.
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_WAN_NAMES = re.compile(r"(?<=\.self_attn\.)[qkvo](?=\.)")


def read_uni3c_header(path: Path) -> Header:
    """The header of a Uni3C file, its names those of `model.uni3c`. Reads no weights."""
    header = read_plain_header(path, Kind.UNI3C, WHERE)
    return replace(
        header,
        shapes={_our_name(k): v for k, v in header.shapes.items()},
        dtypes={_our_name(k): v for k, v in header.dtypes.items()},
    )


def load_uni3c(path: Path, header: Header) -> dict[str, Tensor]:
    """The weights under the names of `model.uni3c`, in the file's type.

    fp8 stays fp8: it needs layers that cast where they compute, as a host's do.
    """
    with safe_open(path, framework="pt") as file:
        return {_our_name(name[len(header.prefix) :]): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _our_name(name: str) -> str:
    # The authors' file has the transformer as a part of Wan's, the embeddings beside it.
    name = name.removeprefix("controlnet.")
    return _WAN_NAMES.sub(lambda found: _ATTENTION[found[0]], name)

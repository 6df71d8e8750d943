"""Files of the Uni3C ControlNet."""

from __future__ import annotations

import re
from pathlib import Path

from .kinds import WANT_UNI3C
from .weights_file import WeightsFile, open_weights

# Kijai's release is diffusers' naming; ComfyUI renames the attention as Wan has it.
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_WAN_NAMES = re.compile(r"(?<=\.self_attn\.)[qkvo](?=\.)")


def open_uni3c(path: Path) -> WeightsFile:
    """A Uni3C file in any layout, its names those of `model.uni3c`. Reads no weights."""
    return open_weights(path, WANT_UNI3C, _our_name)


def _our_name(name: str) -> str:
    # The authors' file has the transformer as a part of Wan's, the embeddings beside it.
    name = name.removeprefix("controlnet.")
    return _WAN_NAMES.sub(lambda found: _ATTENTION[found[0]], name)

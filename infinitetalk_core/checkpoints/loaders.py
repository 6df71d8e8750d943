"""Open the released files: Wan 2.1 I2V, InfiniteTalk weights and the Uni3C ControlNet, in any layout.

Only the header is read; a file of another kind is refused by an InputError that names it (kinds.py). Of a file that
merges Wan and InfiniteTalk (SoulX-FlashTalk-14B; merged exports of InfiniteTalk) each opens its part.
"""

from __future__ import annotations

import re
from pathlib import Path

from .kinds import WANT_BASE, WANT_INFINITETALK, WANT_UNI3C, is_adapter_tensor
from .weights_file import WeightsFile, open_weights

# Kijai's release has diffusers' names for the attention, which are the module names here; ComfyUI's has Wan's.
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_WAN_NAME = r"(?<=\.self_attn\.)[qkvo](?=\.)"


def open_wan(path: Path) -> WeightsFile:
    """Open a file of Wan 2.1 I2V, with the module names of `model.wan`."""
    return open_weights(path, WANT_BASE, part=lambda name: not is_adapter_tensor(name))


def open_infinitetalk(path: Path) -> WeightsFile:
    """Open a file of InfiniteTalk weights, with the module names of `model.audio_adapter`."""
    return open_weights(path, WANT_INFINITETALK, part=is_adapter_tensor)


def may_be_multitalk(name: str) -> bool:
    """Return whether a file of InfiniteTalk weights may be MultiTalk's, which have the same tensors.

    Only the name can tell (MeiGen-AI/MultiTalk's README: multitalk.safetensors; the wrapper's multitalk/nodes.py goes
    by it too).
    """
    return "multitalk" in name.lower() and "infini" not in name.lower()


def open_uni3c(path: Path) -> WeightsFile:
    """Open a Uni3C file, with the module names of `model.uni3c`."""
    return open_weights(path, WANT_UNI3C, _uni3c_name)


def _uni3c_name(name: str) -> str:
    """Map a tensor name of any release to the module name of `model.uni3c`."""
    # In the authors' file the names of the transformer start with "controlnet.", those of the embeddings do not.
    name = name.removeprefix("controlnet.")
    return re.sub(_WAN_NAME, lambda found: _ATTENTION[found[0]], name)

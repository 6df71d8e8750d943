"""LoRA files, and a MODEL with one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths

from ....infinitetalk_core.errors import InputError

FOLDER = "loras"


def lora_names() -> list[str]:
    """List the LoRA files, as choices."""
    return list(folder_paths.get_filename_list(FOLDER))


def lora_path(name: str) -> Path:
    """Return the path of a choice from `lora_names`. Raises InputError if it is not there."""
    found = folder_paths.get_full_path(FOLDER, name) if name in lora_names() else None
    if found is None:
        raise InputError(
            f"there is no {name!r} in models/{FOLDER}; put the file there and press R, choose another, or take the "
            "quality best, which needs none"
        )
    return Path(found)


def with_lora(model: Any, path: Path) -> Any:
    """Return a clone of the MODEL with the LoRA at full strength. Raises InputError if it fits nothing in it."""
    weights = comfy.utils.load_torch_file(str(path), safe_load=True)
    patched, _ = comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)
    if _patches(patched) == _patches(model):
        raise InputError(f"{path.name} changes nothing in this MODEL; choose a LoRA for Wan 2.1 I2V 14B")
    return patched


def _patches(model: Any) -> int:
    return sum(len(patches) for patches in model.patches.values())

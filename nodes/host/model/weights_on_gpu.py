"""Which weights of a MODEL and of its additional models ComfyUI has on the GPU."""

from __future__ import annotations

import hashlib

from ....infinitetalk_core.runs.weights_on_gpu import ALL, WeightsOnGpu
from .patchers import Patcher

DYNAMIC = "dynamic"  # 0.33's dynamic VRAM: weights come and go while a chunk is made


def weights_on_gpu(model: Patcher) -> tuple[WeightsOnGpu, ...]:
    """Return where the weights of the loaded `model` and of all its additional models are."""
    return tuple(_of(patcher) for patcher in (model, *model.get_nested_additional_models()))


def _of(patcher: Patcher) -> WeightsOnGpu:
    size = int(patcher.model_size())
    name = type(patcher.model).__name__
    if is_dynamic(patcher):
        return WeightsOnGpu(name, size, min(size, int(patcher.loaded_size())), DYNAMIC)
    # On the CPU they are all where they are used. ComfyUI's count of a whole model leaves out some small weights.
    if patcher.load_device.type == "cpu" or not patcher.model.model_lowvram:
        return WeightsOnGpu(name, size, size, ALL)
    there = [name for name, layer in patcher.model.named_modules() if getattr(layer, "comfy_patched_weights", False)]
    layers = hashlib.sha256("\n".join(sorted(there)).encode()).hexdigest()[:8]
    return WeightsOnGpu(name, size, min(size, int(patcher.loaded_size())), layers)


def is_dynamic(patcher: Patcher) -> bool:
    """Return whether ComfyUI 0.33 moves the weights of a model by its dynamic VRAM."""
    known = getattr(patcher, "is_dynamic", None)
    return known is not None and known()

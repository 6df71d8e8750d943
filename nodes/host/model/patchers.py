"""Wraps our own models in ComfyUI's ModelPatcher, so that ComfyUI loads, moves and frees them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch

from ....infinitetalk_core.checkpoints.tensor_shapes import TensorShapes
from ....infinitetalk_core.checkpoints.weights_file import Weights, WeightsFile
from ....infinitetalk_core.model.precision import Narrowing
from .quantized import put_quantized_layers, weights_of

Patcher: TypeAlias = comfy.model_patcher.ModelPatcher


def load_strictly(make: Callable[[Any], torch.nn.Module], weights: Weights, name: str) -> torch.nn.Module:
    """Build a module from ComfyUI's layers with `weights` as its parameters; quantized ones stay as stored.

    make: builds the module on the meta device from the layers of a namespace. Raises InputError that names the tensor
    if one is missing, superfluous or of another shape. name: of the file, for errors.

    The expected tensors are read from plain PyTorch layers: with dynamic VRAM, ComfyUI's layers have no weights before
    they are loaded, and would fill missing ones with zeros.
    """
    _check(make, TensorShapes({key: weight.shape for key, weight in weights.items()}, name))
    module = make(comfy.ops.manual_cast)
    module.load_state_dict(put_quantized_layers(module, weights), strict=True, assign=True)
    return module


def load_whole(
    make: Callable[[Any], torch.nn.Module], file: WeightsFile, narrowing: Narrowing | None = None
) -> tuple[torch.nn.Module, str]:
    """Build a module with the weights of `file`, as `load_strictly` does; return it with their fingerprint.

    narrowing: which of them to cast. A wrong shape is refused before any weights are read: the file may say that it
    holds more than there is memory for.
    """
    _check(make, file.shapes)
    loaded = file.read()
    if narrowing is not None:
        narrowing.apply(loaded.tensors)
    return load_strictly(make, loaded.tensors, file.path.name), loaded.fingerprint


def _check(make: Callable[[Any], torch.nn.Module], shapes: TensorShapes) -> None:
    """Raise InputError if a tensor of the module is missing, superfluous or of another shape in `shapes`."""
    shapes.check({name: tensor.shape for name, tensor in make(torch.nn).state_dict().items()})


def compute_dtype(model: Patcher) -> torch.dtype:
    """Return the dtype that ComfyUI computes a MODEL in, also where another node has chosen it (ModelComputeDtype)."""
    return model.get_model_object("manual_cast_dtype") or model.model.get_dtype()


def model_patcher(module: Any, disable_dynamic: bool = False) -> Patcher:
    """Return a ModelPatcher of `module`, which must have a `config` that its class is built from.

    The class is looked up at the call, since dynamic VRAM replaces it. disable_dynamic: not that of dynamic VRAM.
    """
    plain = comfy.model_patcher.ModelPatcher
    make: Any = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    patcher = make(
        module,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    # With it ComfyUI 0.33 makes copies for other GPUs (MultiGPU CFG Split, Select Model Device).
    patcher.cached_patcher_init = (partial(_copy, module), ())
    return patcher


def _copy(module: Any, disable_dynamic: bool = False) -> Patcher:
    """Return a patcher of another module with the same weights. In RAM the two share them; nothing changes them there.

    ComfyUI reads its own models from their files again, which may have changed since.
    """
    kind: Callable[..., torch.nn.Module] = type(module)
    make = partial(kind, module.config, device="meta")
    return model_patcher(load_strictly(make, weights_of(module), type(module).__name__), disable_dynamic)


def on_device_of(model: Patcher, patcher: Patcher) -> Patcher:
    """Return `patcher`, or a copy of it on the device of `model` where that is another one (Select Model Device)."""
    device = model.load_device
    if patcher.load_device == device or not hasattr(patcher, "deepclone_multigpu"):
        return patcher
    if device.type == "cpu" and patcher.is_dynamic():
        copy = patcher.clone(disable_dynamic=True)
        copy.load_device = copy.offload_device = device
        return copy
    return patcher.deepclone_multigpu(new_load_device=device)

"""Wraps our own models in ComfyUI's ModelPatcher, so that ComfyUI loads, moves and frees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch

from ....infinitetalk_core.checkpoints.weights_file import Weights
from ....infinitetalk_core.errors import InputError
from .quantized import put_quantized_layers

Patcher: TypeAlias = comfy.model_patcher.ModelPatcher


def load_strictly(make: Callable[[Any], torch.nn.Module], weights: Weights, name: str) -> torch.nn.Module:
    """Build a module from ComfyUI's layers with `weights` as its parameters; quantized ones stay as stored.

    make: builds the module on the meta device from the layers of a namespace. Raises InputError that names the tensor
    if one is missing, superfluous or of another shape. name: of the file, for errors.

    The expected tensors are read from plain PyTorch layers: with dynamic VRAM, ComfyUI's layers have no weights before
    they are loaded, and would fill missing ones with zeros.
    """
    expected = {key: tuple(tensor.shape) for key, tensor in make(torch.nn).state_dict().items()}
    if missing := sorted(expected.keys() - weights.keys()):
        raise InputError(f"{name} lacks {len(missing)} tensors, first {missing[0]}; download it again")
    if extra := sorted(weights.keys() - expected.keys()):
        raise InputError(f"{name} has {len(extra)} tensors too many, first {extra[0]}; it is another model's file")
    for key, shape in expected.items():
        if tuple(weights[key].shape) != shape:
            raise InputError(
                f"{key} in {name} is {tuple(weights[key].shape)} where {shape} is expected; it is another model's file"
            )
    module = make(comfy.ops.manual_cast)
    module.load_state_dict(put_quantized_layers(module, weights), strict=True, assign=True)
    return module


def model_patcher(module: Any) -> Patcher:
    """Return a ModelPatcher of `module`. The class is looked up at the call, since dynamic VRAM replaces it."""
    make = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return make(
        module,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )

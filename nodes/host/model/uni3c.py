"""Loads the Uni3C ControlNet as a ModelPatcher, and checks that it fits the MODEL."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from ....infinitetalk_core.checkpoints.loaders import open_uni3c
from ....infinitetalk_core.chunks.camera_control import CameraControl
from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.model.precision import Narrowing
from ....infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig
from .patchers import Patcher, load_strictly, load_whole, model_patcher
from .quantized import QuantizedLinear
from .shared_models import SharedModels

KEY = "infinitetalk_uni3c"


def check_camera(camera: CameraControl, dim: int) -> None:
    """Raise InputError for a ControlNet made for another model width than `dim`."""
    config = camera.controlnet.value.model.config
    if (config.time_dim, config.out_dim) != (dim, dim):
        raise InputError(
            f"this Uni3C ControlNet is made for a model of width {config.out_dim}, but the MODEL's is {dim}; "
            "use Wan21_Uni3C_controlnet_fp16.safetensors with Wan 2.1 I2V 14B"
        )


def load_uni3c_patcher(path: Path, models: SharedModels | None = None) -> Patcher:
    """Load the Uni3C ControlNet of a file as a ModelPatcher.

    models: the cache of loaded weights; None: load them for this caller alone.
    """

    def load() -> tuple[Patcher, str]:
        file = open_uni3c(path)
        network, fingerprint = load_whole(partial(Uni3C, Uni3CConfig.from_shapes(file.shapes), device="meta"), file)
        return model_patcher(network), fingerprint

    return (models or SharedModels()).patcher(path, "Uni3C", load)


def narrowed_uni3c(patcher: Patcher, dtype: torch.dtype) -> Patcher:
    """Return a patcher of the ControlNet whose float32 weights are cast to `dtype`, the MODEL's compute dtype.

    Done when a job begins, since the ControlNet is loaded without a MODEL. Weights that are not cast are shared with
    `patcher`, which stays as it is for other jobs. Returns `patcher` itself where there is nothing to cast, and for a
    quantized file, which has no large weights in float32 that are not computed in it.
    """
    narrowing = Narrowing(dtype, Uni3C.EXACT)
    weights = patcher.model.state_dict()
    quantized = any(isinstance(layer, QuantizedLinear) for layer in patcher.model.modules())
    if quantized or not narrowing.casts_any({name: weight.dtype for name, weight in weights.items()}):
        return patcher
    narrowing.apply(weights)
    make = partial(Uni3C, patcher.model.config, device="meta")
    return model_patcher(load_strictly(make, {k: w.cpu() for k, w in weights.items()}, "Uni3C"))

"""Loads the Uni3C ControlNet as a ModelPatcher, and checks that it fits the MODEL."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ....infinitetalk_core.checkpoints.loaders import open_uni3c
from ....infinitetalk_core.chunks.camera_control import CameraControl
from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig
from .patchers import Patcher, load_whole, model_patcher
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

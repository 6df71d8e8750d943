"""Checks that a MODEL is Wan 2.1 I2V, the only backbone that InfiniteTalk's weights are made for."""

from __future__ import annotations

from typing import Any

import comfy.ldm.wan.model
import torch

from ....infinitetalk_core.checkpoints.kinds import WANT_BASE, CheckpointKind, kind_of_wan
from ....infinitetalk_core.errors import InputError
from .patchers import Patcher

HOW_TO_CONNECT = f"{WANT_BASE.advice}, load it with Load Diffusion Model or the GGUF loader and connect it here"
LARGEST_MEAN = 1.0  # of a row's absolute weights; a trained one's is 0.02 to 0.05
# ComfyUI's classes for Wan variants with additional layers.
VARIANT_CLASSES = {
    "VaceWanModel": CheckpointKind.WAN_VACE,
    "CameraWanModel": CheckpointKind.WAN_FUN_CAMERA,
    "WanModel_S2V": CheckpointKind.WAN_S2V,
    "HumoWanModel": CheckpointKind.WAN_HUMO,
    "AnimateWanModel": CheckpointKind.WAN_ANIMATE,
}


def check_backbone(model: Patcher) -> Any:
    """Return the Wan 2.1 I2V backbone of `model`. Raises InputError that names the kind of any other model."""
    backbone = getattr(model.model, "diffusion_model", None)
    name = type(backbone).__name__
    if type(backbone) is comfy.ldm.wan.model.WanModel:
        kind = _kind_of_backbone(backbone)
        if kind is WANT_BASE.kind:
            return backbone
        what = kind.label
    elif name in VARIANT_CLASSES:
        what = VARIANT_CLASSES[name].label
    elif isinstance(backbone, comfy.ldm.wan.model.WanModel):
        what = f"{CheckpointKind.WAN_OTHER.label} ({name})"
    else:
        what = f"a {type(model.model).__name__}"
    raise InputError(f"the MODEL is {what}, not {WANT_BASE.kind.label}; {HOW_TO_CONNECT}")


def _kind_of_backbone(backbone: Any) -> CheckpointKind:
    if getattr(backbone, "ref_conv", None) is not None:
        return CheckpointKind.WAN_FUN_CONTROL
    has_image_embedding = backbone.img_emb is not None
    first_last_frame = has_image_embedding and getattr(backbone.img_emb, "emb_pos", None) is not None
    return kind_of_wan(backbone.dim, backbone.in_dim, has_image_embedding, first_last_frame)


def check_scales(backbone: Any) -> None:
    """Raise InputError where ComfyUI took a quantized file for plain numbers, some thousand times too large.

    An older ComfyUI loads int8 and newer fp8 files without a word, and leaves their scales out.
    """
    layer = backbone.blocks[0].ffn[0]
    weight: Any = getattr(layer, "weight", None)
    # Layers that know their scales have weights of another class, or the scale beside the weight.
    plain = type(weight) is torch.nn.Parameter and weight.is_floating_point() and not weight.is_meta
    if not plain or getattr(layer, "scale_weight", None) is not None:
        return
    if float(weight[0].detach().float().abs().mean()) > LARGEST_MEAN:
        raise InputError(
            "the file of this MODEL is quantized in a way that this ComfyUI does not know, and was loaded without its "
            f"scales, so that the video would be noise; update ComfyUI, or load {WANT_BASE.kind.label} as fp16, GGUF "
            "or fp8_scaled"
        )


def no_text(model: Patcher) -> list:
    """Return the conditioning of an empty prompt: zeros, with which ComfyUI also pads prompts."""
    backbone = check_backbone(model)
    return [[torch.zeros(1, backbone.text_len, backbone.text_dim), {}]]

"""Loads InfiniteTalk weights as an additional model of a MODEL, and attaches the wrappers that use them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from comfy.patcher_extension import WrappersMP

from ....infinitetalk_core.checkpoints.kinds import WANT_INFINITETALK
from ....infinitetalk_core.checkpoints.loaders import may_be_multitalk, open_infinitetalk
from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter
from ....infinitetalk_core.model.kernels import AttentionBackend
from ....infinitetalk_core.model.precision import Narrowing
from ..messages import say
from .attention import choose_attention
from .backbone import HOW_TO_CONNECT, check_backbone, check_scales
from .memory import request_memory
from .patchers import Patcher, compute_dtype, load_whole, model_patcher, on_device_of
from .shared_models import SharedModels
from .wan_wrappers import KEY, apply_model_wrapper, wan_forward_wrapper

MODEL_LABEL = "InfiniteTalk weights"  # in the report of the model cache


def patch_model(
    model: Patcher,
    path: Path,
    strength: float,
    attention: AttentionBackend = AttentionBackend.AUTO,
    models: SharedModels | None = None,
) -> Patcher:
    """Return a clone of `model` with the weights of `path` as an additional model.

    ComfyUI loads and moves the additional model together with `model`.
    models: the cache of loaded weights; None: load them for this caller alone. Raises InputError where the MODEL is not
    Wan 2.1 I2V or the weights do not fit it.
    """
    backbone = check_backbone(model)
    check_scales(backbone)
    models = models or SharedModels()
    narrowing = Narrowing(compute_dtype(model), AudioAdapter.EXACT)
    # Of the compute dtype, strength and attention only what changes the weights is part of the cache key.
    stored = models.fact(path, "dtypes of InfiniteTalk weights", lambda: open_infinitetalk(path).dtypes)
    cast = narrowing.dtype if narrowing.casts_any(stored) else None
    adapter = models.patcher(
        path, MODEL_LABEL, partial(_load_adapter, path, backbone, narrowing), (backbone.num_heads, cast)
    )
    _check_fit(adapter.model.config, backbone, path.name)
    patched = model.clone()
    patched.set_additional_models(KEY, [on_device_of(model, adapter)])
    patched.set_attachments(KEY, strength)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_model_wrapper)
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, wan_forward_wrapper)
    patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, request_memory)
    choose_attention(patched, attention)
    return patched


def _load_adapter(path: Path, backbone: Any, narrowing: Narrowing) -> tuple[Patcher, str]:
    """Load the weights of a file; return their patcher and fingerprint.

    Raises InputError before the tensors are read if the header shows that they are not made for `backbone`.
    """
    file = open_infinitetalk(path)
    config = AdapterConfig.from_shapes(file.shapes, backbone.num_heads)
    _check_fit(config, backbone, path.name)
    if file.is_merged:
        say(
            f"{path.name} holds Wan and InfiniteTalk in one, made for each other: its InfiniteTalk part is loaded "
            "here, so load the same file as the MODEL too, with Load Diffusion Model or the GGUF loader"
        )
    elif may_be_multitalk(path.name):
        say(
            f"{path.name} may be MultiTalk's weights, going by its name alone, since its tensors are those of "
            "InfiniteTalk's: they work, but were made for videos of up to 15 seconds; for longer ones, and to dub a "
            f"video, {WANT_INFINITETALK.advice}"
        )
    adapter, fingerprint = load_whole(partial(AudioAdapter, config, device="meta"), file, narrowing)
    return model_patcher(adapter), fingerprint


def _check_fit(config: AdapterConfig, backbone: Any, name: str) -> None:
    if (config.dim, config.blocks) != (backbone.dim, len(backbone.blocks)):
        raise InputError(
            f"{name} is made for a model of {config.blocks} blocks of width {config.dim}, but the MODEL has "
            f"{len(backbone.blocks)} blocks of width {backbone.dim}; {HOW_TO_CONNECT}"
        )


def adapter_of(model: Patcher) -> AudioAdapter:
    """Return the audio adapter that `patch_model` added to this MODEL. Raises InputError if it has none."""
    return adapter_patcher(model).model


def adapter_patcher(model: Patcher) -> Patcher:
    """Return the ModelPatcher of the audio adapter. Raises InputError if this MODEL has none."""
    patchers = model.get_additional_models_with_key(KEY)
    if not patchers:
        raise InputError(
            "the MODEL has no InfiniteTalk weights: connect it through the InfiniteTalk Model Loader first"
        )
    return patchers[0]

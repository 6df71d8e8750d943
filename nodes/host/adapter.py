"""InfiniteTalk weights on the user's MODEL: an audio adapter of its own, and Wan blocks that listen to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import comfy.ldm.wan.model
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...infinitetalk_core.checkpoints.infinitetalk import open_infinitetalk
from ...infinitetalk_core.checkpoints.kinds import WANT_BASE, CheckpointKind, kind_of_wan
from ...infinitetalk_core.errors import InputError
from ...infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter, SpeechTokens
from ...infinitetalk_core.model.block import BlockCalls, audio_conditioned_block
from ...infinitetalk_core.model.kernels import AttentionBackend
from .attention import choose_attention
from .memory import ask_for_memory
from .patchers import Patcher, load_strictly, model_patcher
from .shared_models import SharedModels
from .step_cache import CachedStep
from .uni3c import CameraStep

KEY = "infinitetalk"
WORDS = "InfiniteTalk weights"
WHERE = f"{WANT_BASE.advice}, load it with Load Diffusion Model or the GGUF loader and connect it here"
# ComfyUI's classes for models that have more than Wan's own layers.
CLASSES = {
    "VaceWanModel": CheckpointKind.WAN_VACE,
    "CameraWanModel": CheckpointKind.WAN_FUN_CAMERA,
    "WanModel_S2V": CheckpointKind.WAN_S2V,
    "HumoWanModel": CheckpointKind.WAN_HUMO,
    "AnimateWanModel": CheckpointKind.WAN_ANIMATE,
}


@dataclass(frozen=True)
class SpeechCall:
    """What the blocks need during one prediction.

    In transformer_options `speech` is by guidance branch (ComfyUI's `cond_or_uncond`); what reaches the model is
    `of_items`: by item of its batch, whose branches are named. camera: Uni3C's share of this step, or None. cached: the
    step cache's, or None.
    """

    adapter: AudioAdapter
    speech: Sequence[SpeechTokens]
    strength: float
    camera: CameraStep | None = None
    cached: CachedStep | None = None
    branches: tuple[int, ...] = ()

    def of_items(self, branches: Sequence[int]) -> SpeechCall:
        """For a batch of these branches."""
        return replace(self, speech=tuple(self.speech[i] for i in branches), branches=tuple(branches))

    def to(self, *args: Any, **kwargs: Any) -> SpeechCall:
        """ComfyUI moves what travels in transformer_options; the blocks cast where they use it."""
        return self


def patch_model(
    model: Patcher,
    path: Path,
    strength: float,
    attention: AttentionBackend = AttentionBackend.AUTO,
    models: SharedModels | None = None,
) -> Patcher:
    """A clone of `model` with the weights of `path` as an additional model, loaded and moved by ComfyUI with it.

    models: where loaded weights are shared; None: loaded for this caller alone.
    """
    backbone = check_backbone(model)
    # Neither strength nor attention makes other weights.
    adapter = (models or SharedModels()).patcher(
        path, WORDS, partial(_load_adapter, path, backbone), (backbone.num_heads,)
    )
    _check_fit(adapter.model.config, backbone, path.name)
    patched = model.clone()
    patched.set_additional_models(KEY, [adapter])
    patched.set_attachments(KEY, strength)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_model_wrapper)
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, wan_forward_wrapper)
    patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, ask_for_memory)
    choose_attention(patched, attention)
    return patched


def _load_adapter(path: Path, backbone: Any) -> tuple[Patcher, str]:
    """The weights of a file and their fingerprint; refused by the header alone if they are not made for `backbone`."""
    file = open_infinitetalk(path)
    config = AdapterConfig.from_shapes(file.shapes, backbone.num_heads)
    _check_fit(config, backbone, path.name)
    loaded = file.read()
    adapter = load_strictly(partial(AudioAdapter, config, device="meta"), loaded.tensors, path.name)
    return model_patcher(adapter), loaded.fingerprint


def _check_fit(config: AdapterConfig, backbone: Any, name: str) -> None:
    if (config.dim, config.blocks) != (backbone.dim, len(backbone.blocks)):
        raise InputError(
            f"{name} is made for a model of {config.blocks} blocks of width {config.dim}, but the MODEL has "
            f"{len(backbone.blocks)} blocks of width {backbone.dim}; {WHERE}"
        )


def check_backbone(model: Patcher) -> Any:
    """The Wan 2.1 I2V backbone inside `model`, or a sentence on what it is instead."""
    backbone = getattr(model.model, "diffusion_model", None)
    name = type(backbone).__name__
    if type(backbone) is comfy.ldm.wan.model.WanModel:
        kind = _kind_of_backbone(backbone)
        if kind is WANT_BASE.kind:
            return backbone
        what = kind.label
    elif name in CLASSES:
        what = CLASSES[name].label
    elif isinstance(backbone, comfy.ldm.wan.model.WanModel):
        what = f"{CheckpointKind.WAN_OTHER.label} ({name})"
    else:
        what = f"a {type(model.model).__name__}"
    raise InputError(f"the MODEL is {what}, not {WANT_BASE.kind.label}; {WHERE}")


def _kind_of_backbone(backbone: Any) -> CheckpointKind:
    if getattr(backbone, "ref_conv", None) is not None:
        return CheckpointKind.WAN_FUN_CONTROL
    sees = backbone.img_emb is not None
    both_ends = sees and getattr(backbone.img_emb, "emb_pos", None) is not None
    return kind_of_wan(backbone.dim, backbone.in_dim, sees, both_ends)


def adapter_of(model: Patcher) -> AudioAdapter:
    """The audio adapter that `patch_model` gave to this MODEL, or a sentence that it has none."""
    return adapter_patcher(model).model


def adapter_patcher(model: Patcher) -> Patcher:
    """The adapter as the model that ComfyUI loads and moves. Raises InputError where this MODEL has none."""
    patchers = model.get_additional_models_with_key(KEY)
    if not patchers:
        raise InputError(
            "the MODEL has no InfiniteTalk weights: connect it through the InfiniteTalk Model Loader first"
        )
    return patchers[0]


def apply_model_wrapper(
    executor: Any,
    x: Tensor,
    timestep: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Wrapper of BaseModel's apply_model: hands what `wan_forward_wrapper` needs to the backbone as an argument.

    A compiled backbone checks its arguments at each call, but not transformer_options (ComfyUI's TorchCompileModel
    says so): found there, the speech of one branch would be taken for another's.
    """
    options = transformer_options or {}
    if KEY in options:
        kwargs[KEY] = options[KEY].of_items(options["cond_or_uncond"])
    return executor(x, timestep, c_concat, c_crossattn, control, options, **kwargs)


def wan_forward_wrapper(
    executor: Any,
    x: Tensor,
    timestep: Tensor,
    context: Tensor,
    clip_fea: Tensor | None = None,
    time_dim_concat: Tensor | None = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Wrapper of WanModel's forward: replaces each block by one that hears. Without speech nothing changes."""
    options = transformer_options or {}
    call = kwargs.pop(KEY, None)
    if call is not None:
        picture_tokens = None if clip_fea is None else clip_fea.shape[-2]
        if call.camera is not None:
            call.camera.begin(executor.class_obj, x, timestep, options)
        options = _with_audio_blocks(options, executor.class_obj, call, picture_tokens)
    return executor(x, timestep, context, clip_fea, time_dim_concat, options, **kwargs)


def _with_audio_blocks(
    options: dict[str, Any], backbone: Any, call: SpeechCall, picture_tokens: int | None
) -> dict[str, Any]:
    replacements = options.get("patches_replace", {})
    blocks = dict(replacements.get("dit", {}))
    listening = [
        partial(_audio_block, i, block, audio, call, picture_tokens)
        for i, (block, audio) in enumerate(zip(backbone.blocks, call.adapter.blocks, strict=True))
    ]
    if call.cached is not None:
        listening = call.cached.around(call.branches, listening)
    for i, hears in enumerate(listening):
        other = blocks.get(("double_block", i))
        blocks[("double_block", i)] = hears if other is None else _inside(other, hears)
    return {**options, "patches_replace": {**replacements, "dit": blocks}}


def _inside(other: Callable, block: Callable) -> Callable:
    """Another node's replacement of the same block stays outermost and calls ours as the original."""
    return lambda args, extra: other(args, {**extra, "original_block": lambda inner: block(inner, extra)})


def _audio_block(
    index: int,
    block: Any,
    audio: Any,
    call: SpeechCall,
    picture_tokens: int | None,
    args: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Tensor]:
    options, e = args["transformer_options"], args["vec"]
    # ComfyUI 0.33 gives the modulation a token axis, of length 1 for Wan 2.1.
    e = e.squeeze(1) if e.ndim == 4 else e

    def cross_attention(y: Tensor) -> Tensor:
        return block.cross_attn(y, args["txt"], context_img_len=picture_tokens, transformer_options=options)

    calls = BlockCalls(
        self_attention=partial(_self_attention, block.self_attn, args["pe"], options),
        cross_attention=cross_attention,
        attention=partial(_audio_attention, options),
        after_cross_attention=partial(_other_patches, options),
    )
    x = audio_conditioned_block(block, audio, args["img"].contiguous(), e, call.speech, call.strength, calls)
    return {"img": x if call.camera is None else call.camera.after_block(index, x)}


def _audio_attention(options: dict[str, Any], q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The host's attention. With some dozens of keys low precision gains nothing, and SageAttention can give NaN:
    the host says the same of its attention to the picture."""
    return optimized_attention(q, k, v, heads, transformer_options=options, low_precision_attention=False)


def _other_patches(options: dict[str, Any], x: Tensor) -> Tensor:
    """What other nodes put after the cross-attention (newer ComfyUI)."""
    for patch in options.get("patches", {}).get("attn2_patch", []):
        x = patch({"x": x, "transformer_options": options})
    return x


def _self_attention(
    attention: Any, freqs: Tensor, options: dict[str, Any], y: Tensor, keep: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The block's own self-attention; with `keep`, its rotated queries and keys are caught on their way through
    the host's attention override, which exists in every supported version."""
    if not keep:
        return attention(y, freqs, transformer_options=options), None, None
    caught: list[Tensor] = []
    other = options.get("optimized_attention_override")

    def catch(function: Callable, q: Tensor, k: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        caught[:] = (q, k)
        return function(q, k, *rest, **kwargs) if other is None else other(function, q, k, *rest, **kwargs)

    out = attention(y, freqs, transformer_options={**options, "optimized_attention_override": catch})
    q, k = (t.unflatten(-1, (attention.num_heads, -1)) for t in caught)
    return out, q, k

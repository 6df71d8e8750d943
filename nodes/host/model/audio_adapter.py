"""Adds InfiniteTalk weights to a MODEL: an audio adapter as an additional model, and Wan blocks with audio
cross-attention."""

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

from ....infinitetalk_core.checkpoints.infinitetalk import open_infinitetalk
from ....infinitetalk_core.checkpoints.kinds import WANT_BASE, CheckpointKind, kind_of_wan
from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter, SpeechTokens
from ....infinitetalk_core.model.block import BlockCalls, audio_conditioned_block
from ....infinitetalk_core.model.kernels import AttentionBackend
from .attention import choose_attention
from .cached_blocks import CachedStep
from .memory import ask_for_memory
from .patchers import Patcher, load_strictly, model_patcher
from .shared_models import SharedModels
from .uni3c import CameraStep

KEY = "infinitetalk"
WORDS = "InfiniteTalk weights"
WHERE = f"{WANT_BASE.advice}, load it with Load Diffusion Model or the GGUF loader and connect it here"
# ComfyUI's classes for Wan variants with additional layers.
CLASSES = {
    "VaceWanModel": CheckpointKind.WAN_VACE,
    "CameraWanModel": CheckpointKind.WAN_FUN_CAMERA,
    "WanModel_S2V": CheckpointKind.WAN_S2V,
    "HumoWanModel": CheckpointKind.WAN_HUMO,
    "AnimateWanModel": CheckpointKind.WAN_ANIMATE,
}


@dataclass(frozen=True)
class SpeechCall:
    """Arguments of the audio-conditioned blocks for one prediction.

    In transformer_options, `speech` has one entry per guidance branch (ComfyUI's `cond_or_uncond`). The model gets the
    result of `of_items`: one entry per batch item, with the branch of each item in `branches`. camera: Uni3C in this
    step, or None. cached: the step cache in this step, or None.
    """

    adapter: AudioAdapter
    speech: Sequence[SpeechTokens]
    strength: float
    camera: CameraStep | None = None
    cached: CachedStep | None = None
    branches: tuple[int, ...] = ()

    def of_items(self, branches: Sequence[int]) -> SpeechCall:
        """Return the call for a batch whose items belong to these branches."""
        return replace(self, speech=tuple(self.speech[i] for i in branches), branches=tuple(branches))

    def to(self, *args: Any, **kwargs: Any) -> SpeechCall:
        """Return self. ComfyUI calls `to` on values in transformer_options; the blocks cast where they use them."""
        return self


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
    # Strength and attention are not part of the cache key, since the weights do not depend on them.
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
    """Load the weights of a file; return their patcher and fingerprint.

    Raises InputError before the tensors are read if the header shows that they are not made for `backbone`.
    """
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
    """Return the Wan 2.1 I2V backbone of `model`. Raises InputError that names the kind of any other model."""
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
    has_image_embedding = backbone.img_emb is not None
    first_last_frame = has_image_embedding and getattr(backbone.img_emb, "emb_pos", None) is not None
    return kind_of_wan(backbone.dim, backbone.in_dim, has_image_embedding, first_last_frame)


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
    """Wrap BaseModel.apply_model: pass the `SpeechCall` to the backbone as a keyword argument.

    A compiled backbone guards on its arguments at each call, but not on transformer_options (see ComfyUI's
    TorchCompileModel): read from there, the speech of one branch could be reused for another.
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
    """Wrap WanModel.forward: replace each block by one with audio cross-attention. Without speech nothing changes."""
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
    patches_replace = options.get("patches_replace", {})
    replacements = dict(patches_replace.get("dit", {}))
    audio_blocks = [
        partial(_audio_block, i, block, audio, call, picture_tokens)
        for i, (block, audio) in enumerate(zip(backbone.blocks, call.adapter.blocks, strict=True))
    ]
    if call.cached is not None:
        audio_blocks = call.cached.around(call.branches, audio_blocks)
    for i, audio_block in enumerate(audio_blocks):
        other = replacements.get(("double_block", i))
        replacements[("double_block", i)] = audio_block if other is None else _nest(other, audio_block)
    return {**options, "patches_replace": {**patches_replace, "dit": replacements}}


def _nest(outer: Callable, inner: Callable) -> Callable:
    """Nest our replacement of a block in another node's, which stays outermost and calls ours as the original."""
    return lambda args, extra: outer(args, {**extra, "original_block": lambda inner_args: inner(inner_args, extra)})


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
        after_cross_attention=partial(_apply_attn2_patches, options),
    )
    x = audio_conditioned_block(block, audio, args["img"].contiguous(), e, call.speech, call.strength, calls)
    return {"img": x if call.camera is None else call.camera.after_block(index, x)}


def _audio_attention(options: dict[str, Any], q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Run ComfyUI's attention in full precision.

    With some dozens of keys low precision gains nothing, and SageAttention can give NaN. ComfyUI does the same for its
    cross-attention to the image tokens.
    """
    return optimized_attention(q, k, v, heads, transformer_options=options, low_precision_attention=False)


def _apply_attn2_patches(options: dict[str, Any], x: Tensor) -> Tensor:
    """Apply the patches that other nodes put after the cross-attention (newer ComfyUI)."""
    for patch in options.get("patches", {}).get("attn2_patch", []):
        x = patch({"x": x, "transformer_options": options})
    return x


def _self_attention(
    attention: Any, freqs: Tensor, options: dict[str, Any], y: Tensor, keep: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Run the block's self-attention; return its output, and with `keep` the rotated queries and keys, else None.

    Queries and keys (B, L, heads, D) are captured by an attention override, which every supported ComfyUI has.
    """
    if not keep:
        return attention(y, freqs, transformer_options=options), None, None
    captured: list[Tensor] = []
    other = options.get("optimized_attention_override")

    def capture(function: Callable, q: Tensor, k: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        captured[:] = (q, k)
        return function(q, k, *rest, **kwargs) if other is None else other(function, q, k, *rest, **kwargs)

    out = attention(y, freqs, transformer_options={**options, "optimized_attention_override": capture})
    q, k = (t.unflatten(-1, (attention.num_heads, -1)) for t in captured)
    return out, q, k

"""The wrappers that give ComfyUI's Wan model audio cross-attention in every block.

ComfyUI calls `apply_model_wrapper` around BaseModel.apply_model and `wan_forward_wrapper` around WanModel.forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from comfy.ldm.wan.model import apply_rope1
from torch import Tensor

from ....infinitetalk_core.model.attention import sdpa
from ....infinitetalk_core.model.audio_adapter import AudioAdapter
from ....infinitetalk_core.model.audio_cross_attention import BlockCalls, SpeechTokens, audio_conditioned_block
from ....infinitetalk_core.sampling.step_cache import CachedStep
from .attention import ChosenAttention
from .cached_blocks import Replacement, cached_blocks
from .comfyui_attention import OVERRIDE, plain_for_few_keys
from .uni3c_step import Uni3CStep

KEY = "infinitetalk"


@dataclass(frozen=True)
class SpeechCall:
    """Arguments of the audio-conditioned blocks for one prediction.

    In transformer_options, `speech` has one entry per guidance branch (ComfyUI's `cond_or_uncond`). The model gets the
    result of `of_items`: one entry per batch item, with the branch of each item in `branches`. camera: Uni3C in this
    step, or None. cached: the step cache in this step, or None. attention: our own choice of attention on the MODEL.
    copies: the same call with the models of other GPUs, among which ComfyUI 0.33 can divide the branches.
    """

    adapter: AudioAdapter
    speech: Sequence[SpeechTokens]
    strength: float
    camera: Uni3CStep | None = None
    cached: CachedStep | None = None
    branches: tuple[int, ...] = ()
    attention: ChosenAttention | None = None
    copies: Mapping[torch.device, SpeechCall] = field(default_factory=dict)

    def on(self, device: torch.device | None) -> SpeechCall:
        """Return the call for a prediction on one of several GPUs; None: on the MODEL's own."""
        return self if device is None else self.copies.get(device, self)

    def of_items(self, branches: Sequence[int]) -> SpeechCall:
        """Return the call for a batch whose items belong to these branches."""
        speech = tuple(self.speech[i] for i in branches)
        return replace(self, speech=speech, branches=tuple(branches), copies={})

    def to(self, *args: Any, **kwargs: Any) -> SpeechCall:
        """Return self. ComfyUI calls `to` on values in transformer_options; the blocks cast where they use them."""
        return self


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
    """Wrap BaseModel.apply_model: pass the `SpeechCall` to the backbone as a keyword argument; quantize no few keys.

    A compiled backbone guards on its arguments at each call, but not on transformer_options (see ComfyUI's
    TorchCompileModel): read from there, the speech of one branch could be reused for another, and a chunk that is made
    again with another attention would run the graph of the one before.
    """
    options = transformer_options or {}
    if KEY in options:
        override = options.get(OVERRIDE)
        chosen = override if isinstance(override, ChosenAttention) else None
        call = options[KEY].on(options.get("multigpu_thread_device"))
        kwargs[KEY] = replace(call.of_items(options["cond_or_uncond"]), attention=chosen)
        options = plain_for_few_keys(options)
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
        if call.attention is not None and isinstance(options.get(OVERRIDE), ChosenAttention):
            options = {**options, OVERRIDE: call.attention}
        if call.camera is not None:
            call.camera.begin(executor.class_obj, x, timestep, options)
        options = _with_audio_blocks(options, executor.class_obj, call, picture_tokens)
    return executor(x, timestep, context, clip_fea, time_dim_concat, options, **kwargs)


def _with_audio_blocks(
    options: dict[str, Any], backbone: Any, call: SpeechCall, picture_tokens: int | None
) -> dict[str, Any]:
    patches_replace = options.get("patches_replace", {})
    replacements = dict(patches_replace.get("dit", {}))
    audio_blocks: list[Replacement] = [
        partial(_audio_block, i, block, audio, call, picture_tokens)
        for i, (block, audio) in enumerate(zip(backbone.blocks, call.adapter.blocks, strict=True))
    ]
    if call.cached is not None:
        audio_blocks = cached_blocks(call.cached, call.branches, audio_blocks)
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
    # Packs that bring a forward pass of their own, written for an older ComfyUI, give the options beside the arguments.
    options, e = args.get("transformer_options") or extra.get("transformer_options", {}), args["vec"]
    # ComfyUI 0.33 gives the modulation a token axis, of length 1 for Wan 2.1.
    e = e.squeeze(1) if e.ndim == 4 else e

    def cross_attention(y: Tensor) -> Tensor:
        return block.cross_attn(y, args["txt"], context_img_len=picture_tokens, transformer_options=options)

    calls = BlockCalls(
        self_attention=partial(_self_attention, block.self_attn, args["pe"], options),
        cross_attention=cross_attention,
        # PyTorch's, whatever runs the others: the keys are some dozens.
        attention=sdpa,
        after_cross_attention=partial(_apply_attn2_patches, options),
    )
    x = audio_conditioned_block(block, audio, args["img"].contiguous(), e, call.speech, call.strength, calls)
    return {"img": x if call.camera is None else call.camera.after_block(index, x)}


def _apply_attn2_patches(options: dict[str, Any], x: Tensor) -> Tensor:
    """Apply the patches that other nodes put after the cross-attention (newer ComfyUI)."""
    for patch in options.get("patches", {}).get("attn2_patch", []):
        x = patch({"x": x, "transformer_options": options})
    return x


def _self_attention(
    attention: Any, freqs: Tensor, options: dict[str, Any], y: Tensor, keep: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Run the block's self-attention; return its output, and with `keep` the rotated queries and keys, else None.

    Queries and keys (B, L, heads, D) are captured by an attention override, which every supported ComfyUI has. A pack
    that puts another function in the place of ComfyUI's asks no override; then they are computed once more.
    """
    if not keep:
        return attention(y, freqs, transformer_options=options), None, None
    captured: list[Tensor] = []
    other = options.get(OVERRIDE)

    def capture(function: Callable, q: Tensor, k: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        captured[:] = (q, k)
        return function(q, k, *rest, **kwargs) if other is None else other(function, q, k, *rest, **kwargs)

    out = attention(y, freqs, transformer_options={**options, OVERRIDE: capture})
    if captured:
        q, k = (t.unflatten(-1, (attention.num_heads, -1)) for t in captured)
    else:
        projections = ((attention.norm_q, attention.q), (attention.norm_k, attention.k))
        q, k = (apply_rope1(norm(f(y)).unflatten(-1, (attention.num_heads, -1)), freqs) for norm, f in projections)
    return out, q, k

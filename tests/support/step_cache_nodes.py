"""Step cache nodes of other packs, as stand-ins that patch ComfyUI's Wan model as those do.

Both packs (ComfyUI-TeaCache, ComfyUI-MagCache) replace `forward_orig` of the backbone while a prediction runs, by one
that was written for an older ComfyUI: it gives a block's replacement the options beside its arguments. Both keep their
state as an attribute of the backbone, with two slots by `cond_or_uncond`, and empty it at the first step only if both
slots are in use. ComfyUI's own EasyCache and LazyCache are used as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from comfy.ldm.wan.model import sinusoidal_embedding_1d
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from torch import Tensor

# Relative sizes of the residual of one step to that of the step before, of MagCache: any that fall slowly.
MAGNITUDES = torch.linspace(1.0, 0.9, 80)


@dataclass
class Slot:
    """The state of one prediction: the sum since the blocks last ran, and what they added."""

    change: float = 0.0
    ratio: float = 1.0
    left_out: int = 0
    modulation: Tensor | None = None
    residual: Tensor | None = None


Rule = Callable[[Slot, Tensor, dict[str, Any]], bool]  # (slot, time modulation, options) -> leave the blocks out


def by_modulation(slot: Slot, modulation: Tensor, options: dict[str, Any]) -> bool:
    """TeaCache's rule, with the plain relative change."""
    before, slot.modulation = slot.modulation, modulation
    if before is None:
        return False
    slot.change += float((modulation - before).abs().mean() / before.abs().mean())
    if slot.change < options["rel_l1_thresh"]:
        return True
    slot.change = 0.0
    return False


def by_magnitude(slot: Slot, modulation: Tensor, options: dict[str, Any]) -> bool:
    """MagCache's rule: at most two steps one after the other, and none of the first fifth."""
    step, steps = options["current_step"], options["total_infer_steps"]
    if step < int(steps * options["retention_ratio"]):
        return False
    slot.ratio *= float(MAGNITUDES[step])
    slot.left_out += 1
    slot.change += abs(1 - slot.ratio)
    if slot.change <= options["magcache_thresh"] and slot.left_out <= 2:
        return True
    slot.ratio, slot.left_out, slot.change = 1.0, 0, 0.0
    return False


def forward_with(name: str, rule: Rule) -> Callable[..., Tensor]:
    """A `forward_orig` of ComfyUI's Wan model with a cache around the blocks; `name`: the state's attribute."""

    def forward_orig(self, x, t, context, clip_fea=None, freqs=None, transformer_options=None, **kwargs):
        options = transformer_options
        x = self.patch_embedding(x.float()).to(x.dtype)
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        e = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t).to(x.dtype))
        e0 = self.time_projection(e).unflatten(1, (6, self.dim))
        context = self.text_embedding(context)
        pictures = None
        if clip_fea is not None:
            context = torch.cat([self.img_emb(clip_fea), context], dim=1)
            pictures = clip_fea.shape[-2]
        if not hasattr(self, name):
            setattr(self, name, {0: Slot(), 1: Slot()})
        slots, branches = getattr(self, name), options["cond_or_uncond"]
        each = len(x) // len(branches)
        skips = [rule(slots[k], e0[i * each : (i + 1) * each], options) for i, k in enumerate(branches)]
        if all(skips) and all(slots[k].residual is not None for k in branches):
            for i, k in enumerate(branches):
                x[i * each : (i + 1) * each] += slots[k].residual
        else:
            before, replaced = x.clone(), options.get("patches_replace", {}).get("dit", {})
            for i, block in enumerate(self.blocks):

                def plain(args, block=block):
                    shared = {"e": args["vec"], "freqs": args["pe"], "context_img_len": pictures}
                    return {"img": block(args["img"], context=args["txt"], **shared)}

                args = {"img": x, "txt": context, "vec": e0, "pe": freqs}
                extra = {"original_block": plain, "transformer_options": options}
                x = replaced.get(("double_block", i), lambda args, extra: extra["original_block"](args))(args, extra)[
                    "img"
                ]
            for i, k in enumerate(branches):
                slots[k].residual = (x - before)[i * each : (i + 1) * each]
        return self.unpatchify(self.head(x, e), grid)

    return forward_orig


def patched(model: Any, name: str, rule: Rule, **options: Any) -> Any:
    """A clone of the MODEL with such a cache, as the nodes of both packs make it."""
    clone = model.clone()
    clone.model_options["transformer_options"].update(options)
    backbone = clone.get_model_object("diffusion_model")
    replaced = mock.patch.multiple(backbone, forward_orig=forward_with(name, rule).__get__(backbone, type(backbone)))

    def wrapper(model_function, given):
        c, sigmas = given["c"], given["c"]["transformer_options"]["sample_sigmas"]
        step = int((sigmas > given["timestep"][0]).sum())
        state = vars(backbone).get(name)
        if step == 0 and state and all(slot.residual is not None for slot in state.values()):
            delattr(backbone, name)
        c["transformer_options"].update(current_step=step, total_infer_steps=len(sigmas) - 1)
        with replaced:
            return model_function(given["input"], given["timestep"], **c)

    clone.set_model_unet_function_wrapper(wrapper)
    return clone


def teacache(model: Any, threshold: float) -> Any:
    """The node TeaCache."""
    return patched(model, "teacache_state", by_modulation, rel_l1_thresh=threshold)


def magcache(model: Any, threshold: float) -> Any:
    """The node MagCache."""
    return patched(model, "magcache_state", by_magnitude, magcache_thresh=threshold, retention_ratio=0.2)


def unknown_cache(model: Any, threshold: float) -> Any:
    """A cache of a pack that nobody knows, kept under another name."""
    return patched(model, "answers_of_the_last_step", by_modulation, rel_l1_thresh=threshold)


def easycache(model: Any, threshold: float) -> Any:
    """ComfyUI's node EasyCache."""
    return EasyCacheNode.execute(model, threshold, 0.15, 0.95, False).args[0]


def lazycache(model: Any, threshold: float) -> Any:
    """ComfyUI's node LazyCache."""
    return LazyCacheNode.execute(model, threshold, 0.15, 0.95, False).args[0]


@dataclass
class Passes:
    """Counts the passes through the blocks, in batch items: hook it to the self-attention of the first."""

    items: int = 0
    handle: Any = field(default=None, repr=False)

    def watch(self, model: Any) -> Passes:
        """Begin to count."""
        layer = model.get_model_object("diffusion_model").blocks[0].self_attn
        self.handle = layer.register_forward_pre_hook(self._count)
        return self

    def _count(self, layer: Any, args: tuple[Tensor, ...]) -> None:
        self.items += len(args[0])

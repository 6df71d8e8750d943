"""The step cache on ComfyUI's Wan model, which does not expose its blocks as one function.

The settings are an attachment of the MODEL. In a step that is skipped, the replacement of the first block adds the
cached residuals and the others return their input; which steps those are decides sampling/step_cache.py of the core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from comfy.ldm.wan.model import sinusoidal_embedding_1d
from torch import Tensor

from ....infinitetalk_core.sampling.step_cache import CachedStep, StepCaching, add_residuals
from .patchers import Patcher

KEY = "infinitetalk_step_cache"

Replacement = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]  # block replacement(args, extra)


def attach_step_cache(model: Patcher, caching: StepCaching) -> Patcher:
    """Return a clone of `model` with the step cache enabled."""
    patched = model.clone()
    patched.set_attachments(KEY, caching)
    return patched


def step_caching_of(model: Patcher) -> StepCaching | None:
    """Return the settings that `attach_step_cache` attached to this MODEL, or None."""
    return model.get_attachment(KEY)


def cached_blocks(step: CachedStep, branches: Sequence[int], blocks: list[Replacement]) -> list[Replacement]:
    """Wrap the replacements of all blocks for a prediction whose batch items belong to `branches`.

    With cached residuals no block runs; else the blocks run, and their residual is stored if the step says so.
    """
    residuals = step.residuals_of(branches)
    if residuals is not None:
        return [partial(_add_residuals, residuals), *([_return_input] * (len(blocks) - 1))]
    if step.stored is None:
        return blocks
    before: list[Tensor] = []
    blocks = [partial(_keep_input, step, before, blocks[0]), *blocks[1:]]
    return [*blocks[:-1], partial(_store_residuals, step, before, branches, blocks[-1])]


def _add_residuals(residuals: list[Tensor], args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {"img": add_residuals(args["img"], residuals)}


def _return_input(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {"img": args["img"]}


def _keep_input(
    step: CachedStep, before: list[Tensor], block: Replacement, args: dict[str, Any], extra: dict[str, Any]
) -> dict[str, Any]:
    before.append(step.to_storage(args["img"]))
    return block(args, extra)


def _store_residuals(
    step: CachedStep,
    before: list[Tensor],
    branches: Sequence[int],
    block: Replacement,
    args: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Any]:
    out = block(args, extra)
    step.store(branches, before[0], out["img"])
    return out


@torch.no_grad()
def time_modulation(model: Any, timestep: Tensor) -> Tensor:
    """Return the time modulation (1, 6·C) at a noise level (B,), computed as in the forward pass of ComfyUI's model."""
    wan = model.diffusion_model
    t = model.model_sampling.timestep(timestep).float()
    embedded = sinusoidal_embedding_1d(wan.freq_dim, t.flatten()[:1])
    dtype = model.manual_cast_dtype or model.get_dtype()
    return wan.time_projection(wan.time_embedding(embedded.to(timestep.device, dtype)))

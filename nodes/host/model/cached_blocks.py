"""Step cache on a MODEL: its settings as an attachment, and the block replacements that reuse cached residuals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.ldm.wan.model import sinusoidal_embedding_1d
from torch import Tensor

from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.sampling.step_cache import StepCache, StepCaching, add
from .patchers import Patcher

log = logging.getLogger("infinitetalk")
KEY = "infinitetalk_step_cache"

Replacement = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]  # block replacement(args, extra)


def put_step_cache(model: Patcher, caching: StepCaching) -> Patcher:
    """Return a clone of `model` with the step cache enabled."""
    patched = model.clone()
    patched.set_attachments(KEY, caching)
    return patched


def step_caching_of(model: Patcher) -> StepCaching | None:
    """Return the settings that `put_step_cache` attached to this MODEL, or None."""
    return model.get_attachment(KEY)


@dataclass(frozen=True)
class CachedStep:
    """State of the step cache for one step, the same for all predictions of the step.

    added: the cached residual of all blocks by guidance branch, added instead of running them; None: run the blocks.
    kept: receives the residuals of this step by branch; None: they are not stored. place: moves a tensor to the cache's
    device. Plain values, so that torch.compile can trace them.
    """

    added: dict[int, Tensor] | None
    kept: dict[int, Tensor] | None
    place: Callable[[Tensor], Tensor]

    def around(self, branches: Sequence[int], blocks: list[Replacement]) -> list[Replacement]:
        """Wrap the replacements of all blocks for a prediction whose batch items belong to `branches`.

        With cached residuals no block runs; else the blocks run, and their residual is stored if needed.
        """
        if self.added is not None and all(branch in self.added for branch in branches):
            added = [self.added[branch] for branch in branches]
            return [partial(_add_residual, added), *([_return_input] * (len(blocks) - 1))]
        if self.kept is None:
            return blocks
        tokens_before: list[Tensor] = []
        blocks = [partial(_store_input, self.place, tokens_before, blocks[0]), *blocks[1:]]
        return [*blocks[:-1], partial(_store_residual, self.place, tokens_before, self.kept, branches, blocks[-1])]


def _add_residual(added: list[Tensor], args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {"img": add(args["img"], added)}


def _return_input(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {"img": args["img"]}


def _store_input(
    place: Callable[[Tensor], Tensor],
    tokens_before: list[Tensor],
    block: Replacement,
    args: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Any]:
    tokens_before.append(place(args["img"]))
    return block(args, extra)


def _store_residual(
    place: Callable[[Tensor], Tensor],
    tokens_before: list[Tensor],
    kept: dict[int, Tensor],
    branches: Sequence[int],
    block: Replacement,
    args: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Any]:
    out = block(args, extra)
    for branch, item in zip(branches, place(out["img"]) - tokens_before[0], strict=True):
        kept[branch] = item
    return out


class ChunkCache:
    """The step cache of one chunk with ComfyUI's model; `close` frees its memory."""

    def __init__(self, caching: StepCaching, model: Any):
        self.cache = StepCache(caching)
        self.model = model

    def begin(self, timestep: Tensor, around: bool) -> CachedStep:
        """Begin the step at this noise level (1,) and decide whether to skip its blocks.

        around: whether Uni3C acts in it.
        """
        cache = self.cache
        cache.begin(self._modulation(timestep), around)
        if cache.skipping:
            return CachedStep(cache.added, None, cache.place)
        return CachedStep(None, cache.added if cache.keeping else None, cache.place)

    def close(self, chunk: int) -> None:
        """Log how many steps were skipped, and free the memory."""
        log.info("InfiniteTalk: chunk %d: %s", chunk + 1, self.cache.summary())
        self.cache.clear()

    @torch.no_grad()
    def _modulation(self, timestep: Tensor) -> Tensor:
        """Return the time modulation (1, 6·C), computed as in the model's forward."""
        model, wan = self.model, self.model.diffusion_model
        t = model.model_sampling.timestep(timestep).float()
        embedded = sinusoidal_embedding_1d(wan.freq_dim, t.flatten()[:1])
        dtype = model.manual_cast_dtype or model.get_dtype()
        return wan.time_projection(wan.time_embedding(embedded.to(timestep.device, dtype)))


def check_single(name: str, conditioning: list) -> None:
    """Raise InputError for a conditioning of several parts, since the cache has one residual per branch."""
    if len(conditioning) > 1:
        raise InputError(
            f"the {name} text is made of {len(conditioning)} parts (Conditioning Combine or time ranges), and the step "
            "cache knows one; connect a single text or take InfiniteTalk Step Cache out"
        )

"""Step caching on the user's MODEL: the setting it carries, and what a chunk's cache does in place of Wan's blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.ldm.wan.model import sinusoidal_embedding_1d
from torch import Tensor

from ...infinitetalk_core.errors import InputError
from ...infinitetalk_core.sampling.step_cache import StepCache, StepCaching, add
from .patchers import Patcher

log = logging.getLogger("infinitetalk")
KEY = "infinitetalk_step_cache"

Replacement = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]  # of a block, as ComfyUI calls one


def put_step_cache(model: Patcher, caching: StepCaching) -> Patcher:
    """A clone of `model` whose chunks are made with a step cache."""
    patched = model.clone()
    patched.set_attachments(KEY, caching)
    return patched


def step_caching_of(model: Patcher) -> StepCaching | None:
    """What `put_step_cache` asked for on this MODEL."""
    return model.get_attachment(KEY)


@dataclass(frozen=True)
class CachedStep:
    """The cache's share of one step; the same in all predictions of the step.

    added: what stands in for the blocks, by branch; None: they run. kept: where what they add is put, by branch;
    None: it is not needed. Plain values, so that torch.compile can look through them.
    """

    added: dict[int, Tensor] | None
    kept: dict[int, Tensor] | None
    place: Callable[[Tensor], Tensor]

    def around(self, branches: Sequence[int], blocks: list[Replacement]) -> list[Replacement]:
        """The replacements of all blocks of a prediction, whose batch is `branches`."""
        if self.added is not None and all(branch in self.added for branch in branches):
            added = [self.added[branch] for branch in branches]
            return [partial(_stand_in, added), *([_pass_on] * (len(blocks) - 1))]
        if self.kept is None:
            return blocks
        start: list[Tensor] = []
        blocks = [partial(_begin, self.place, start, blocks[0]), *blocks[1:]]
        return [*blocks[:-1], partial(_end, self.place, start, self.kept, branches, blocks[-1])]


def _stand_in(added: list[Tensor], args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {"img": add(args["img"], added)}


def _pass_on(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {"img": args["img"]}


def _begin(
    place: Callable[[Tensor], Tensor],
    start: list[Tensor],
    block: Replacement,
    args: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Any]:
    start.append(place(args["img"]))
    return block(args, extra)


def _end(
    place: Callable[[Tensor], Tensor],
    start: list[Tensor],
    kept: dict[int, Tensor],
    branches: Sequence[int],
    block: Replacement,
    args: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Any]:
    out = block(args, extra)
    for branch, item in zip(branches, place(out["img"]) - start[0], strict=True):
        kept[branch] = item
    return out


class ChunkCache:
    """The step cache of one chunk on ComfyUI's model; free of memory after `close`."""

    def __init__(self, caching: StepCaching, model: Any):
        self.cache = StepCache(caching)
        self.model = model

    def begin(self, timestep: Tensor, around: bool) -> CachedStep:
        """The share of the step at this noise level (1,). around: whether a camera takes part in it."""
        cache = self.cache
        cache.begin(self._modulation(timestep), around)
        if cache.skipping:
            return CachedStep(cache.added, None, cache.place)
        return CachedStep(None, cache.added if cache.keeping else None, cache.place)

    def close(self, chunk: int) -> None:
        """Say what was saved, and give the memory back."""
        log.info("InfiniteTalk: chunk %d: %s", chunk + 1, self.cache.summary())
        self.cache.clear()

    @torch.no_grad()
    def _modulation(self, timestep: Tensor) -> Tensor:
        """What the model's time projection gives (1, 6·C), as its forward computes it."""
        model, wan = self.model, self.model.diffusion_model
        t = model.model_sampling.timestep(timestep).float()
        embedded = sinusoidal_embedding_1d(wan.freq_dim, t.flatten()[:1])
        dtype = model.manual_cast_dtype or model.get_dtype()
        return wan.time_projection(wan.time_embedding(embedded.to(timestep.device, dtype)))


def check_single(name: str, conditioning: list) -> None:
    """Refuse texts of several parts: a branch has one memory."""
    if len(conditioning) > 1:
        raise InputError(
            f"the {name} text is made of {len(conditioning)} parts (Conditioning Combine or time ranges), and the step "
            "cache knows one; connect a single text or take InfiniteTalk Step Cache out"
        )

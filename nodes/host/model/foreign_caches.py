"""Step caches of ComfyUI and of other packs on a MODEL: which of them fit a job, and what they may not carry on.

A pack's cache keeps its state as an attribute of the backbone, which all clones of a MODEL share. It empties that state
under conditions of its own, which a chunk with one prediction per step does not meet: the answers of one chunk would be
used in the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.sampling.guidance import Guidance
from ..messages import warn
from .cached_blocks import step_caching_of
from .patchers import Patcher

OURS = "InfiniteTalk Step Cache"


@dataclass(frozen=True)
class ForeignCache:
    """A step cache that other nodes set on a MODEL.

    option: the key in transformer_options by which it is known. branches: how many predictions per step it can tell
    apart, None: any number. state: the attribute of the backbone that it is kept in.
    """

    title: str
    option: str
    branches: int | None = None
    state: str = ""


FOREIGN_CACHES = (
    ForeignCache("EasyCache or LazyCache", "easycache"),
    ForeignCache("TeaCache of another pack", "rel_l1_thresh", 2, "teacache_state"),
    ForeignCache("MagCache of another pack", "magcache_thresh", 2, "magcache_state"),
)


def caches_by_branch(model: Patcher) -> list[str]:
    """Return the names of the step caches on this MODEL that keep one answer for each prediction of a step."""
    return [*(cache.title for cache in _caches_of(model) if cache.branches is not None), *_ours(model)]


def check_step_caches(model: Patcher, guidance: Guidance, steps: int) -> None:
    """Raise InputError where the step caches on this MODEL cannot make the video, and warn of two at once.

    steps: of a chunk.
    """
    branches = len(guidance.branches)
    titles = [*(cache.title for cache in _caches_of(model)), *_ours(model)]
    if len(titles) > 1:
        warn(
            f"this MODEL has two step caches, {' and '.join(titles)}, and each takes the other's guesses for answers "
            "of the model; take one of them out for a better picture"
        )
    for cache in _caches_of(model):
        if guidance.start > 0 and branches > 1:
            raise InputError(
                f"{cache.title} counts on the same predictions in every step, and this guidance begins after "
                f"{guidance.start:.0%} of the steps; set guidance_start to 0, choose a preset that guides in every "
                f"step, or take {OURS} in its place"
            )
        if cache.branches is not None and branches > cache.branches:
            raise InputError(
                f"{cache.title} knows {cache.branches} predictions per step, and this guidance by text and speech "
                f"makes {branches}; set text to 1 in InfiniteTalk Guidance, or take {OURS} in its place"
            )
    _check_first_step(model, steps)


def _check_first_step(model: Patcher, steps: int) -> None:
    """Raise InputError where MagCache would leave out the first step, for which it has no answer."""
    options = _options(model)
    share = options.get("retention_ratio")
    if "magcache_thresh" in options and isinstance(share, int | float) and int(steps * share) < 1:
        raise InputError(
            f"MagCache of another pack leaves out the first of {steps} steps with a retention_ratio of {share:g}, "
            "which gives noise; take it out, since so few steps leave a cache nothing to gain"
        )


def _caches_of(model: Patcher) -> list[ForeignCache]:
    options = _options(model)
    return [cache for cache in FOREIGN_CACHES if cache.option in options]


def _ours(model: Patcher) -> list[str]:
    return [] if step_caching_of(model) is None else [OURS]


def _options(model: Patcher) -> dict[str, Any]:
    return model.model_options.get("transformer_options", {})


@contextmanager
def nothing_carried_over(backbones: Iterable[Any]) -> Iterator[None]:
    """Sample one chunk: what nodes of other packs store on the backbones meanwhile is removed at its end.

    Whatever its name is; the states of known caches, which another sampler may have left, are removed before it too.
    """
    backbones = list(backbones)
    for backbone in backbones:
        for cache in FOREIGN_CACHES:
            vars(backbone).pop(cache.state, None)
    before = [set(vars(backbone)) for backbone in backbones]
    try:
        yield
    finally:
        for backbone, names in zip(backbones, before, strict=True):
            for name in set(vars(backbone)) - names:
                delattr(backbone, name)

"""ComfyUI's own attention: which function it was started with or a node of its own has chosen, and what that does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import comfy.ldm.modules.attention
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ....infinitetalk_core.model.attention_trial import known_problem, problem_with
from ....infinitetalk_core.model.kernels import has_few_keys

OVERRIDE = "optimized_attention_override"
# Packages that kernels are written with.
KERNEL_LANGUAGES = ("triton",)
# The packages that each of ComfyUI's attention functions calls.
PACKAGES = {
    "attention_sage": ("sageattention", *KERNEL_LANGUAGES),
    "attention3_sage": ("sageattn3", "sageattention", *KERNEL_LANGUAGES),
    "attention_flash": ("flash_attn",),
    "attention_xformers": ("xformers",),
    "attention_comfy_kitchen_int8": ("comfy_kitchen", *KERNEL_LANGUAGES),
}
# Functions that need no other package.
OF_PYTORCH = ("attention_pytorch", "attention_sub_quad", "attention_split", "attention_basic")
# Functions that do not quantize; others may.
IN_FULL_PRECISION = (*OF_PYTORCH, "attention_xformers", "attention_flash")


def function_in_use(override: Any) -> Callable | None:
    """Return ComfyUI's attention function that runs with this override; None if another pack's override decides.

    That of ComfyUI's node Model Attention Backend only calls the function that the user chose.
    """
    if override is None:
        return comfy.ldm.modules.attention.optimized_attention
    if getattr(override, "__module__", None) != "comfy.model_patcher":
        return None
    held = (cell.cell_contents for cell in getattr(override, "__closure__", None) or ())
    return next((value for value in held if callable(value)), None)


def is_pytorchs(function: Callable) -> bool:
    """Return whether a function of ComfyUI's needs no other package than PyTorch."""
    return function_name(function) in OF_PYTORCH


def function_name(function: Any) -> str:
    """Return the name of a function, or of the class of an object that is called."""
    return getattr(function, "__name__", type(function).__name__)


@dataclass(frozen=True)
class PlainForFewKeys:
    """ComfyUI attention override that leaves attention to few keys to PyTorch.

    other: the override in whose place it is, or None.
    """

    other: Callable | None

    def __call__(self, function: Callable, q: Tensor, k: Tensor, *rest: Any, **kw: Any) -> Tensor:
        """Run the attention; ComfyUI calls overrides like this."""
        if has_few_keys(k):
            return attention_pytorch(q, k, *rest, **kw)
        return function(q, k, *rest, **kw) if self.other is None else self.other(function, q, k, *rest, **kw)


def plain_for_few_keys(options: dict[str, Any]) -> dict[str, Any]:
    """Return transformer_options with which no attention to few keys is quantized.

    Unchanged where ComfyUI's attention does not quantize, and where an override of ours or of another pack decides.
    """
    override = options.get(OVERRIDE)
    function = function_in_use(override)
    if function is None or function_name(function) in IN_FULL_PRECISION:
        return options
    return {**options, OVERRIDE: PlainForFewKeys(override)}


def function_problem(function: Callable, device: torch.device, dtype: torch.dtype) -> str:
    """Call an attention function of ComfyUI's once; return what is wrong with it, "" if it works.

    A function that was called is not called again in this process for the same device and dtype.
    """
    return known_problem(lambda: _tried(function, device, dtype))


@lru_cache
def _tried(function: Callable, device: torch.device, dtype: torch.dtype) -> str:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Any:
        out = function(q.flatten(2), k.flatten(2), v.flatten(2), q.shape[2])
        return out.unflatten(-1, q.shape[2:]) if isinstance(out, Tensor) else out

    with _warnings_of_attention() as said:
        found = problem_with(run, device, dtype)
    # Some of ComfyUI's functions catch a kernel's exception, log it and call PyTorch's, each time again.
    return found or (f"a small test of it failed: {said[0]}" if said else "")


@contextmanager
def _warnings_of_attention() -> Iterator[list[str]]:
    """Collect the warnings and errors that ComfyUI's attention functions log."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.pathname == comfy.ldm.modules.attention.__file__:
                texts.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logging.getLogger().addHandler(collector)
    try:
        yield texts
    finally:
        logging.getLogger().removeHandler(collector)

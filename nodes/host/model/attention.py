"""Selects the attention backend of a MODEL, and the fallback for backends that give broken latents."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ....infinitetalk_core.log import log
from ....infinitetalk_core.model.kernels import (
    AttentionBackend,
    Kernel,
    Machine,
    attend,
    find_kernel,
    has_few_keys,
    kernel_problem,
    supports,
)
from .comfyui_attention import (
    KERNEL_LANGUAGES,
    OVERRIDE,
    PACKAGES,
    function_in_use,
    function_name,
    function_problem,
    is_pytorchs,
)
from .patchers import Patcher, compute_dtype

# Arguments of ComfyUI's attention functions that change the result; only PyTorch's function supports them.
PYTORCH_ONLY_ARGUMENTS = ("scale", "enable_gqa")
# All packages with attention kernels.
ATTENTION_PACKAGES = (
    *("sageattention", "sageattn3", "flash_attn", "flash_attn_interface", "spas_sage_attn", "xformers"),
    *KERNEL_LANGUAGES,
)


@dataclass(frozen=True)
class ChosenAttention:
    """ComfyUI attention override for an explicitly chosen backend.

    Falls back to PyTorch's attention where the kernel does not fit: with masks, and one that quantizes in full
    precision and for few keys. kernel: None for PyTorch's own.
    """

    choice: AttentionBackend
    kernel: Kernel | None = None

    @property
    def title(self) -> str:
        """Return the name of the kernel, for messages."""
        return "PyTorch's own attention" if self.kernel is None else self.kernel.title

    def __call__(
        self, function: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *rest: Any, **kw: Any
    ) -> Tensor:
        """Run the attention. ComfyUI calls overrides like this; `function` is what it would run without one."""
        if self.kernel is None or rest or not self._fits(self.kernel, q, k, kw, heads):
            return attention_pytorch(q, k, v, heads, *rest, **kw)
        if kw.get("skip_reshape"):  # (B, H, L, D)
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        else:
            q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
        out = attend(q.contiguous(), k.contiguous(), v.contiguous(), self.kernel.module, self.kernel.function)
        return out.transpose(1, 2) if kw.get("skip_output_reshape") else out.flatten(2)

    def _fits(self, kernel: Kernel, q: Tensor, k: Tensor, kw: dict[str, Any], heads: int) -> bool:
        if kw.get("mask") is not None or any(kw.get(name) for name in PYTORCH_ONLY_ARGUMENTS):
            return False
        if kernel.quantizes and (has_few_keys(k) or kw.get("low_precision_attention") is False):
            return False
        return supports(self.choice, q if kw.get("skip_reshape") else q.unflatten(-1, (heads, -1)))


def choose_attention(model: Patcher, choice: AttentionBackend) -> None:
    """Set the backend for the attention of `model`; AUTO leaves it to ComfyUI, unless ComfyUI's own cannot run here.

    Raises InputError for a backend that cannot run here.
    """
    device, dtype = model.load_device, compute_dtype(model)
    dtype = dtype if dtype.itemsize > 1 else torch.bfloat16  # an 8-bit type multiplies weights, and attends to nothing
    if choice is AttentionBackend.AUTO:
        _replace_if_broken(model, device, dtype)
        return
    kernel = None
    if choice is not AttentionBackend.SDPA:
        kernel = find_kernel(choice, Machine.here(device), partial(kernel_problem, device=device, dtype=dtype))
    override = ChosenAttention(choice, kernel)
    log.info("attention by %s, as chosen", override.title)
    _set_override(model, override)


def _replace_if_broken(model: Patcher, device: torch.device, dtype: torch.dtype) -> None:
    """Set PyTorch's attention on `model` where ComfyUI's own does not work.

    Another pack's is not tried: it may rely on the model's tokens and options. It is seen in the first step.
    """
    function = function_in_use(_override(model))
    if function is None or is_pytorchs(function):
        return
    problem = function_problem(function, device, dtype)
    if problem:
        log.warning("%s cannot run here: %s; using PyTorch's own attention instead", attention_in_use(model), problem)
        _set_override(model, ChosenAttention(AttentionBackend.SDPA))


def attention_in_use(model: Patcher) -> str:
    """Describe what runs the attention of `model`, for messages."""
    override = _override(model)
    if isinstance(override, ChosenAttention):
        return override.title
    function = function_in_use(override)
    if function is None:
        return f"another node's attention ({function_name(override)})"
    name = function_name(function).removeprefix("attention_")
    return f"the attention that {'ComfyUI was started with' if override is None else 'a node has chosen'} ({name})"


def attention_name(model: Patcher) -> str:
    """Return the name of the function or class that runs the attention of `model`; it goes into the run's key.

    Unlike `attention_in_use` it does not depend on the wording of messages.
    """
    override = _override(model)
    if isinstance(override, ChosenAttention):
        return "sdpa" if override.kernel is None else f"{override.kernel.module}.{override.kernel.function}"
    return function_name(function_in_use(override) or override)


def attention_modules(model: Patcher) -> tuple[str, ...]:
    """Return the Python modules outside of PyTorch that may compute the attention of `model`."""
    override = _override(model)
    if isinstance(override, ChosenAttention):
        return () if override.kernel is None else (override.kernel.module.partition(".")[0], *KERNEL_LANGUAGES)
    function = function_in_use(override)
    if function is not None:
        return PACKAGES.get(function_name(function), ())
    # Another node's override does not say what it uses, so take every loaded package.
    return tuple(module for module in ATTENTION_PACKAGES if module in sys.modules)


def can_be_replaced(model: Patcher) -> bool:
    """Return whether a broken chunk may be made again with PyTorch's attention.

    True where our node did not set the backend and it is not PyTorch's already.
    """
    override = _override(model)
    return not isinstance(override, ChosenAttention) and function_in_use(override) is not attention_pytorch


def may_fail(model: Patcher) -> bool:
    """Return whether another package or pack computes the attention of `model`, so that an error may come from it."""
    function = function_in_use(_override(model))
    return function is None or not is_pytorchs(function)


@dataclass
class AttentionFallback:
    """Which chunks of a job PyTorch's attention makes: all from the first one that the MODEL's own attention spoiled.

    first: its index, None while there is none. stored: called with a new one, so that a resumed run does not try the
    other attention again and give other bits than an uninterrupted one.
    """

    first: int | None = None
    stored: Callable[[int], None] = lambda index: None

    def covers(self, index: int) -> bool:
        """Return whether PyTorch's attention makes the chunk of this index."""
        return self.first is not None and index >= self.first

    def remember(self, index: int) -> None:
        """Note that the MODEL's own attention spoiled this chunk, which PyTorch's made."""
        self.first = index
        self.stored(index)


def with_plain_attention(model: Patcher) -> Patcher:
    """Return a clone of `model` that uses PyTorch's attention."""
    plain = model.clone()
    _set_override(plain, ChosenAttention(AttentionBackend.SDPA))
    return plain


def _override(model: Patcher) -> Any:
    return model.model_options.get("transformer_options", {}).get(OVERRIDE)


def _set_override(model: Patcher, override: ChosenAttention) -> None:
    # Copy the dictionary, since clones share it.
    options = dict(model.model_options.get("transformer_options", {}))
    model.model_options["transformer_options"] = {**options, OVERRIDE: override}

"""Selects the attention backend of a MODEL, and the fallback for backends that give broken latents."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ....infinitetalk_core.log import log
from ....infinitetalk_core.model.kernels import AttentionBackend, Kernel, Machine, attend, find_kernel, supports
from .patchers import Patcher

OVERRIDE = "optimized_attention_override"
# Arguments of ComfyUI's attention functions that change the result; only PyTorch's function supports them.
PYTORCH_ONLY_ARGUMENTS = ("scale", "enable_gqa")
# Packages that kernels are written with.
KERNEL_LANGUAGES = ("triton",)
# The packages that each of ComfyUI's attention functions calls.
PACKAGES_OF_COMFYUI_ATTENTION = {
    "attention_sage": ("sageattention", *KERNEL_LANGUAGES),
    "attention3_sage": ("sageattn3", "sageattention", *KERNEL_LANGUAGES),
    "attention_flash": ("flash_attn",),
    "attention_xformers": ("xformers",),
    "attention_comfy_kitchen_int8": ("comfy_kitchen", *KERNEL_LANGUAGES),
}
# All packages with attention kernels.
ATTENTION_PACKAGES = (
    *("sageattention", "sageattn3", "flash_attn", "flash_attn_interface", "spas_sage_attn", "xformers"),
    *KERNEL_LANGUAGES,
)


@dataclass(frozen=True)
class ChosenAttention:
    """ComfyUI attention override for an explicitly chosen backend.

    Falls back to PyTorch's attention where the kernel does not fit: with masks, in full precision, and for the few keys
    of audio and image cross-attention, where low precision gains nothing. kernel: None for PyTorch's own.
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
        if self.kernel is None or rest or not self._fits(q, kw, heads):
            return attention_pytorch(q, k, v, heads, *rest, **kw)
        if kw.get("skip_reshape"):  # (B, H, L, D)
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        else:
            q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
        out = attend(q.contiguous(), k.contiguous(), v.contiguous(), self.kernel.module, self.kernel.function)
        return out.transpose(1, 2) if kw.get("skip_output_reshape") else out.flatten(2)

    def _fits(self, q: Tensor, kw: dict[str, Any], heads: int) -> bool:
        if kw.get("mask") is not None or any(kw.get(name) for name in PYTORCH_ONLY_ARGUMENTS):
            return False
        if self.choice is AttentionBackend.SAGE and kw.get("low_precision_attention") is False:
            return False
        return supports(self.choice, q if kw.get("skip_reshape") else q.unflatten(-1, (heads, -1)))


def choose_attention(model: Patcher, choice: AttentionBackend) -> None:
    """Set the backend for all attention of `model`, audio cross-attention included; AUTO leaves it to ComfyUI.

    Raises InputError for a backend that cannot run here.
    """
    if choice is AttentionBackend.AUTO:
        return
    machine = Machine.here(comfy.model_management.get_torch_device())
    override = ChosenAttention(choice, None if choice is AttentionBackend.SDPA else find_kernel(choice, machine))
    log.info("attention by %s, as chosen", override.title)
    _set_override(model, override)


def attention_in_use(model: Patcher) -> str:
    """Describe what runs the attention of `model`, for messages."""
    override = _override(model)
    if isinstance(override, ChosenAttention):
        return override.title
    if override is not None:
        return f"another node's attention ({getattr(override, '__name__', type(override).__name__)})"
    name = comfy.ldm.modules.attention.optimized_attention.__name__
    return f"the attention that ComfyUI was started with ({name.removeprefix('attention_')})"


def attention_name(model: Patcher) -> str:
    """Return the name of the function or class that runs the attention of `model`; it goes into the run's key.

    Unlike `attention_in_use` it does not depend on the wording of messages.
    """
    override = _override(model)
    if isinstance(override, ChosenAttention):
        return "sdpa" if override.kernel is None else f"{override.kernel.module}.{override.kernel.function}"
    function = comfy.ldm.modules.attention.optimized_attention if override is None else override
    return getattr(function, "__name__", type(function).__name__)


def attention_modules(model: Patcher) -> tuple[str, ...]:
    """Return the Python modules outside of PyTorch that may compute the attention of `model`."""
    override = _override(model)
    if isinstance(override, ChosenAttention):
        return () if override.kernel is None else (override.kernel.module.partition(".")[0], *KERNEL_LANGUAGES)
    if override is None:
        return PACKAGES_OF_COMFYUI_ATTENTION.get(comfy.ldm.modules.attention.optimized_attention.__name__, ())
    # Another node's override does not say what it uses, so take every loaded package.
    return tuple(module for module in ATTENTION_PACKAGES if module in sys.modules)


def can_be_replaced(model: Patcher) -> bool:
    """Return whether a broken chunk may be made again with PyTorch's attention.

    True where our node did not set the backend and it is not PyTorch's already.
    """
    override = _override(model)
    if isinstance(override, ChosenAttention):
        return False
    return override is not None or comfy.ldm.modules.attention.optimized_attention is not attention_pytorch


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

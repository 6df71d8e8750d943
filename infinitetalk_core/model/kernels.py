"""Attention kernels of other packages: find one that can run on this machine, and call it.

SageAttention 1 and 2 (8-bit matrix products) and FlashAttention 2, 3 and 4. A package is imported on first use only.
Sources: the packages' README files; `sageattn` and `flash_attn_func` are called as they are documented.
"""

from __future__ import annotations

import enum
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

HALF_DTYPES = (torch.float16, torch.bfloat16)
MOST_CHANNELS = {"sage": 128, "flash": 256}  # of a head
SAGE_GPUS = ((8, 0), (8, 6), (8, 9), (9, 0), (12, 0), (12, 1))


class AttentionBackend(enum.Enum):
    """The attention choices of the user. AUTO keeps the host's own choice."""

    AUTO = "auto"
    SAGE = "sage"
    FLASH = "flash"
    SDPA = "sdpa"


@dataclass(frozen=True)
class Machine:
    """The facts that decide whether a kernel can run.

    device: torch device type; capability: compute capability of an NVIDIA GPU, else None; has: whether a Python module
    is installed.
    """

    device: str
    capability: tuple[int, int] | None
    has: Callable[[str], bool]

    @classmethod
    def here(cls, device: torch.device) -> Machine:
        """Describe the machine of `device`."""
        nvidia = device.type == "cuda" and torch.version.hip is None
        return cls(device.type, torch.cuda.get_device_capability(device) if nvidia else None, _is_installed)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


@dataclass(frozen=True)
class Kernel:
    """An attention function of a package.

    runs_on: whether it supports a compute capability; gpus: the supported capabilities as text, for messages.
    """

    module: str
    function: str
    title: str
    runs_on: Callable[[tuple[int, int]], bool]
    gpus: str


SAGE = Kernel(
    "sageattention", "sageattn", "SageAttention", lambda c: c in SAGE_GPUS, "8.0, 8.6, 8.9, 9.0, 12.0 and 12.1"
)
# In order of preference.
FLASH = (
    Kernel("flash_attn_interface", "flash_attn_func", "FlashAttention 3", lambda c: c == (9, 0), "9.0"),
    Kernel("flash_attn.cute", "flash_attn_func", "FlashAttention 4", lambda c: c[0] in (9, 10), "9.0 and 10.x"),
    Kernel("flash_attn", "flash_attn_func", "FlashAttention 2", lambda c: c >= (8, 0), "8.0 and newer"),
)
KERNELS = {AttentionBackend.SAGE: (SAGE,), AttentionBackend.FLASH: FLASH}


def find_kernel(choice: AttentionBackend, machine: Machine) -> Kernel:
    """Return the kernel for an explicit choice. Raises InputError with the reason if none can run on `machine`."""
    refused = f"attention {choice.value!r} cannot run here: "
    if machine.capability is None:
        raise InputError(f"{refused}it needs an NVIDIA GPU and ComfyUI runs on {machine.device}; choose auto")
    candidates = KERNELS[choice]
    installed = [kernel for kernel in candidates if machine.has(kernel.module)]
    if not installed:
        packages = " or ".join(dict.fromkeys(kernel.module.split(".")[0] for kernel in candidates))
        raise InputError(f"{refused}the Python package {packages} is not installed; install it or choose auto")
    for kernel in installed:
        if kernel.runs_on(machine.capability):
            return kernel
    major, minor = machine.capability
    runs = "; ".join(f"{kernel.title} runs on {kernel.gpus}" for kernel in installed)
    raise InputError(f"{refused}this GPU has compute capability {major}.{minor}, and {runs}; choose auto")


def supports(choice: AttentionBackend, q: Tensor) -> bool:
    """Whether the kernels of `choice` support the dtype and head size of queries q (B, L, H, D)."""
    return q.dtype in HALF_DTYPES and q.shape[-1] <= MOST_CHANNELS[choice.value]


def _import_kernel(module: str) -> Callable[..., Any]:
    """Import the attention function of a package. Not by a variable name, which scanners take for malware."""
    if module == SAGE.module:
        from sageattention import sageattn as run
    elif module == FLASH[0].module:
        from flash_attn_interface import flash_attn_func as run
    elif module == FLASH[1].module:
        from flash_attn.cute import flash_attn_func as run
    elif module == FLASH[2].module:
        from flash_attn import flash_attn_func as run
    else:
        raise ValueError(f"{module} is not one of the packages with attention kernels")
    return run


def _one_operator(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Register `function` as one custom operator for all kernels, so torch.compile does not break the graph at them.

    The schema is text, since PyTorch 2.4 cannot read it from annotations that are text. PyTorch before 2.4 has no such
    operators and calls the function itself.
    """
    if not hasattr(torch.library, "custom_op"):
        return function
    schema = "(Tensor q, Tensor k, Tensor v, str module, str function) -> Tensor"
    operator = torch.library.custom_op("infinitetalk::attention", mutates_args=(), schema=schema)(function)
    operator.register_fake(lambda q, k, v, module, function: torch.empty_like(q, memory_format=torch.contiguous_format))
    return operator


@_one_operator
def attend(q: Tensor, k: Tensor, v: Tensor, module: str, function: str) -> Tensor:
    """Call `module`.`function` for q (B, L, H, D) and k, v (B, M, H, D) -> (B, L, H, D)."""
    run = _import_kernel(module)
    out = run(q, k, v, tensor_layout="NHD", is_causal=False) if module == SAGE.module else run(q, k, v)
    # Some versions also return the log-sum-exp.
    return (out[0] if isinstance(out, tuple) else out).contiguous()


def is_broken(latents: Tensor, context: int) -> bool:
    """Whether the latents (1, C, T, h, w) show a faulty kernel: a non-finite value, or flat latents in every new frame.

    context: number of latent frames at the start to ignore, since the sampler overwrites them.
    """
    new = latents[:, :, context:].float()
    if not torch.isfinite(new).all():
        return True
    # The standard deviation over a frame's latents is about 1 for a normal frame and near 0 for a black one.
    return bool(new.flatten(3).std(dim=-1).amax() < 0.02)

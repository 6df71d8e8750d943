"""Attention kernels of other packages: which can run here, and running one.

SageAttention 1 and 2 (8-bit products) and FlashAttention 2, 3 and 4. None is imported before it is asked for.
Sources: the packages' README files; `sageattn` and `flash_attn_func` are called as they are documented.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

HALVES = (torch.float16, torch.bfloat16)
MOST_CHANNELS = {"sage": 128, "flash": 256}  # of a head
SAGE_GPUS = ((8, 0), (8, 6), (8, 9), (9, 0), (12, 0), (12, 1))


class AttentionBackend(enum.Enum):
    """What a user can ask for. AUTO: what the host does anyway."""

    AUTO = "auto"
    SAGE = "sage"
    FLASH = "flash"
    SDPA = "sdpa"


@dataclass(frozen=True)
class Machine:
    """What decides whether a kernel runs: the device type, an NVIDIA GPU's compute capability, the packages."""

    device: str
    capability: tuple[int, int] | None
    has: Callable[[str], bool]

    @classmethod
    def here(cls, device: torch.device) -> Machine:
        """The machine that `device` is on."""
        nvidia = device.type == "cuda" and torch.version.hip is None
        return cls(device.type, torch.cuda.get_device_capability(device) if nvidia else None, _is_installed)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


@dataclass(frozen=True)
class Kernel:
    """A function of a package. gpus: compute capabilities that it runs on."""

    module: str
    function: str
    title: str
    runs_on: Callable[[tuple[int, int]], bool]
    gpus: str


SAGE = Kernel(
    "sageattention", "sageattn", "SageAttention", lambda c: c in SAGE_GPUS, "8.0, 8.6, 8.9, 9.0, 12.0 and 12.1"
)
# The best first.
FLASH = (
    Kernel("flash_attn_interface", "flash_attn_func", "FlashAttention 3", lambda c: c == (9, 0), "9.0"),
    Kernel("flash_attn.cute", "flash_attn_func", "FlashAttention 4", lambda c: c[0] in (9, 10), "9.0 and 10.x"),
    Kernel("flash_attn", "flash_attn_func", "FlashAttention 2", lambda c: c >= (8, 0), "8.0 and newer"),
)
KERNELS = {AttentionBackend.SAGE: (SAGE,), AttentionBackend.FLASH: FLASH}


def find_kernel(choice: AttentionBackend, machine: Machine) -> Kernel:
    """The kernel for an explicit choice, or a sentence on why it cannot run here."""
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
    """Whether a kernel of `choice` takes queries (B, L, H, D) of this type and head size."""
    return q.dtype in HALVES and q.shape[-1] <= MOST_CHANNELS[choice.value]


# One opaque operation for all kernels: torch.compile keeps one graph around it.
@torch.library.custom_op("infinitetalk::attention", mutates_args=())
def attend(q: Tensor, k: Tensor, v: Tensor, module: str, function: str) -> Tensor:
    """Attention of q (B, L, H, D) to k, v (B, M, H, D) by a package's function → (B, L, H, D)."""
    run = getattr(importlib.import_module(module), function)
    out = run(q, k, v, tensor_layout="NHD", is_causal=False) if module == SAGE.module else run(q, k, v)
    # Some versions also give the logarithms of the sums.
    return (out[0] if isinstance(out, tuple) else out).contiguous()


@attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, module: str, function: str) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


def is_broken(latents: Tensor, context: int) -> bool:
    """Whether a kernel has spoiled the latents (1, C, T, h, w): not-a-number, or one flat color in every new frame.

    context: latent frames at the start that are held and say nothing.
    """
    new = latents[:, :, context:].float()
    if not torch.isfinite(new).all():
        return True
    # A picture's latents vary by about 1; those of a black one hardly at all.
    return bool(new.flatten(3).std(dim=-1).amax() < 0.02)

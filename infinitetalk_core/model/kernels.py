"""Attention kernels of other packages: find one that can run on this machine, and call it.

SageAttention 1 and 2 (8-bit matrix products) and FlashAttention 2, 3 and 4. A package is imported on first use only.
Sources: the packages' README files; `sageattn` and `flash_attn_func` are called as they are documented.

The only state of this module is which kernels were tried in this process, on which device, with which result.
"""

from __future__ import annotations

import enum
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, RunError
from ..log import log
from .attention_trial import cause_of, is_memory_error, known_problem, problem_with

HALF_DTYPES = (torch.float16, torch.bfloat16)
# Below so many keys no kernel that quantizes is used: it gains nothing there, and can give NaN. Wan's text has 512, its
# picture 257 and the audio of a frame 32 per speaker; a video has more than 1,300 from 128 x 128 pixels on.
FEW_KEYS = 1024
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
    if sys.modules.get(module) is not None:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except Exception:  # a submodule's package is imported for this, and fails in its own way if it is broken
        return False


@dataclass(frozen=True)
class Kernel:
    """An attention function of a package.

    runs_on: whether it supports a compute capability; gpus: the supported capabilities as text, for messages;
    quantizes: whether it multiplies in 8 bits or fewer.
    """

    module: str
    function: str
    title: str
    runs_on: Callable[[tuple[int, int]], bool]
    gpus: str
    quantizes: bool = False


SAGE = Kernel(
    "sageattention",
    "sageattn",
    "SageAttention",
    lambda c: c in SAGE_GPUS,
    "8.0, 8.6, 8.9, 9.0, 12.0 and 12.1",
    quantizes=True,
)
# In order of preference.
FLASH = (
    Kernel("flash_attn_interface", "flash_attn_func", "FlashAttention 3", lambda c: c == (9, 0), "9.0"),
    Kernel("flash_attn.cute", "flash_attn_func", "FlashAttention 4", lambda c: c[0] in (9, 10), "9.0 and 10.x"),
    Kernel("flash_attn", "flash_attn_func", "FlashAttention 2", lambda c: c >= (8, 0), "8.0 and newer"),
)
KERNELS = {AttentionBackend.SAGE: (SAGE,), AttentionBackend.FLASH: FLASH}


def find_kernel(choice: AttentionBackend, machine: Machine, problem: Callable[[Kernel], str] = lambda k: "") -> Kernel:
    """Return the kernel for an explicit choice. Raises InputError with the reason if none can run on `machine`.

    problem: what a trial of an installed kernel shows (`kernel_problem`), "" if it works.
    """
    refused = f"attention {choice.value!r} cannot run here: "
    if machine.capability is None:
        raise InputError(f"{refused}it needs an NVIDIA GPU and ComfyUI runs on {machine.device}; choose auto")
    candidates = KERNELS[choice]
    installed = [kernel for kernel in candidates if machine.has(kernel.module)]
    if not installed:
        packages = " or ".join(dict.fromkeys(_package(kernel) for kernel in candidates))
        raise InputError(f"{refused}the Python package {packages} is not installed; install it or choose auto")
    broken: list[str] = []
    for kernel in installed:
        if not kernel.runs_on(machine.capability):
            continue
        found = problem(kernel)
        if not found:
            for text in broken:
                log.warning("%s; using %s", text, kernel.title)
            return kernel
        broken.append(f"the Python package {_package(kernel)} ({kernel.title}) is installed but broken: {found}")
    if broken:
        raise InputError(
            f"{refused}{', and '.join(broken)}; install it again for this PyTorch and this GPU, or choose auto or sdpa"
        )
    major, minor = machine.capability
    runs = "; ".join(f"{kernel.title} runs on {kernel.gpus}" for kernel in installed)
    raise InputError(f"{refused}this GPU has compute capability {major}.{minor}, and {runs}; choose auto")


def _package(kernel: Kernel) -> str:
    return kernel.module.split(".")[0]


def kernel_problem(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> str:
    """Import a kernel and call it once; return what is wrong with it, "" if it works.

    dtype: what the model computes in. A function that was called is not called again in this process for the same
    device and dtype.
    """
    try:
        run = _import_kernel(kernel.module)
    except (Exception, SystemExit) as error:
        return f"it cannot be imported ({cause_of(error)})"
    return known_problem(lambda: _tried(run, kernel.module, device, dtype if dtype in HALF_DTYPES else HALF_DTYPES[0]))


@lru_cache
def _tried(run: Callable[..., Any], module: str, device: torch.device, dtype: torch.dtype) -> str:
    return problem_with(partial(_call, run, module), device, dtype)


def supports(choice: AttentionBackend, q: Tensor) -> bool:
    """Whether the kernels of `choice` support the dtype and head size of queries q (B, L, H, D)."""
    return q.dtype in HALF_DTYPES and q.shape[-1] <= MOST_CHANNELS[choice.value]


def has_few_keys(k: Tensor) -> bool:
    """Whether keys k (B, L, H·D) or (B, H, L, D) are too few for a kernel that quantizes."""
    return k.shape[-2] < FEW_KEYS


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
    """Call `module`.`function` for q (B, L, H, D) and k, v (B, M, H, D) -> (B, L, H, D).

    Raises RunError if the kernel fails, and what it raises itself where memory has run out.
    """
    try:
        return _call(_import_kernel(module), module, q, k, v).contiguous()
    except Exception as error:
        if is_memory_error(error):
            raise
        raise RunError(
            f"the attention of the Python package {module.split('.')[0]} failed ({cause_of(error)}); choose another "
            "attention in the InfiniteTalk Model Loader (sdpa is the safest)"
        ) from error


def _call(run: Callable[..., Any], module: str, q: Tensor, k: Tensor, v: Tensor) -> Any:
    out = run(q, k, v, tensor_layout="NHD", is_causal=False) if module == SAGE.module else run(q, k, v)
    # Some versions also return the log-sum-exp.
    return out[0] if isinstance(out, tuple) and out else out


def is_broken(latents: Tensor, context: int) -> bool:
    """Whether the latents (1, C, T, h, w) show a faulty kernel: a non-finite value, or flat latents in every new frame.

    context: number of latent frames at the start to ignore, since the sampler overwrites them.
    """
    new = latents[:, :, context:].float()
    if not torch.isfinite(new).all():
        return True
    # The standard deviation over a frame's latents is about 1 for a normal frame and near 0 for a black one.
    return bool(new.flatten(3).std(dim=-1).amax() < 0.02)

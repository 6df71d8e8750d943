"""Try an attention function once on the device, before a video depends on it.

A package can be installed and still be of no use: built for another PyTorch, Python or GPU, or without the compiler it
needs. That shows at its import, at its first call or only in what it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .out_of_memory import is_device_error, is_gpu_out_of_memory

# (B, L, H, D): more keys than FEW_KEYS and than ComfyUI's own limits, in whole blocks of every kernel.
TRIAL_SHAPE = (1, 1152, 2, 128)
# Relative to PyTorch's result. 8-bit kernels have 0.04, 4-bit ones 0.23; zeros give 1.
MOST_ERROR = 0.5
LONGEST_CAUSE = 200  # characters


def problem_with(run: Callable[[Tensor, Tensor, Tensor], Any], device: torch.device, dtype: torch.dtype) -> str:
    """Run `run`(q, k, v) on tensors (B, L, H, D) and return what is wrong with it, for a message; "" if nothing is.

    Raises only for memory that has run out, which says nothing about the function.
    """
    # A generator of its own: the trial must not change the random numbers of anything else.
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(TRIAL_SHAPE, generator=random).to(device, dtype) for _ in range(3))
    try:
        with _current(device):
            out = run(q, k, v)
        if not isinstance(out, Tensor):
            return "it gave no tensor in a small test"
        if out.shape != q.shape or out.dtype != q.dtype:
            return f"it gave {_kind(out)} in a small test where {_kind(q)} is right"
        out = out.float().cpu()  # waits for the kernel, whose failure shows only then
    except (Exception, SystemExit) as error:
        if is_memory_error(error):
            raise
        restart = "; restart ComfyUI, since nothing runs on the GPU after that" if is_device_error(error) else ""
        return f"a small test of it failed: {cause_of(error)}{restart}"
    if not torch.isfinite(out).all():
        return "it gave NaN or infinite values in a small test"
    q, k, v = (t.float().cpu().transpose(1, 2) for t in (q, k, v))
    want = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    off, size = (out - want).norm(), want.norm()
    return "" if off <= MOST_ERROR * size else f"it gave wrong values in a small test ({float(off / size):.0%} off)"


def cause_of(error: BaseException) -> str:
    """Return what an exception says: its first line, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= LONGEST_CAUSE else f"{text[: LONGEST_CAUSE - 1]}…"


def is_memory_error(error: BaseException) -> bool:
    """Return whether an exception is about memory that has run out, the GPU's or RAM."""
    return isinstance(error, MemoryError) or is_gpu_out_of_memory(error)


def known_problem(trial: Callable[[], str]) -> str:
    """Return `trial()`, or "" where memory has run out: not known then, and not the function's fault."""
    try:
        return trial()
    except Exception as error:
        if is_memory_error(error):
            return ""
        raise


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Make `device` the current one, on which kernels written in Triton run whatever their tensors are on."""
    is_other = device.type == "cuda" and device.index not in (None, torch.cuda.current_device())
    return torch.cuda.device(device) if is_other else nullcontext()


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"

"""The dtype in which a device computes fastest without a visible loss."""

from __future__ import annotations

import torch
from torch import autocast


def fast_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """Return bfloat16 for a GPU and for a CPU that computes it in hardware, else float32.

    Where a CPU emulates bfloat16, a convolution takes up to 40 times as long as in float32.
    """
    if torch.device(device).type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


def fast_autocast(device: torch.device | str = "cpu", enabled: bool = True) -> autocast:
    """Return a context in which float32 weights compute in `fast_dtype`; with `enabled` False, in float32."""
    in_bfloat16 = enabled and fast_dtype(device) is torch.bfloat16
    return autocast(torch.device(device).type, torch.bfloat16, enabled=in_bfloat16)

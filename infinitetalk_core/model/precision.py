"""The dtypes that models compute in: the fastest of a device, and weights stored in the compute dtype."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, autocast

from .kernels import HALF_DTYPES


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


@dataclass(frozen=True)
class Narrowing:
    """Which float32 weights are cast to the dtype that their layers compute in: equal bits in half the memory.

    dtype: the compute dtype. exact: beginnings of the names of weights that compute in float32 at any dtype.
    """

    dtype: torch.dtype
    exact: tuple[str, ...]

    def casts(self, name: str, stored: torch.dtype | None) -> bool:
        """Return whether a weight stored in this dtype is cast; None: a quantized one, which is not."""
        return stored == torch.float32 and self.dtype in HALF_DTYPES and not name.startswith(self.exact)

    def casts_any(self, stored: Mapping[str, torch.dtype | None]) -> bool:
        """Return whether any of these weights is cast."""
        return any(self.casts(name, dtype) for name, dtype in stored.items())

    def apply(self, weights: MutableMapping[str, Any]) -> None:
        """Cast plain tensors in place, one after the other, so that no second copy of all is in memory."""
        for name, weight in weights.items():
            if isinstance(weight, Tensor) and self.casts(name, weight.dtype):
                weights[name] = weight.to(self.dtype)

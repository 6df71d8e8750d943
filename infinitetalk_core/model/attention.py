"""The default attention function of the engine: PyTorch's scaled dot-product attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# (q (B, L, H·D), k (B, M, H·D), v (B, M, H·D), heads H) -> (B, L, H·D)
Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of PyTorch. q (B, L, H·D), k and v (B, M, H·D) -> (B, L, H·D), H = `heads`."""
    q, k, v = (rearrange(t, "b l (h d) -> b h l d", h=heads) for t in (q, k, v))
    # Under bfloat16 autocast on a CPU the fused kernel is slower than separate matmuls and softmax, most of all in
    # training.
    attend = (
        _in_parts if q.device.type == "cpu" and torch.is_autocast_enabled("cpu") else F.scaled_dot_product_attention
    )
    return rearrange(attend(q, k, v), "b h l d -> b l (h d)")


def _in_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention with separate matmuls and softmax. q (B, H, L, D), k and v (B, H, M, D) -> (B, H, L, D)."""
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1)
    return weights @ v

"""Convolutions over time as convolutions of pictures: on a CPU without bfloat16 half the time of PyTorch's own.

PyTorch has no fast float32 convolution in three dimensions for one thread. The frames that the kernel covers are
stacked as channels instead, and the kernel's times with them; the numbers are equal but for rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from infinitetalk_core.model.vae import CausalConv3d, WanVae


def fold_convolutions(vae: WanVae) -> None:
    """Let `vae` compute its convolutions folded; names and values of its weights stay."""
    for layer in vae.modules():
        if isinstance(layer, CausalConv3d):
            layer.__class__ = _Folded


class _Folded(CausalConv3d):
    def forward(self, x: Tensor) -> Tensor:
        times, length = self.kernel_size[0], x.shape[2]
        frames = F.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, 0, self.past, 0))  # (B, past + F, C, H, W)
        stacked = torch.cat([frames[:, k : k + length] for k in range(times)], dim=2).flatten(0, 1)
        weight = self.weight.transpose(1, 2).flatten(1, 2)
        last = torch.channels_last
        made = F.conv2d(stacked.contiguous(memory_format=last), weight.contiguous(memory_format=last), self.bias,
                        padding=self.padding[1:])  # fmt: skip
        return made.unflatten(0, (len(x), length)).transpose(1, 2)

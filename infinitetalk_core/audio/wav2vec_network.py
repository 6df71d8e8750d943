"""The layers of wav2vec 2.0 (arXiv 2006.11477), named as in the checkpoints of Hugging Face.

They are written here rather than taken from `transformers` because that library changes from version to
version how a layer returns its result and how hidden states are collected, does not import where torchvision
is broken, and cannot build its layers from the host's own operations, which partial loading needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


@dataclass(frozen=True)
class Sizes:
    """Every size of one wav2vec 2.0 network."""

    channels: int
    layers: int
    heads: int
    ffn: int
    conv_channels: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    conv_bias: bool
    conv_layer_norm: bool  # LayerNorm after every convolution; else one GroupNorm after the first
    norm_first: bool  # transformer layers normalise their input ("stable layer norm") instead of their output
    position_kernel: int
    position_groups: int
    norm_eps: float = 1e-5

    @property
    def hop_samples(self) -> int:
        """Samples between two features: 320 (50 features a second at 16 kHz)."""
        return prod(self.conv_strides)

    @property
    def field_samples(self) -> int:
        """Samples that one feature sees: 400."""
        steps = [prod(self.conv_strides[:i]) for i in range(len(self.conv_strides))]
        return 1 + sum((kernel - 1) * step for kernel, step in zip(self.conv_kernels, steps, strict=True))


class ConvLayer(nn.Module):
    """Convolution, norm (or none), GELU; (1, channels in, n) → (1, channels out, m)."""

    def __init__(self, sizes: Sizes, index: int, ops: Any) -> None:
        super().__init__()
        inputs = sizes.conv_channels[index - 1] if index else 1
        outputs = sizes.conv_channels[index]
        kernel, stride = sizes.conv_kernels[index], sizes.conv_strides[index]
        self.conv = ops.Conv1d(inputs, outputs, kernel, stride=stride, bias=sizes.conv_bias)
        if sizes.conv_layer_norm:
            self.layer_norm = ops.LayerNorm(outputs)
        elif index == 0:
            self.layer_norm = ops.GroupNorm(outputs, outputs)
        else:
            self.layer_norm = None

    def forward(self, x: Tensor, statistics: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """`statistics`: mean and variance (channels,) of the whole clip, for the layer with the GroupNorm."""
        x = self.conv(x)
        if isinstance(self.layer_norm, nn.GroupNorm):
            assert statistics is not None
            mean, variance = statistics
            weight = self.layer_norm.weight.to(x) * torch.rsqrt(variance + self.layer_norm.eps).to(x)
            x = (x - mean.to(x)[:, None]) * weight[:, None] + self.layer_norm.bias.to(x)[:, None]
        elif self.layer_norm is not None:
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        return gelu(x)


class FeatureExtractor(nn.Module):
    """Waveform (1, 1, samples) → features (1, conv channels, n)."""

    def __init__(self, sizes: Sizes, ops: Any) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(sizes, i, ops) for i in range(len(sizes.conv_channels)))

    @property
    def first(self) -> nn.Conv1d:
        """The first convolution, whose GroupNorm needs statistics of the whole clip."""
        layer = self.conv_layers[0]
        assert isinstance(layer, ConvLayer)
        return layer.conv

    def forward(self, x: Tensor, statistics: tuple[Tensor, Tensor] | None) -> Tensor:
        for index, layer in enumerate(self.conv_layers):
            x = layer(x, None if index else statistics)
        return x


class FeatureProjection(nn.Module):
    """(1, F, conv channels) → (1, F, channels)."""

    def __init__(self, sizes: Sizes, ops: Any) -> None:
        super().__init__()
        self.layer_norm = ops.LayerNorm(sizes.conv_channels[-1], eps=sizes.norm_eps)
        self.projection = ops.Linear(sizes.conv_channels[-1], sizes.channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.layer_norm(x))


class PositionalConv(nn.Module):
    """Position by a grouped convolution over 128 frames; (1, F, channels) → the same."""

    def __init__(self, sizes: Sizes, ops: Any) -> None:
        super().__init__()
        kernel = sizes.position_kernel
        self.conv = ops.Conv1d(
            sizes.channels, sizes.channels, kernel, padding=kernel // 2, groups=sizes.position_groups
        )

    def forward(self, x: Tensor) -> Tensor:
        # An even kernel with this padding gives one frame too many.
        return gelu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention over all frames, computed by PyTorch without the (F, F) matrix."""

    def __init__(self, sizes: Sizes, ops: Any) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            ops.Linear(sizes.channels, sizes.channels) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, sizes: Sizes, ops: Any) -> None:
        super().__init__()
        self.intermediate_dense = ops.Linear(sizes.channels, sizes.ffn)
        self.output_dense = ops.Linear(sizes.ffn, sizes.channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(gelu(self.intermediate_dense(x)))


class TransformerLayer(nn.Module):
    """(1, F, channels) → (1, F, channels)."""

    def __init__(self, sizes: Sizes, ops: Any) -> None:
        super().__init__()
        self.norm_first = sizes.norm_first
        self.attention = Attention(sizes, ops)
        self.layer_norm = ops.LayerNorm(sizes.channels, eps=sizes.norm_eps)
        self.feed_forward = FeedForward(sizes, ops)
        self.final_layer_norm = ops.LayerNorm(sizes.channels, eps=sizes.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm_first:
            x = x + self.attention(self.layer_norm(x))
            return x + self.feed_forward(self.final_layer_norm(x))
        x = self.layer_norm(x + self.attention(x))
        return self.final_layer_norm(x + self.feed_forward(x))


class Encoder(nn.Module):
    """Positions and the transformer layers."""

    def __init__(self, sizes: Sizes, ops: Any) -> None:
        super().__init__()
        self.norm_first = sizes.norm_first
        self.pos_conv_embed = PositionalConv(sizes, ops)
        self.layer_norm = ops.LayerNorm(sizes.channels, eps=sizes.norm_eps)
        self.layers = nn.ModuleList(TransformerLayer(sizes, ops) for _ in range(sizes.layers))

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the hidden state (1, F, channels) after each layer; the last is normalised in both kinds."""
        x = x + self.pos_conv_embed(x)
        if not self.norm_first:
            x = self.layer_norm(x)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            last = index == len(self.layers) - 1
            yield self.layer_norm(x) if self.norm_first and last else x


class Wav2VecNetwork(nn.Module):
    """The three parts; `SpeechEncoder` runs them. `ops` gives Conv1d, Linear, LayerNorm and GroupNorm."""

    def __init__(self, sizes: Sizes, ops: Any = nn) -> None:
        super().__init__()
        self.sizes = sizes
        self.feature_extractor = FeatureExtractor(sizes, ops)
        self.feature_projection = FeatureProjection(sizes, ops)
        self.encoder = Encoder(sizes, ops)

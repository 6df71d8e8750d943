"""The Wan 2.1 video autoencoder at any width, for whole clips: causal in time, differentiable, without a feature cache.

The released implementation walks through a clip in chunks of one and then four frames and remembers features.
Here a clip is processed at once; the numbers are the same, because every layer is causal:

- a convolution over time sees zeros before the first frame;
- time downsampling leaves the first frame alone and strides over (0, 1, 2), (2, 3, 4), … of all frames;
- time upsampling leaves the first latent alone and treats the second as the beginning of a clip.

Keys of the weights are those of the released checkpoint, so ComfyUI's VAELoader opens the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import Conv2d, Conv3d  # plain ones: ComfyUI never runs this module
from torch.nn import functional as F

from ..checkpoints.header import read_header
from ..checkpoints.tensor_data import read_tensors
from ..checkpoints.tensor_shapes import TensorShapes
from ..checkpoints.weights_file import refuse_unless_finite
from .precision import fast_dtype

LATENT_CHANNELS = 16
# Mean and deviation of the released model's latents: pipelines subtract and divide by them around every Wan 2.1 VAE.
LATENT_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENT_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


class CausalConv3d(Conv3d):
    """A convolution that sees no later frame: zeros around the picture and before the clip."""

    def __init__(self, inner: int, outer: int, kernel: tuple[int, int, int]) -> None:
        super().__init__(inner, outer, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))
        self.past = kernel[0] - 1

    def forward(self, x: Tensor) -> Tensor:
        if self.past:
            x = F.pad(x, (0, 0, 0, 0, self.past, 0))
        return super().forward(x)


def norm_silu(rows: Tensor, gamma: Tensor) -> Tensor:
    """SiLU of the RMS norm: rows (N, C), gamma (C,). Training compiles this one function: it is half of the time."""
    x = rows.float()
    scale = torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-12)
    return F.silu(x * scale * gamma.float()).to(rows.dtype)


class RmsNorm(nn.Module):
    """Divides every pixel's channels by their root mean square; gamma's shape is the released one."""

    def __init__(self, gamma_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(gamma_shape))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-12)
        return x * scale * self.gamma


class NormSilu(RmsNorm):
    """RMS norm and SiLU of a clip in one pass over channels-last memory."""

    def __init__(self, width: int) -> None:
        super().__init__((width, 1, 1, 1))
        self.formula: Callable[[Tensor, Tensor], Tensor] = norm_silu

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 4, 1)
        rows = self.formula(last.reshape(-1, last.shape[-1]), self.gamma.flatten())
        return rows.view(last.shape).permute(0, 4, 1, 2, 3)


class ResidualBlock(nn.Module):
    """Two times norm, SiLU and a 3x3x3 convolution around a shortcut."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            NormSilu(inner),
            nn.Identity(),  # holds a place that the released keys count, as below
            CausalConv3d(inner, outer, (3, 3, 3)),
            NormSilu(outer),
            nn.Identity(),
            nn.Identity(),
            CausalConv3d(outer, outer, (3, 3, 3)),
        )
        self.shortcut = nn.Identity() if inner == outer else CausalConv3d(inner, outer, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class Attention(nn.Module):
    """One head of attention among the positions of each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RmsNorm((width, 1, 1))
        self.to_qkv = Conv2d(width, 3 * width, 1)
        self.proj = Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        images = _images(x)
        n, c, h, w = images.shape
        qkv = self.to_qkv(self.norm(images)).permute(0, 2, 3, 1).reshape(n, 1, h * w, 3 * c)
        query, key, value = qkv.chunk(3, dim=-1)
        found = F.scaled_dot_product_attention(query, key, value)
        return x + _clips(self.proj(found.reshape(n, h, w, c).permute(0, 3, 1, 2)), len(x))


class Downsample(nn.Module):
    """Halves the picture, and with `time` also the frames after the first."""

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), Conv2d(width, width, 3, stride=2))
        self.time_conv = Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1)) if time else None

    def forward(self, x: Tensor) -> Tensor:
        x = _clips(self.resample(_images(x)), len(x))
        if self.time_conv is None or x.shape[2] == 1:
            return x
        return torch.cat((x[:, :, :1], self.time_conv(x)), dim=2)


class Upsample(nn.Module):
    """Doubles the picture and halves the width, and with `time` first doubles the frames after the first."""

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), Conv2d(width, width // 2, 3, padding=1)
        )
        self.time_conv = CausalConv3d(width, 2 * width, (3, 1, 1)) if time else None

    def forward(self, x: Tensor) -> Tensor:
        if self.time_conv is not None and x.shape[2] > 1:
            pairs = self.time_conv(x[:, :, 1:])
            later = torch.stack(pairs.chunk(2, dim=1), dim=3).flatten(2, 3)
            x = torch.cat((x[:, :, :1], later), dim=2)
        return _clips(self.resample(_images(x)), len(x))


def _images(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B T, C, H, W), without a copy where channels are last in memory."""
    return x.transpose(1, 2).flatten(0, 1)


def _clips(x: Tensor, batch: int) -> Tensor:
    """(B T, C, H, W) -> (B, C, T, H, W)."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


def _middle(width: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(width, width), Attention(width), ResidualBlock(width, width))


def _head(width: int, outer: int) -> nn.Sequential:
    return nn.Sequential(NormSilu(width), nn.Identity(), CausalConv3d(width, outer, (3, 3, 3)))


class Encoder(nn.Module):
    """(B, 3, F, H, W) in [-1, 1] -> (B, 2 z, T, H/8, W/8)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = (dim, dim, 2 * dim, 4 * dim, 4 * dim)
        self.conv1 = CausalConv3d(3, dim, (3, 3, 3))
        layers: list[nn.Module] = []
        for level, (inner, outer) in enumerate(pairwise(widths)):
            layers += [ResidualBlock(inner, outer), ResidualBlock(outer, outer)]
            if level < 3:
                layers.append(Downsample(outer, time=level > 0))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(widths[-1])
        self.head = _head(widths[-1], 2 * LATENT_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    """(B, z, T, H/8, W/8) -> (B, 3, F, H, W) around [-1, 1]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = (4 * dim, 4 * dim, 4 * dim, 2 * dim, dim)
        self.conv1 = CausalConv3d(LATENT_CHANNELS, widths[0], (3, 3, 3))
        self.middle = _middle(widths[0])
        layers: list[nn.Module] = []
        for level, (before, outer) in enumerate(pairwise(widths)):
            inner = before if level == 0 else before // 2
            layers += [ResidualBlock(inner, outer), ResidualBlock(outer, outer), ResidualBlock(outer, outer)]
            if level < 3:
                layers.append(Upsample(outer, time=level < 2))
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(dim, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.upsamples(self.middle(self.conv1(z))))


class WanVae(nn.Module):
    """Encoder, decoder and the two 1x1 convolutions between them. `dim` is 96 in the released model."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.encoder, self.decoder = Encoder(dim), Decoder(dim)
        self.conv1 = CausalConv3d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, (1, 1, 1))
        self.conv2 = CausalConv3d(LATENT_CHANNELS, LATENT_CHANNELS, (1, 1, 1))

    def raw_means(self, pixels: Tensor) -> Tensor:
        """(B, 3, F, H, W) in [-1, 1] -> (B, 16, T, H/8, W/8), as the released encoder gives them."""
        return self.conv1(self.encoder(pixels)).chunk(2, dim=1)[0]

    def means(self, pixels: Tensor) -> Tensor:
        """(B, 3, F, H, W) in [-1, 1] -> (B, 16, T, H/8, W/8) around 0 with deviation 1, as the backbone sees them."""
        center, spread = self.latent_statistics()
        return (self.raw_means(pixels) - _channels(center)) / _channels(spread)

    def pixels(self, latents: Tensor) -> Tensor:
        """(B, 16, T, h, w) as `means` gives -> (B, 3, F, 8 h, 8 w) around [-1, 1]."""
        return self.decoder(self.conv2(self.unscaled(latents)))

    def unscaled(self, latents: Tensor) -> Tensor:
        """(B, 16, T, h, w) as `means` gives -> as `raw_means` gives them."""
        center, spread = self.latent_statistics()
        return latents * _channels(spread) + _channels(center)

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """The fixed mean and deviation of the latents, (16,) each."""
        like = self.conv2.weight
        return like.new_tensor(LATENT_MEAN), like.new_tensor(LATENT_STD)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, F, H, W, 3) in [0, 1], F = 4 T - 3, sides multiples of 8 -> latents (B, 16, T, H/8, W/8)."""
        return self.means((frames.movedim(-1, 1) * 2.0 - 1.0).to(self.dtype)).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 16, T, h, w) -> frames (B, F, 8 h, 8 w, 3) in [0, 1], float32."""
        return (self.pixels(latents.to(self.dtype)).float() / 2.0 + 0.5).clamp(0.0, 1.0).movedim(1, -1)

    @property
    def dtype(self) -> torch.dtype:
        """The type that the layers compute in."""
        return self.conv2.weight.dtype


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1, 1)


def fast(vae: WanVae, dtype: torch.dtype | None = None) -> WanVae:
    """Convert `vae` to `dtype` (None: `fast_dtype`) with channels last in memory, and return it.

    Several times faster on a CPU.
    """
    vae.to(dtype or fast_dtype(vae.conv1.weight.device))
    for layer in vae.modules():
        if isinstance(layer, Conv3d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(layer, Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return vae


def save_vae(vae: WanVae, path: Path) -> None:
    """Write float16 weights under the released names; a reader never sees half a file."""
    weights = {key: value.detach().to(torch.float16).contiguous() for key, value in vae.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(weights, part)
    os.replace(part, path)


def load_vae(path: Path) -> WanVae:
    """Open a file of released names and any width; float32 weights, ready to use, not to train.

    Raises InputError for a file of another kind, and for one that is damaged or incomplete.
    """
    header = read_header(path)
    shapes = TensorShapes(header.shapes, path.name)
    with torch.device("meta"):
        vae = WanVae(shapes.sizes("encoder.conv1.weight", 5)[0])
    shapes.check({name: tensor.shape for name, tensor in vae.state_dict().items()})
    weights, _ = read_tensors(path, header, header.names)
    for name, weight in weights.items():
        refuse_unless_finite(weight, name, path)
    vae.load_state_dict(weights, assign=True)
    return vae.float().train(False).requires_grad_(False)

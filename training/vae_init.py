"""Initialize the autoencoder from the statistics of clips, so that it reproduces pictures from the first step.

From random weights, the RMS norm of the last layer removes brightness, the strided layers lose positions within their
window, and training stays near 14 dB for long. Here every residual branch starts at zero, so that the shortcuts form a
linear network, and this network starts as a pyramid of principal components: each strided layer keeps the strongest
combinations of its 2x2 window or pair of frames. Channel 0 is constant everywhere: it dominates the norms, so that the
other channels keep their scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from infinitetalk_core.model.vae import LATENT_CHANNELS, Attention, Downsample, ResidualBlock, Upsample, WanVae

CONSTANT = 2.5  # channel 0: large compared to the others, so that the norms hardly depend on the picture
PAIR_SHARE = 0.62  # share of time-downsampled channels that are averages of two frames; the others are differences


@torch.no_grad()
def start_from_clips(vae: WanVae, pixels: Tensor, weight: Tensor) -> None:
    """Initialize `vae` (float32) from clips (B, 3, F, H, W) in [-1, 1]; weight: of the pixels, (B, 1, F, H, W)."""
    for layer in vae.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                layer.bias.zero_()
    for layer in vae.modules():  # last, since these contain convolutions that were set above
        if isinstance(layer, ResidualBlock):
            weight_and_bias(layer.residual[-1])[0].zero_()
            if not isinstance(layer.shortcut, nn.Identity):
                _identity(weight_and_bias(layer.shortcut)[0])
        if isinstance(layer, Attention):
            layer.proj.weight.zero_()
    _start_encoder(vae, pixels, weight)
    unit_variance(vae, pixels)
    _start_decoder(vae, pixels)


def _start_encoder(vae: WanVae, pixels: Tensor, weight: Tensor) -> None:
    encoder = vae.encoder
    weights, offsets = weight_and_bias(encoder.conv1)
    weights.zero_()
    for color in range(3):
        weights[1 + color, color, -1, 1, 1] = 1.0
    offsets[0] = CONSTANT
    x = encoder.conv1(pixels)
    for layer in encoder.downsamples:
        if isinstance(layer, Downsample):
            weight = nn.functional.avg_pool3d(weight, (1, 2, 2))
            _start_downsample(layer, x, weight)
            weight = weight if layer.time_conv is None else torch.cat((weight[:, :, :1], weight[:, :, 1::2]), 2)
        x = layer(x)
    x = encoder.head[0](encoder.middle(x))
    basis, mean = _components(to_rows(x), weight.flatten(), LATENT_CHANNELS)
    weights, offsets = weight_and_bias(encoder.head[2])
    weights.zero_()
    weights[:LATENT_CHANNELS, :, -1, 1, 1] = basis
    offsets[:LATENT_CHANNELS] = -basis @ mean
    _identity(vae.conv1.weight)


def _start_downsample(layer: Downsample, x: Tensor, weight: Tensor) -> None:
    """Map 2x2 windows to their strongest components, and pairs of frames to averages and differences."""
    weights, offsets = weight_and_bias(layer.resample[1])
    width = len(weights)
    windows = x[:, 1:].unflatten(3, (-1, 2)).unflatten(5, (-1, 2)).permute(0, 2, 3, 5, 1, 4, 6)
    basis, mean = _components(windows.reshape(-1, 4 * (width - 1)), weight.flatten(), width - 1)
    weights.zero_()
    weights[1:, 1:, :2, :2] = basis.view(-1, width - 1, 2, 2) / 2
    offsets[1:] = -basis @ mean / 2
    weights[0, 0, 0, 0] = 1.0
    if layer.time_conv is None:
        return
    taps = layer.time_conv.weight.zero_()
    averages = round(PAIR_SHARE * width)
    for channel in range(averages):
        taps[channel, channel, 1:] = 0.5
    for channel in range(averages, width):
        taps[channel, channel - averages + 1, 1, 0, 0] = -0.5
        taps[channel, channel - averages + 1, 2, 0, 0] = 0.5


def _start_decoder(vae: WanVae, pixels: Tensor) -> None:
    decoder = vae.decoder
    _identity(vae.conv2.weight)
    weight_and_bias(vae.conv2)[1].zero_()
    weights, offsets = weight_and_bias(decoder.conv1)
    weights.zero_()
    center, spread = vae.latent_statistics()
    for channel in range(LATENT_CHANNELS):
        weights[1 + channel, channel, -1, 1, 1] = 0.5 / spread[channel]
        offsets[1 + channel] = -0.5 * center[channel] / spread[channel]
    offsets[0] = CONSTANT
    for layer in decoder.upsamples:
        if isinstance(layer, Upsample):
            _start_upsample(layer)
    x = decoder.upsamples(decoder.middle(decoder.conv1(vae.conv2(vae.raw_means(pixels)))))
    rows = to_rows(decoder.head[0](x))
    rows = torch.cat((rows, torch.ones_like(rows[:, :1])), dim=1)
    ridge = 1e-3 * len(rows) * torch.eye(rows.shape[1])
    found = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ to_rows(pixels))
    weights, offsets = weight_and_bias(decoder.head[2])
    weights.zero_()
    weights[:, :, -1, 1, 1] = found[:-1].T
    offsets.copy_(found[-1])


def _start_upsample(layer: Upsample) -> None:
    """Enlarge the first half of the channels smoothly; both frames of a pair are equal."""
    weights, _ = weight_and_bias(layer.resample[1])
    kernel = torch.tensor([0.25, 0.5, 0.25])
    _identity(weights)
    weights.copy_(weights.sum((2, 3), keepdim=True) * torch.outer(kernel, kernel))
    weights[0, 0] = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    if layer.time_conv is not None:
        width = layer.time_conv.weight.shape[1]
        _identity(layer.time_conv.weight)
        layer.time_conv.weight[width:].copy_(layer.time_conv.weight[:width])


def unit_variance(vae: WanVae, pixels: Tensor) -> None:
    """Normalize the latents of these clips to the statistics that pipelines expect; decoded pictures do not change."""
    means = to_rows(vae.raw_means(pixels).float())
    center, spread = vae.latent_statistics()
    gain = spread / means.std(0)
    shift = center - means.mean(0) * gain
    weights, offsets = weight_and_bias(vae.conv1)
    weights[:LATENT_CHANNELS] *= gain.view(-1, 1, 1, 1, 1)
    offsets[:LATENT_CHANNELS] = offsets[:LATENT_CHANNELS] * gain + shift
    weights, offsets = weight_and_bias(vae.conv2)
    weights /= gain.view(1, -1, 1, 1, 1)
    offsets -= weights.flatten(1) @ shift


def weight_and_bias(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the weights and the biases of a convolution, to be set in place."""
    if not isinstance(layer, nn.Conv2d | nn.Conv3d) or layer.bias is None:
        raise TypeError(f"{type(layer).__name__} is not a convolution with offsets")
    return layer.weight.data, layer.bias.data


def _identity(weight: Tensor) -> None:
    """Connect each channel to the input channel of the same index, at the newest frame and the window's middle."""
    weight.zero_()
    index = torch.arange(min(weight.shape[0], weight.shape[1]))
    row, column = (n // 2 for n in weight.shape[-2:])
    newest = weight[:, :, -1] if weight.ndim == 5 else weight
    newest[index, index, row, column] = 1.0


def to_rows(x: Tensor) -> Tensor:
    """Reshape (B, C, …) to (N, C)."""
    return x.movedim(1, -1).flatten(0, -2)


def _components(rows: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the strongest directions (count, C) of weighted rows, padded with zeros, and the rows' mean (C,)."""
    share = (weight / weight.sum())[:, None]
    mean = (share * rows).sum(0)
    centerd = rows - mean
    _, directions = torch.linalg.eigh((centerd * share).T @ centerd)
    basis = directions.flip(1).T[:count]
    return torch.cat((basis, basis.new_zeros(count - len(basis), basis.shape[1]))), mean

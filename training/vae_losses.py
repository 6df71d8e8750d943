"""The losses of the autoencoder's training; for errors of color by parts of the picture see color_loss.py."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .vae_clips import near_parts
from .vae_recipe import Stage, VaeTraining


def picture_loss(made: Tensor, wanted: Tensor, weight: Tensor, config: VaeTraining, stage: Stage) -> Tensor:
    """Return the loss of clips (B, 3, F, H, W) in [-1, 1]: errors of pixels, gradients and hue, and flicker."""
    error = made - wanted
    share = weight / weight.mean()
    pixels = (share * (error.abs() + config.square_weight * error.square())).mean()
    slopes = [(share.narrow(axis, 1, share.shape[axis] - 1) * error.diff(dim=axis).abs()).mean() for axis in (2, 3, 4)]
    hue = (share * (error - error.mean(1, keepdim=True)).abs()).mean()
    flicker = error.diff(dim=2).abs().mean()
    return pixels + config.slope_weight * torch.stack(slopes).sum() + stage.color * hue + stage.steady * flicker


def contrast_loss(made: Tensor, wanted: Tensor, parts: Tensor) -> Tensor:
    """Return the error of the lightest and the darkest gray around each pixel of eyes, brows and mouths.

    An error of pixels is smallest where a small bright spot is gray; here a spot may move a little and must not fade.
    made, wanted: (B, 3, F, H, W) in [-1, 1]; parts: (B, F, H, W), the number in PARTS of each pixel.
    """
    where = near_parts(parts, ("eyes", "brows", "mouth"))[:, 0]
    gray, true = made.mean(1), wanted.mean(1)
    lightest = (F.max_pool2d(gray, 3, 1, 1) - F.max_pool2d(true, 3, 1, 1)).abs()
    darkest = (F.max_pool2d(-gray, 3, 1, 1) - F.max_pool2d(-true, 3, 1, 1)).abs()
    return ((lightest + darkest) * where).sum() / where.sum().clamp_min(1)


def latent_loss(latents: Tensor) -> Tensor:
    """Return the deviation of the channels of latents (B, 16, T, h, w) from mean 0 and variance 1."""
    variance, mean = torch.var_mean(latents, dim=(0, 2, 3, 4))
    return mean.square().mean() + (variance + 1e-6).log().square().mean()


def psnr(made: Tensor, wanted: Tensor, reach: float = 1.0) -> float:
    """Return the PSNR in dB; `reach` is white minus black."""
    return -10 * math.log10(float((made - wanted).square().mean()) / reach**2)

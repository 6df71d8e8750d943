"""Train by conditional flow matching as in the paper: equation 1 makes the noisy latents, equation 2 is the loss.

The model's inputs are built by the functions that build them for sampling (chunks/conditioning.py, sampling/euler.py),
so training and inference cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from infinitetalk_core.chunks.conditioning import reference_mask
from infinitetalk_core.model.audio_cross_attention import SpeechTokens
from infinitetalk_core.model.infinitetalk import InfiniteTalkModel
from infinitetalk_core.sampling.euler import pin
from infinitetalk_core.sampling.sdedit import noised


@dataclass(frozen=True)
class Batch:
    """The samples of one training step; all have the same number of clean context latents."""

    target: Tensor  # (B, 16, T, h, w): the chunk, clean
    context: Tensor  # (B, 16, t_c, h, w): the context at its beginning, possibly with noise and color drift
    reference: Tensor  # (B, 16, T, h, w): z2
    audio_windows: Tensor  # (B, F, window, layers, channels), zeros where the speech is dropped
    text: Tensor  # (B, M, text width), zeros where the text is dropped
    weight: Tensor  # (B, 1, T, h, w): how much each latent counts in the loss
    guide: Tensor | None = None  # (B, 16, T, h, w): a video with the same camera, for Uni3C
    first_last: bool = False  # z2 also contains the chunk's last frame: the FL2V baseline

    def to(self, device: torch.device) -> Batch:
        """Return the batch as float32 on `device`."""
        tensors = {k: v.to(device, torch.float32) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Batch(**tensors, first_last=self.first_last)


def shifted_levels(uniform: Tensor, shift: float) -> Tensor:
    """Return the noise levels of uniform draws (B,), shifted towards noise like the sampler's schedule."""
    return shift * uniform / (1 + (shift - 1) * uniform)


# (x (B, 16, T, h, w), sigma (B,), mask (1, 4, T, h, w), batch) -> the residuals added after each backbone block
CameraShare = Callable[[Tensor, Tensor, Tensor, Batch], Callable[[int, Tensor], Tensor]]


def flow_matching_loss(
    model: InfiniteTalkModel, batch: Batch, sigma: Tensor, noise: Tensor, camera: CameraShare | None = None
) -> Tensor:
    """Return equation 2: the weighted mean squared error of the velocity (noise - video), a 0-d tensor.

    sigma: (B,); noise: (B, 16, T, h, w). Context latents are clean in the input and do not count in the loss.
    """
    held = batch.context.shape[2]
    _, _, frames, height, width = batch.target.shape
    x = pin(noised(batch.target, noise, sigma.view(-1, 1, 1, 1, 1)), batch.context)
    mask = reference_mask(frames, height, width, last=batch.first_last).to(x)
    tokens = model.adapter.audio_proj(batch.audio_windows)
    speech = [SpeechTokens(t) for t in tokens]
    share = None if camera is None else camera(x, sigma, mask, batch)
    velocity = model.predict(x, sigma, batch.text, speech, batch.reference, mask, after_block=share)
    error = (velocity.float() - (noise - batch.target)).square() * batch.weight
    return error[:, :, held:].mean() / batch.weight[:, :, held:].mean()

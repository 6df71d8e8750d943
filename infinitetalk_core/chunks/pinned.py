"""Pinned regions: the source stays outside a mask, in the latents while denoising and in the pixels at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .conditioning import VAE_STRIDE
from .sizes import fit_mask_to


@dataclass(frozen=True)
class Pinned:
    """Masks of the regions where the video may differ from the source.

    masks: (N, H, W) in [0, 1] at the source's size, 1 where it may differ; N is 1, or the number of source frames at 25
    fps. feather: width in pixels of the soft edge, which lies outside the mask.
    """

    masks: Tensor
    feather: float = 16.0

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.numel() == 0:
            raise InputError(f"the mask must be (count, height, width), got {tuple(self.masks.shape)}")
        if not 0 <= self.feather <= 512:
            raise InputError(f"the feather must be between 0 and 512 pixels, got {self.feather:g}")

    def check(self, source_size: tuple[int, int], length: int) -> None:
        """Raise InputError if the masks do not fit a source of `source_size` (height, width) and `length` frames."""
        count, height, width = self.masks.shape
        if (height, width) != source_size:
            raise InputError(
                f"the mask is {width} x {height}, but the source is {source_size[1]} x {source_size[0]}; "
                "make the mask on a frame of the source, or resize it to that"
            )
        if count not in (1, length):
            raise InputError(
                f"there are {count} masks, but the source has {length} frames at 25 a second; "
                "give one mask for the whole video or one for each frame"
            )

    def window(self, frames: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Return the feathered masks of source `frames` at the video's `size`: (frames or 1, height, width)."""
        chosen = self.masks if len(self.masks) == 1 else self.masks[list(frames)]
        return soften(fit_mask_to(chosen.float().cpu(), *size), self.feather)


def soften(masks: Tensor, feather: float) -> Tensor:
    """Feather masks (N, H, W): values fall from 1 to 0 over `feather` pixels outside the mask; the inside stays."""
    radius = round(feather)
    if radius < 1:
        return masks
    # Dilate by half the feather, then average over its width: 1 up to the old edge, 0 at `feather` pixels from it.
    half = radius // 2
    padded = F.pad(masks[:, None], (half, half, half, half))
    side = 2 * half + 1
    # Separable filters: the cost grows with the feather, not with its square.
    wide = F.max_pool2d(F.max_pool2d(padded, (side, 1), stride=1), (1, side), stride=1)
    kernel = torch.ones(1, 1, 1, side) / side
    for direction in (kernel, kernel.transpose(2, 3)):
        amount = (half, half, 0, 0) if direction is kernel else (0, 0, half, half)
        wide = F.conv2d(F.pad(wide, amount, mode="replicate"), direction)
    return torch.maximum(wide[:, 0], masks).clamp(0, 1)


def latent_mask(masks: Tensor, latent_frames: int) -> Tensor:
    """Convert pixel masks (F or 1, H, W) to (1, 1, T, H/8, W/8): 1 where any pixel of the latent is above 0."""
    small = F.max_pool2d(masks[:, None], VAE_STRIDE)[:, 0]
    if len(small) > 1:
        groups = small[1:].view(latent_frames - 1, -1, *small.shape[1:]).amax(1)
        small = torch.cat([small[:1], groups])
    return (small > 0).float().expand(latent_frames, -1, -1)[None, None].clone()


def paste(frames: Tensor, source: Tensor, masks: Tensor) -> Tensor:
    """Composite `frames` inside the masks (F or 1, H, W) over `source` (F, H, W, 3), blended on the soft edge."""
    return torch.where(masks[..., None] == 0, source, torch.lerp(source, frames, masks[..., None]))

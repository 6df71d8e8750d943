"""Preprocessing of the reference frame for CLIP vision, as in training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .errors import InputError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(
    picture: Tensor,
    size: int = 224,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
) -> Tensor:
    """Convert (H, W, 3) in [0, 1] to normalized pixels (1, 3, size, size), float32 on the picture's device.

    Resizes the whole picture to a square (bicubic) without antialias, crop or clamp: other preprocessing
    gives other tokens. Source: the reference's wan/modules/clip.py, CLIPModel.visual.
    Raises InputError if the picture is not (H, W, 3).
    """
    if picture.ndim != 3 or picture.shape[-1] != 3 or 0 in picture.shape:
        raise InputError(f"a picture must be (height, width, 3 colors), got {tuple(picture.shape)}")
    pixels = picture.detach().float().permute(2, 0, 1)[None]
    # The overshoot of the bicubic filter is kept. The reference resizes in [-1, 1]; in [0, 1] the result is the same.
    small = functional.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=False)
    shape = (1, 3, 1, 1)
    offset = torch.tensor(mean, device=small.device).view(shape)
    spread = torch.tensor(std, device=small.device).view(shape)
    return (small - offset) / spread

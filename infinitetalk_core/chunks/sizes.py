"""Picture sizes the model was trained on, and scaling of pictures to them."""

from __future__ import annotations

import enum
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ..errors import InputError

BucketTable = tuple[tuple[float, int, int], ...]  # (height / width, height, width)

# Reference: wan/utils/multitalk_utils.py, ASPECT_RATIO_627. About 640 x 640 pixels: the 480p class.
BUCKETS_480P: BucketTable = (
    (0.26, 320, 1216),
    (0.38, 384, 1024),
    (0.50, 448, 896),
    (0.67, 512, 768),
    (0.82, 576, 704),
    (1.00, 640, 640),
    (1.22, 704, 576),
    (1.50, 768, 512),
    (1.86, 832, 448),
    (2.00, 896, 448),
    (2.50, 960, 384),
    (2.83, 1088, 384),
    (3.60, 1152, 320),
    (3.80, 1216, 320),
    (4.00, 1280, 320),
)

# Reference: the same file, ASPECT_RATIO_960. About 960 x 960 pixels: the 720p class.
BUCKETS_720P: BucketTable = (
    (0.22, 448, 2048),
    (0.29, 512, 1792),
    (0.36, 576, 1600),
    (0.45, 640, 1408),
    (0.55, 704, 1280),
    (0.63, 768, 1216),
    (0.76, 832, 1088),
    (0.88, 896, 1024),
    (1.00, 960, 960),
    (1.14, 1024, 896),
    (1.31, 1088, 832),
    (1.50, 1152, 768),
    (1.58, 1216, 768),
    (1.82, 1280, 704),
    (1.91, 1344, 704),
    (2.20, 1408, 640),
    (2.30, 1472, 640),
    (2.67, 1536, 576),
    (2.89, 1664, 576),
    (3.62, 1856, 512),
    (3.75, 1920, 512),
)

SIZE_STEP = 16  # pixels per token: 8 from the VAE times 2 from the patch embedding


def choose_bucket(height: int, width: int, table: BucketTable) -> tuple[int, int]:
    """Return the (height, width) in `table` with the aspect ratio nearest to a picture's; the first one on ties.

    Raises InputError for a size that is not positive.
    """
    if height < 1 or width < 1:
        raise InputError(f"a picture needs at least one pixel each way, got {width} x {height}")
    _, best_height, best_width = min(table, key=lambda row: abs(row[0] - height / width))
    return best_height, best_width


def check_size(height: int, width: int) -> tuple[int, int]:
    """Return (height, width). Raises InputError, naming the nearest size, unless both are multiples of 16 (tokens)."""
    if height < SIZE_STEP or width < SIZE_STEP or height % SIZE_STEP or width % SIZE_STEP:
        good_height, good_width = (max(round(n / SIZE_STEP), 1) * SIZE_STEP for n in (height, width))
        raise InputError(
            f"width and height must be multiples of {SIZE_STEP}, got {width} x {height}; "
            f"the nearest is {good_width} x {good_height}"
        )
    return height, width


class Size(enum.Enum):
    """Size classes of the video."""

    CLASS_480P = "480p"
    CLASS_720P = "720p"
    CUSTOM = "custom"


def output_size(size: Size, source: tuple[int, int], custom: tuple[int, int]) -> tuple[int, int]:
    """Return the video's (height, width): the bucket nearest to the source's aspect ratio, or the checked `custom`."""
    if size is Size.CUSTOM:
        return check_size(*custom)
    return choose_bucket(*source, BUCKETS_480P if size is Size.CLASS_480P else BUCKETS_720P)


def scaled_size(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) at which a picture of `source` size just covers `target`, before the crop."""
    # Floating point in this order, as in the reference: another order can round to another size.
    scale = max(target[0] / source[0], target[1] / source[1])
    return math.ceil(scale * source[0]), math.ceil(scale * source[1])


def _crop_start(scaled: int, target: int) -> int:
    return round((scaled - target) / 2)  # half to even


def fit_to(picture: Tensor, height: int, width: int) -> Tensor:
    """Scale a picture (H, W, 3) to cover height x width, and crop the center.

    picture: numbers in [0, 1], or 8-bit ones. Converts to 8 bits and uses PIL's bilinear filter, exactly as the
    reference's resize_and_centercrop (wan/multitalk.py). Returns (height, width, 3) float32 on the picture's device.
    Raises InputError if the picture is not (H, W, 3).
    """
    return from_8_bits(fit_8_bits(picture, height, width).to(picture.device))


def from_8_bits(pixels: Tensor) -> Tensor:
    """Return 8-bit numbers as float32 in [0, 1]."""
    return pixels.float() / 255


def fit_8_bits(picture: Tensor, height: int, width: int) -> Tensor:
    """Like `fit_to`, but return 8-bit numbers (height, width, 3), in memory."""
    if picture.ndim != 3 or picture.shape[-1] != 3 or 0 in picture.shape:
        raise InputError(f"a picture must be (height, width, 3 colors), got {tuple(picture.shape)}")
    if picture.dtype != torch.uint8:
        picture = (picture.detach().float() * 255).round().clamp(0, 255).to(torch.uint8)
    pixels = picture.cpu().numpy()
    new_height, new_width = scaled_size((pixels.shape[0], pixels.shape[1]), (height, width))
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (new_width, new_height), resample=Image.Resampling.BILINEAR
    )
    top, left = _crop_start(new_height, height), _crop_start(new_width, width)
    cropped = np.asarray(image)[top : top + height, left : left + width]
    return torch.tensor(cropped)


def fit_mask_to(masks: Tensor, height: int, width: int) -> Tensor:
    """Scale and crop masks (N, H, W) like `fit_to`, with nearest-neighbor interpolation, which adds no new values.

    Returns (N, height, width) in the masks' type.
    """
    size = scaled_size((masks.shape[-2], masks.shape[-1]), (height, width))
    scaled = functional.interpolate(masks[None].float(), size=size, mode="nearest")[0]
    top, left = _crop_start(size[0], height), _crop_start(size[1], width)
    return scaled[:, top : top + height, left : left + width].to(masks.dtype)

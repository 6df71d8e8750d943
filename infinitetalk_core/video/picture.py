"""Reading of picture files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError


def read_picture(path: Path) -> Tensor | None:
    """Read a picture (1, H, W, 3) in [0, 1], rotated by its EXIF orientation; None for animations and other files.

    Raises InputError for a damaged picture.
    """
    try:
        with Image.open(path) as image:
            if getattr(image, "is_animated", False):
                return None
            upright = ImageOps.exif_transpose(image)
            pixels = _gray_over_8_bits(upright) if upright.mode[0] in "IF" else np.array(upright.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"the picture {path.name} cannot be read ({error}): save it again as PNG or JPEG") from error
    return torch.from_numpy(pixels)[None].float().div_(255)


def _gray_over_8_bits(image: Image.Image) -> np.ndarray:
    """Convert a gray picture with more than 8 bits to uint8 (H, W, 3).

    Pillow's own conversion clips at 255, which gives white. Integers have the range of 16 bits, floats of 0 to 1.
    """
    white = 1.0 if image.mode == "F" else 65535.0
    gray = np.asarray(image, dtype=np.float32) / white
    return np.repeat((gray.clip(0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=2)

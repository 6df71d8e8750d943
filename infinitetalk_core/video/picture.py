"""Reading of picture files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError
from ..media_file import MOST_PIXELS, open_media

SAVE_AGAIN = "save it again as PNG or JPEG"

# Of Pillow's formats, those that are read from the file alone: EPS runs Ghostscript, WMF asks Windows.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "PSD", "QOI")
_MOVING = ("GIF", "PNG", "WEBP", "AVIF")  # several pictures in other formats are pages, previews, depth maps


def read_picture(path: Path) -> Tensor | None:
    """Read a picture (1, H, W, 3) in [0, 1], rotated by its EXIF orientation; None for animations and other files.

    Of several pages, the first. Raises InputError for a picture that is damaged or too large.
    """
    with open_media(path, "file") as file:
        image = open_picture(file, path.name)
        if image is None:
            return None
        if moves(image):
            return None
        pixels = pixels_of(image, path.name)
    return torch.from_numpy(pixels)[None].float().div_(255)


def open_picture(file: BinaryIO, name: str) -> Image.Image | None:
    """Open a picture without decoding it; None if it is of no known picture format. Raises InputError if it is too
    large or damaged."""
    Image.init()
    formats = [kind for kind in _FORMATS if kind in Image.OPEN]
    file.seek(0)
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(name, "far")) from error
    except Exception as error:
        # Pillow's readers raise whatever comes up in a damaged file.
        raise InputError(_unreadable(name, error)) from error
    if math.prod(image.size) > MOST_PIXELS:
        raise InputError(_too_large(name, "{} x {},".format(*image.size)))
    return image


def moves(image: Image.Image) -> bool:
    """Return whether an opened picture is an animation."""
    try:
        return image.format in _MOVING and bool(getattr(image, "is_animated", False))
    except Exception:  # damaged after its first picture
        return False


def pixels_of(image: Image.Image, name: str) -> np.ndarray:
    """Decode the current picture of an opened file, upright, as (H, W, 3) uint8. Raises InputError if it is damaged."""
    try:
        upright = ImageOps.exif_transpose(image)
        return _gray_over_8_bits(upright) if upright.mode[0] in "IF" else np.array(upright.convert("RGB"))
    except Exception as error:
        raise InputError(_unreadable(name, error)) from error


def _too_large(name: str, size: str) -> str:
    return (
        f"the picture {name} has {size} more than the {MOST_PIXELS / 1e6:.0f} million pixels that are read: save it in "
        "a smaller size"
    )


def _unreadable(name: str, error: Exception) -> str:
    return f"the picture {name} cannot be read ({error}): {SAVE_AGAIN}"


def _gray_over_8_bits(image: Image.Image) -> np.ndarray:
    """Convert a gray picture with more than 8 bits to uint8 (H, W, 3).

    Pillow's own conversion clips at 255, which gives white. Integers have the range of 16 bits, floats of 0 to 1.
    """
    white = 1.0 if image.mode == "F" else 65535.0
    gray = np.asarray(image, dtype=np.float32) / white
    return np.repeat((gray.clip(0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=2)

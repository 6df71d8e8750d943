"""IMAGE and MASK as other packs hand them over, converted to ComfyUI's form where the meaning is sure.

ComfyUI's IMAGE is (count, height, width, 3) from 0 to 1, its MASK (count, height, width) from 0 to 1. What has
that form stays as it is, values and type, so that a job keeps its key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....infinitetalk_core.errors import InputError
from ..messages import say
from .foreign import tensor_of, unwrapped, what_is

COLORS = (1, 3, 4)  # gray, RGB, RGBA
PICTURES, MASK = "pictures (IMAGE)", "a mask (MASK)"
OVERSHOOT = 0.5  # beyond 0 … 1, as sharpening and upscaling leave it; it is cut off as ComfyUI does
BYTE = 255
SURELY_BYTES = 16  # a picture of 0 … 255 that is no darker than this
SURELY_BYTES_MEAN = 8.0  # of floats that are no whole numbers
WHOLE = 0.01  # how far from whole numbers 0 … 255 may be after some rounding


def as_images(value: Any, name: str = "image") -> Tensor:
    """Return pictures (N, H, W, 3) in [0, 1] from IMAGE, or from what other packs hand over as such.

    Also takes one picture, channels first, gray, RGBA (without its alpha), numpy, PIL, a list of pictures of one size,
    and values of 0 … 255. Raises InputError, naming the input, where the meaning is not sure.
    """
    return _in_range(_pictures(value, name), name, PICTURES)


def as_depth(value: Any, name: str = "depth") -> Tensor:
    """Return a depth picture like `as_images`. Floats may be above 1, as those of metric depth are."""
    pictures = _pictures(value, name)
    if pictures.is_floating_point():
        found = _range_of(pictures, name)
        # Meters may be anything up to 255, but are no whole numbers.
        if found.low >= 0 and not (found.surely_bytes() and found.whole):
            return pictures
    return _in_range(pictures, name, PICTURES)


def as_mask(value: Any, name: str = "mask") -> Tensor:
    """Return masks (N, H, W) in [0, 1] from MASK, or from what other packs hand over as such.

    Also takes (H, W), one channel before or after the picture, numpy, PIL, bool, a list of masks of one size, and
    values of 0 … 255. Raises InputError, naming the input, where the meaning is not sure.
    """
    mask = _joined(unwrapped(value), name, MASK, _one_mask)
    return _in_range(mask, name, MASK)


def _pictures(value: Any, name: str) -> Tensor:
    pictures = _joined(unwrapped(value), name, PICTURES, _one_batch)
    return pictures.expand(*pictures.shape[:3], 3) if pictures.shape[3] == 1 else pictures[..., :3]


def _joined(value: Any, name: str, what: str, convert: Callable[[Any, str], Tensor]) -> Tensor:
    """Convert `value`, or each element of a list, and join them along the first dimension."""
    if not isinstance(value, (list, tuple)):
        return convert(value, name)
    parts = [convert(part, name) for part in value]
    if not parts:
        raise InputError(f"{name} takes {what}, and got an empty list")
    if len({(part.shape[1:], part.dtype) for part in parts}) > 1:
        raise InputError(
            f"{name} got a list of {len(parts)} of different sizes; make them one size, or pick one of them"
        )
    return torch.cat([part.cpu() for part in parts])


def _one_batch(value: Any, name: str) -> Tensor:
    """Return pictures (N, H, W, 1, 3 or 4) of any numbers."""
    if isinstance(value, Image.Image):
        value = np.asarray(value.convert("RGB"))
    pictures = tensor_of(value, name, PICTURES)
    shape = tuple(pictures.shape)
    if pictures.ndim == 5 and shape[0] == 1:
        pictures = pictures[0]
    elif pictures.ndim == 3 and (shape[-1] in COLORS or shape[0] in COLORS):
        pictures = pictures[None]
    elif pictures.ndim == 2:
        pictures = pictures[None, ..., None]
    if pictures.ndim == 4 and pictures.shape[-1] not in COLORS and pictures.shape[1] in COLORS:
        pictures = pictures.permute(0, 2, 3, 1)
    if pictures.ndim != 4 or pictures.shape[-1] not in COLORS or 0 in pictures.shape:
        raise InputError(
            f"{name} takes {PICTURES}: count x height x width x 3 colors, at least one; it got {what_is(value)}"
        )
    return pictures


def _one_mask(value: Any, name: str) -> Tensor:
    """Return masks (N, H, W) of any numbers."""
    if isinstance(value, Image.Image):
        value = np.asarray(value.convert("L"))
    mask = tensor_of(value, name, MASK)
    if mask.ndim == 2:
        mask = mask[None]
    elif mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    elif mask.ndim == 4 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    elif mask.ndim == 4 and mask.shape[-1] in COLORS:
        raise InputError(f"{name} takes {MASK}, and got {PICTURES}; put Convert Image to Mask in between")
    if mask.ndim != 3 or 0 in mask.shape:
        raise InputError(f"{name} takes {MASK}: count x height x width, at least one; it got {what_is(value)}")
    return mask


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    mean: float
    whole: bool  # all are whole numbers, or nearly

    def surely_bytes(self) -> bool:
        """Return whether the numbers can only be meant as 0 … 255."""
        in_bytes = self.low >= 0 and SURELY_BYTES <= self.high <= BYTE + OVERSHOOT
        return in_bytes and (self.whole or self.mean >= SURELY_BYTES_MEAN)


def _range_of(numbers: Tensor, name: str) -> _Range:
    """Measure `numbers`, part by part along the first dimension. Raises InputError for NaN and infinity."""
    limits = torch.stack([torch.stack(torch.aminmax(part)).double().cpu() for part in numbers])
    low, high = float(limits[:, 0].min()), float(limits[:, 1].max())
    if not torch.isfinite(limits).all():
        raise InputError(
            f"{name} has values that are no numbers (NaN or infinite), which would be black or burnt in the video; "
            "look at the node that made it"
        )
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return _Range(low, high, 0.0, False)
    mean = sum(float(part.double().mean()) for part in numbers) / len(numbers)
    whole = all(float((part.double() - part.double().round()).abs().max()) <= WHOLE for part in numbers)
    return _Range(low, high, mean, whole)


def _in_range(numbers: Tensor, name: str, what: str) -> Tensor:
    """Return `numbers` from 0 to 1: floats of that range as they are, others converted where the meaning is sure."""
    if numbers.dtype is torch.bool:
        return numbers.float()
    if not numbers.is_floating_point():
        return _from_whole(numbers, name, what)
    found = _range_of(numbers, name)
    if found.low >= -OVERSHOOT and found.high <= 1 + OVERSHOOT:
        return numbers
    if found.surely_bytes():
        say(f"{name} has values up to {found.high:g}, read as 0 to 255 and divided by 255")
        return numbers.float() / BYTE
    raise InputError(_out_of_range(name, what, found))


def _from_whole(numbers: Tensor, name: str, what: str) -> Tensor:
    """Convert whole numbers: 0 … 255, 16 bits, and 0 and 1 of a mask."""
    found = _range_of(numbers, name)
    if found.low < 0 or found.high >= 1 << 16:
        raise InputError(_out_of_range(name, what, found))
    if found.high == 0 or (found.high == 1 and what == MASK):
        return numbers.float()
    if found.high == 1:
        raise InputError(
            f"{name} has no values but the whole numbers 0 and 1, which may be nearly black or white; make them "
            "floating point from 0 to 1, or 0 to 255"
        )
    if found.high > BYTE:
        say(f"{name} has whole numbers up to {found.high:g}, read as 16 bits and divided by 65535")
        return numbers.float() / ((1 << 16) - 1)
    if found.high < SURELY_BYTES and (what == MASK or numbers.dtype is not torch.uint8):
        raise InputError(_out_of_range(name, what, found))
    return numbers.float() / BYTE


def _out_of_range(name: str, what: str, found: _Range) -> str:
    return (
        f"{name} has values from {found.low:g} to {found.high:g}, and {what} are numbers from 0 to 1; bring them into "
        "that range, for instance by a node that normalizes, or save it as a file and load that"
    )

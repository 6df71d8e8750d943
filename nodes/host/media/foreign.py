"""What other packs hand over, put into words for an error message, or into a tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.number_lists import shortened

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LONGEST_NUMBER = 1 << 200  # larger whole numbers are not written out


def layers(value: Any) -> Iterator[Any]:
    """Yield `value` and, of a list or tuple of one element, that element, also where it is in two of them."""
    yield value
    for _ in range(2):
        if not isinstance(value, (list, tuple)) or len(value) != 1:
            return
        value = value[0]
        yield value


def unwrapped(value: Any) -> Any:
    """Return what lists or tuples of one element hold; `value` if it is none."""
    return list(layers(value))[-1]


def number_of(value: Any) -> int | float | None:
    """Return the number that `value` is, also of numpy, of a tensor or list of one element; None for anything else."""
    value = unwrapped(value)
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype != object:
        value = value.reshape(-1)[0]
    if (
        isinstance(value, Tensor)
        and value.numel() == 1
        and value.layout is torch.strided
        and value.device.type != "meta"
    ):
        value = value.item()
    if isinstance(value, np.bool_):
        return int(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, (Real, Decimal)) else None


def what_is(value: Any) -> str:
    """Return what `value` is in an artist's words: "the number 5", "a list of 3", "latents (LATENT)" …"""
    if value is None:
        return "nothing"
    if isinstance(value, (bool, np.bool_)):
        return "on" if value else "off"
    if isinstance(value, (Real, Decimal)):
        return f"the number {written(value)}"
    if isinstance(value, str):
        return f"the text {shortened(value)!r}"
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping):
        return _what_mapping(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"a list of {len(value)}"
    if isinstance(value, (Tensor, np.ndarray)):
        return f"numbers in the shape {' x '.join(str(n) for n in value.shape) or 'of one'}"
    if callable(getattr(value, "get_components", None)):
        return "a video (VIDEO)"
    return f"something else ({type(value).__name__})"


def _what_mapping(value: Mapping[Any, Any]) -> str:
    keys = {key for key in value if isinstance(key, str)}
    if "waveform" in keys:
        return "a sound (AUDIO)"
    if "samples" in keys:
        return "latents (LATENT)"
    return f"a table with {', '.join(sorted(shortened(key) for key in keys)[:5])}" if keys else "an empty table"


def written(value: Any) -> str:
    """Return a real number as text of bounded length."""
    if isinstance(value, Integral):
        whole = int(value)
        return str(whole) if abs(whole) < LONGEST_NUMBER else f"of {whole.bit_length()} bits"
    number = float(value)
    if math.isnan(number):
        return "NaN"
    return f"{number:g}" if math.isfinite(number) else f"{'minus ' if number < 0 else ''}infinity"


def tensor_of(value: Any, name: str, what: str) -> Tensor:
    """Return a tensor or numpy array as a tensor of a type that PyTorch computes with: bool, up to int64, floats.

    name: of the input; what: it takes. Raises InputError for anything else.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return _from_numpy(value)
    if not isinstance(value, Tensor):
        raise InputError(f"{name} takes {what}, and got {what_is(value)}")
    if value.layout is not torch.strided or value.is_complex() or value.is_quantized or value.device.type == "meta":
        raise InputError(f"{name} takes {what}, and got a tensor that is sparse, complex, quantized or without values")
    value = value.detach()
    return value if value.dtype in FLOATS or not value.is_floating_point() else value.float()


def _from_numpy(array: np.ndarray) -> Tensor:
    kind, size = array.dtype.kind, array.dtype.itemsize
    # PyTorch has no arithmetic for unsigned numbers above 8 bits, other byte orders and long doubles.
    if kind == "u" and size > 1:
        array = array.astype(np.int64 if size > 2 else np.int32)
    elif kind == "f" and size > 8:
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())

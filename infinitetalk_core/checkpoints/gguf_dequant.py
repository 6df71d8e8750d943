"""Dequantize the block formats of GGUF, on the device of the data.

Each function takes blocks (n, bytes) uint8 and returns (n, values) float32, exact up to the rounding of one product and
one sum. Source: the block structures of ggml, ggml-common.h. Temporary memory: up to about six bytes per value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlockLayout:
    """A quantized GGUF type: the values and bytes of a block, and the function that dequantizes blocks.

    halves: the bytes of a block at which its float16 scales begin.
    """

    values: int
    bytes: int
    restore: Callable[[Tensor], Tensor]
    halves: tuple[int, ...] = (0,)

    def scales_of(self, stored: Tensor) -> list[Tensor]:
        """Return the float16 scales (n, 1) of all blocks in stored (…, row bytes) uint8."""
        blocks = stored.reshape(-1, self.bytes)
        return [blocks[:, byte : byte + 2].contiguous().view(torch.float16) for byte in self.halves]

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in bytes of a stored tensor of `shape`; each row is a whole number of blocks."""
        return (*shape[:-1], shape[-1] // self.values * self.bytes)

    def dequantize(self, stored: Tensor, dtype: torch.dtype) -> Tensor:
        """Dequantize stored (…, row bytes) uint8 -> (…, row values) in `dtype`."""
        rows = stored.shape[:-1]
        return self.restore(stored.reshape(-1, self.bytes)).to(dtype).reshape(*rows, -1)


def _half(blocks: Tensor, offset: int) -> Tensor:
    """Return the float16 at byte `offset` of each block as (n, 1) float32."""
    return blocks[:, offset : offset + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Split bytes (n, g, b) into 4-bit values (n, 2g, b): the low nibbles of each group, then its high nibbles."""
    return torch.stack([packed & 15, packed >> 4], dim=2).flatten(1, 2)


def _top_bits(packed: Tensor) -> Tensor:
    """Unpack four bytes (n, 4) into 32 bits (n, 32), each as the fifth bit of a value: 0 or 16."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shifts) & 1).flatten(1) << 4


def _q4_0(blocks: Tensor) -> Tensor:
    values = _nibbles(blocks[:, None, 2:18]).flatten(1)
    return values.float().sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor) -> Tensor:
    values = _nibbles(blocks[:, None, 4:20]).flatten(1)
    return values.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor) -> Tensor:
    values = _nibbles(blocks[:, None, 6:22]).flatten(1) | _top_bits(blocks[:, 2:6])
    return values.float().sub_(16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor) -> Tensor:
    values = _nibbles(blocks[:, None, 8:24]).flatten(1) | _top_bits(blocks[:, 4:8])
    return values.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float().mul_(_half(blocks, 0))


def _six_bit_scales(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Unpack twelve bytes (n, 12) into eight scales and eight minima of six bits, (n, 8) each."""
    low, middle, high = packed.unflatten(1, (3, 4)).unbind(1)
    scales = torch.cat([low & 63, (high & 15) | ((low >> 6) << 4)], dim=1)
    minima = torch.cat([middle & 63, (high >> 4) | ((middle >> 6) << 4)], dim=1)
    return scales, minima


def _scaled_eighths(blocks: Tensor, values: Tensor) -> Tensor:
    """Scale values (n, 8, 32) of Q4_K or Q5_K and subtract the minima, both from the head of a block -> (n, 256)."""
    scales, minima = _six_bit_scales(blocks[:, 4:16])
    scale = (_half(blocks, 0) * scales).unsqueeze(-1)
    minimum = (_half(blocks, 2) * minima).unsqueeze(-1)
    return values.float().mul_(scale).sub_(minimum).flatten(1)


def _q4_k(blocks: Tensor) -> Tensor:
    return _scaled_eighths(blocks, _nibbles(blocks[:, 16:144].unflatten(1, (4, 32))))


def _q5_k(blocks: Tensor) -> Tensor:
    shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device)[:, None]
    top = ((blocks[:, 16:48].unsqueeze(1) >> shifts) & 1) << 4
    return _scaled_eighths(blocks, _nibbles(blocks[:, 48:176].unflatten(1, (4, 32))) | top)


def _q6_k(blocks: Tensor) -> Tensor:
    low, top = blocks[:, :128].unflatten(1, (2, 2, 32)), blocks[:, 128:192].unflatten(1, (2, 1, 32))
    # In each half of the block: the low nibbles of both groups, then the high nibbles.
    nibbles = torch.cat([low & 15, low >> 4], dim=2)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=blocks.device)[:, None]
    values = (nibbles | (((top >> shifts) & 3) << 4)).reshape(-1, 16, 16)
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * _half(blocks, 208)
    return values.float().sub_(32).mul_(scales.unsqueeze(-1)).flatten(1)


BLOCKS = {
    "Q8_0": BlockLayout(32, 34, _q8_0),
    "Q6_K": BlockLayout(256, 210, _q6_k, (208,)),
    "Q5_K": BlockLayout(256, 176, _q5_k, (0, 2)),
    "Q5_1": BlockLayout(32, 24, _q5_1, (0, 2)),
    "Q5_0": BlockLayout(32, 22, _q5_0),
    "Q4_K": BlockLayout(256, 144, _q4_k, (0, 2)),
    "Q4_1": BlockLayout(32, 20, _q4_1, (0, 2)),
    "Q4_0": BlockLayout(32, 18, _q4_0),
}

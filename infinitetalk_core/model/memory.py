"""Estimate the activation memory of one model prediction, without the weights.

The estimate counts the tensors of one block at the two points that can be its peak. A test compares it with a memory
tracker on ComfyUI's Wan model with our blocks (tests/host/test_memory.py): within 15 % at the released sizes. Audio
cross-attention does not raise the peak: it runs after the self-attention's queries are freed and needs less than the
feed-forward.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class BackboneSizes:
    """Layer sizes of a Wan backbone."""

    dim: int
    ffn_dim: int
    heads: int

    def activation_bytes(self, items: int, tokens: int, dtype_bytes: int) -> int:
        """Return the peak activation memory of one prediction, in bytes.

        items: guidance branches in one batch; tokens: T · h/2 · w/2 of one item; dtype_bytes: bytes per value of the
        compute dtype.
        """
        # At the rotation of the keys six (tokens, dim) tensors are alive: the block's input and the tensor that it was
        # computed from, the modulated input, the rotated queries, and the keys before and after the rotation. Below
        # float32 there are also two copies of the keys in float32.
        rotating = 6 * self.dim * dtype_bytes
        if dtype_bytes < FLOAT32_BYTES:
            rotating += 2 * self.dim * FLOAT32_BYTES
        # In the feed-forward: the first three of these and the output, of width dim, and the hidden layer before and
        # after its activation, of width ffn_dim.
        feeding = (4 * self.dim + 2 * self.ffn_dim) * dtype_bytes
        # Rotary table: a 2 x 2 matrix per pair of a head's channels, shared by all items.
        angles = 2 * (self.dim // self.heads) * FLOAT32_BYTES
        return tokens * (items * max(rotating, feeding) + angles)


def camera_bytes(tokens: int, states: int, dim: int, out_dim: int, dtype_bytes: int) -> int:
    """Return the bytes that Uni3C keeps in a prediction: states (tokens, dim) and the view tokens (tokens, out_dim).

    states: one per control block where the next guidance branch reuses them, else 1. dtype_bytes: bytes per value.
    """
    return tokens * (states * dim + out_dim) * dtype_bytes

"""How much memory one prediction takes beside the weights, from its sizes.

Counted through a block, at the moments that can be its peak, and held to what a tracker measures on ComfyUI's Wan
model with our blocks (tests/host/test_memory.py): within 15 % at the released sizes. Speech adds nothing to the peak:
its attention comes when the queries of the self-attention are gone, and needs less than the feed-forward does.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class BackboneSizes:
    """Of a Wan model."""

    dim: int
    ffn_dim: int
    heads: int

    def activation_bytes(self, items: int, tokens: int, dtype_bytes: int) -> int:
        """At the peak of one prediction. items: branches in one batch; tokens: T · h/2 · w/2 of one item;
        dtype_bytes: of the numbers that are computed with."""
        # Rotating the keys: the block's input and what it was made from, the modulated input, rotated queries, keys
        # before and after, and below float32 two copies of the keys in float32.
        rotating = 6 * self.dim * dtype_bytes
        if dtype_bytes < FLOAT32_BYTES:
            rotating += 2 * self.dim * FLOAT32_BYTES
        # The feed-forward: the same three, its result, and the wide part before and after its activation.
        feeding = (4 * self.dim + 2 * self.ffn_dim) * dtype_bytes
        # Angles: two by two numbers for each pair of a head's channels, for all items.
        angles = 2 * (self.dim // self.heads) * FLOAT32_BYTES
        return tokens * (items * max(rotating, feeding) + angles)


def camera_bytes(tokens: int, blocks: int, dim: int, out_dim: int, dtype_bytes: int) -> int:
    """What Uni3C holds meanwhile, where its states are kept for the branch that comes after: a state of each of its
    `blocks` of width `dim`, and what it was told of the camera, of width `out_dim`."""
    return tokens * (blocks * dim + out_dim) * dtype_bytes

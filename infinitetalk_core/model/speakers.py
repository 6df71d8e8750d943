"""Who speaks where: each token's place on the line of speakers (MultiTalk's L-RoPE).

Person 1 owns the positions 0…4, person 2 owns 20…24, the background stands at 12. Video tokens take a position
from how strongly they attend to each person's area in the reference frame; audio tokens stand in the middle of
their person's range (2 and 22). Source: wan/modules/attention.py of the reference implementation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .rope import line_angles, rotate_pairs

PERSON_RANGES = ((0.0, 4.0), (20.0, 24.0))
BACKGROUND = 12.0
# Video tokens that are compared or rotated at once: float32 copies of all of them would be gigabytes.
TOKENS_AT_ONCE = 4096


def reference_attention_map(q: Tensor, k: Tensor, masks: Tensor) -> Tensor:
    """How much every token looks at each area of the first frame, averaged over heads and over the area.

    q, k: (B, L, H, D) after rotation; masks: (S+1, N) with 1 inside each person's area and the background's,
    N tokens in a frame. Returns (B, S+1, L).

    Written as one attention whose values are the masks, so tokens x tokens is never stored. The reference
    averages two halves of ⌊H/2⌋ heads, so an odd head is left out.
    """
    heads = q.shape[2] // 2 * 2
    areas, tokens = masks.shape
    values = (masks / masks.sum(dim=1, keepdim=True)).T.to(q)  # (N, S+1)
    values = F.pad(values, (0, -areas % 8)).expand(q.shape[0], heads, tokens, -1)
    k = k[:, :tokens, :heads].transpose(1, 2)
    looked = [
        F.scaled_dot_product_attention(part[:, :, :heads].transpose(1, 2), k, values)[..., :areas].float().mean(dim=1)
        for part in q.split(TOKENS_AT_ONCE, dim=1)
    ]
    return torch.cat(looked, dim=1).transpose(1, 2)


def speaker_positions(looked: Tensor) -> Tensor:
    """Positions (B, L) on the line of speakers from `reference_attention_map`'s (B, 3, L)."""
    places = []
    for row, (start, end) in zip(looked[:, :2].unbind(1), PERSON_RANGES, strict=True):
        low, high = row.amin(-1, keepdim=True), row.amax(-1, keepdim=True)
        places.append((row - low) / (high - low + 1e-8) * (end - start) + start)
    places.append(torch.full_like(places[0], BACKGROUND))
    return torch.stack(places, dim=1).gather(1, looked.argmax(dim=1, keepdim=True)).squeeze(1)


def audio_positions(tokens: int, device: torch.device) -> Tensor:
    """Positions (tokens,) of the audio tokens: the first half are person 1's, the second half person 2's."""
    return torch.cat([torch.full((tokens // 2,), sum(r) / 2, device=device) for r in PERSON_RANGES])


def place(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate x (B, L, H, D) by `positions` (B, L) or (L,) on the line of speakers, some tokens at a time."""
    placed = torch.empty_like(x)
    for start in range(0, x.shape[1], TOKENS_AT_ONCE):
        part = slice(start, start + TOKENS_AT_ONCE)
        angles = line_angles(positions[..., part], x.shape[-1]).float().unsqueeze(-2)
        placed[:, part] = rotate_pairs(x[:, part], angles)
    return placed

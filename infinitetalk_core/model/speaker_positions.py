"""Assign video and audio tokens to speakers by rotary position (MultiTalk's L-RoPE).

Person 1 has the positions 0…4, person 2 has 20…24, the background has 12. A video token's position follows from how
strongly it attends to each person's area in the reference frame; an audio token's position is the middle of its
person's range (2 and 22). Source: wan/modules/attention.py of the reference implementation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .rope import line_angles, rotate_pairs

PERSON_RANGES = ((0.0, 4.0), (20.0, 24.0))
BACKGROUND = 12.0
# Video tokens that are compared or rotated at once: a float32 copy of all of them would take gigabytes.
TOKENS_AT_ONCE = 4096


def reference_attention_map(q: Tensor, k: Tensor, masks: Tensor) -> Tensor:
    """Return the attention weight (B, S+1, L) of every token on each area of the first frame.

    Averaged over the heads and over the tokens of the area. q, k: (B, L, H, D) after rotation; masks: (S+1, N) with 1
    inside each person's area and the background's, N tokens in a frame.

    Computed as one attention whose values are the masks, so the L x N weights are never stored. The reference averages
    two halves of H // 2 heads, so the last head is left out if their number is odd.

    The values are as wide as a head and have memory of their own (H·N·D values; 16 MB at 480p, 37 MB at 720p in 16
    bits): cuDNN on Hopper may refuse values that are narrower than the keys or repeat by a stride of 0.
    """
    heads = q.shape[2] // 2 * 2
    areas, tokens = masks.shape
    values = (masks / masks.sum(dim=1, keepdim=True)).T.to(q)  # (N, S+1)
    values = F.pad(values, (0, q.shape[-1] - areas)).expand(q.shape[0], heads, tokens, -1).contiguous()
    k = k[:, :tokens, :heads].transpose(1, 2)
    weights = [
        F.scaled_dot_product_attention(part[:, :, :heads].transpose(1, 2), k, values)[..., :areas].float().mean(dim=1)
        for part in q.split(TOKENS_AT_ONCE, dim=1)
    ]
    return torch.cat(weights, dim=1).transpose(1, 2)


def speaker_positions(attention_map: Tensor) -> Tensor:
    """Return the L-RoPE positions (B, L) of video tokens from `reference_attention_map`'s (B, 3, L).

    A token belongs to the person or background with the largest weight. Within a person's range its position grows
    with the weight, scaled by the smallest and largest weight over all tokens.
    """
    positions = []
    for row, (start, end) in zip(attention_map[:, :2].unbind(1), PERSON_RANGES, strict=True):
        low, high = row.amin(-1, keepdim=True), row.amax(-1, keepdim=True)
        positions.append((row - low) / (high - low + 1e-8) * (end - start) + start)
    positions.append(torch.full_like(positions[0], BACKGROUND))
    return torch.stack(positions, dim=1).gather(1, attention_map.argmax(dim=1, keepdim=True)).squeeze(1)


def audio_positions(tokens: int, device: torch.device) -> Tensor:
    """Return the L-RoPE positions (tokens,) of audio tokens: the first half is person 1's, the second person 2's."""
    return torch.cat([torch.full((tokens // 2,), sum(r) / 2, device=device) for r in PERSON_RANGES])


def apply_rotary_emb(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate x (B, L, H, D) by the L-RoPE `positions` (B, L) or (L,), TOKENS_AT_ONCE tokens at a time."""
    rotated = torch.empty_like(x)
    for start in range(0, x.shape[1], TOKENS_AT_ONCE):
        part = slice(start, start + TOKENS_AT_ONCE)
        angles = line_angles(positions[..., part], x.shape[-1]).float().unsqueeze(-2)
        rotated[:, part] = rotate_pairs(x[:, part], angles)
    return rotated

"""Audio cross-attention, and the forward pass of the Wan block that has it.

The block is any with the checkpoint's sub-module names: ComfyUI's or ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .attention import Attention
from .speaker_positions import apply_rotary_emb, audio_positions, reference_attention_map, speaker_positions


@dataclass(frozen=True)
class SpeechTokens:
    """The audio condition of one model prediction.

    tokens: (T, S·tokens, token_dim), the speakers' audio tokens one after the other. masks: (S+1, N), the area of each
    speaker and of the background over the N video tokens of one frame; None to apply the same audio tokens everywhere.
    """

    tokens: Tensor
    masks: Tensor | None = None


class AudioCrossAttention(nn.Module):
    """Cross-attention of the video tokens of a latent frame to the audio tokens of the same latent frame."""

    def __init__(self, dim: int, heads: int, token_dim: int, operations: Any, **factory: Any):
        super().__init__()
        self.heads = heads
        self.q_linear = operations.Linear(dim, dim, **factory)
        self.kv_linear = operations.Linear(token_dim, 2 * dim, **factory)
        self.proj = operations.Linear(dim, dim, **factory)

    def forward(self, x: Tensor, audio: Tensor, attention: Attention, positions: Tensor | None = None) -> Tensor:
        """Attend from x (B, T·N, C) to audio (B, T, M, token_dim) -> (B, T·N, C).

        positions: (B, T·N), the L-RoPE position of each video token for two speakers; None for no rotation.
        """
        batch, frames, tokens = audio.shape[:3]
        q = self.q_linear(x)
        k, v = self.kv_linear(audio).chunk(2, dim=-1)
        if positions is not None:
            q = apply_rotary_emb(q.unflatten(-1, (self.heads, -1)), positions).flatten(-2)
            k = apply_rotary_emb(k.unflatten(-1, (self.heads, -1)), audio_positions(tokens, k.device)).flatten(-2)
        q = q.reshape(batch * frames, -1, q.shape[-1])
        k, v = (t.reshape(batch * frames, tokens, -1) for t in (k, v))
        return self.proj(attention(q, k, v, self.heads).view_as(x))


class AudioBlock(nn.Module):
    """The audio layers of one Wan block: norm and cross-attention; `audio_conditioned_block` runs them."""

    def __init__(self, dim: int, heads: int, token_dim: int, operations: Any, **factory: Any):
        super().__init__()
        self.norm_x = operations.LayerNorm(dim, eps=1e-6, **factory)
        self.audio_cross_attn = AudioCrossAttention(dim, heads, token_dim, operations, **factory)


class WanBlock(Protocol):
    """The sub-modules and parameters that every Wan block has, under the checkpoint's names."""

    @property
    def modulation(self) -> Tensor:
        """(1, 6, C)"""

    def norm1(self, x: Tensor, /) -> Tensor: ...

    def norm2(self, x: Tensor, /) -> Tensor: ...

    def norm3(self, x: Tensor, /) -> Tensor: ...

    def ffn(self, x: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class BlockCalls:
    """The calls that differ between ComfyUI's Wan blocks and ours.

    self_attention(y (B, L, C), keep) -> (out (B, L, C), q, k): with `keep`, q and k are (B, L, H, D) after the rotary
    embedding, else None. cross_attention(y (B, L, C)) attends to the image and text tokens. attention: the function
    that the audio cross-attention calls. after_cross_attention: applied to the block's state (B, L, C) after the
    cross-attention.
    """

    self_attention: Callable[[Tensor, bool], tuple[Tensor, Tensor | None, Tensor | None]]
    cross_attention: Callable[[Tensor], Tensor]
    attention: Attention
    after_cross_attention: Callable[[Tensor], Tensor] = lambda x: x  # other patches of the host


def audio_conditioned_block(
    block: WanBlock,
    audio: AudioBlock,
    x: Tensor,
    e: Tensor,
    speech: Sequence[SpeechTokens],
    audio_scale: float,
    calls: BlockCalls,
) -> Tensor:
    """Run one Wan block with audio cross-attention between its cross-attention and its feed-forward.

    x (B, L, C); e (B, 6, C): modulation from the time projection; speech: the audio condition of each of the B items;
    audio_scale: factor of the audio cross-attention's output, 0 skips it. Returns (B, L, C).
    Source: WanAttentionBlock.forward in wan/modules/multitalk_model.py of the reference.
    """
    # Hosts that stream weights do not move raw parameters, so `modulation` is cast here.
    e = block.modulation.to(device=x.device, dtype=x.dtype) + e
    shift1, scale1, gate1, shift2, scale2, gate2 = e.chunk(6, dim=1)
    two_speakers = any(s.masks is not None for s in speech)

    y = torch.addcmul(shift1, block.norm1(x), 1 + scale1)
    y, q, k = calls.self_attention(y, two_speakers)
    x = torch.addcmul(x, y, gate1)
    del y  # free it before the feed-forward, which is the block's memory peak
    x = calls.after_cross_attention(x + calls.cross_attention(block.norm3(x)))
    if audio_scale != 0:
        y = audio_cross_attention(audio, audio.norm_x(x), q, k, speech, calls.attention)
        x = torch.add(x, y, alpha=audio_scale)
        del y
    del q, k
    y = block.ffn(torch.addcmul(shift2, block.norm2(x), 1 + scale2))
    return torch.addcmul(x, y, gate2)


def audio_cross_attention(
    audio: AudioBlock,
    y: Tensor,
    q: Tensor | None,
    k: Tensor | None,
    speech: Sequence[SpeechTokens],
    attention: Attention,
) -> Tensor:
    """Compute the audio cross-attention of y (B, L, C), each batch item with its own audio tokens -> (B, L, C).

    q, k: (B, L, H, D), the self-attention's rotated queries and keys, which items with speaker masks need; else None.
    """
    if all(s.masks is None and s.tokens.shape == speech[0].tokens.shape for s in speech):
        tokens = torch.stack([s.tokens for s in speech])
        return audio.audio_cross_attn(y, tokens.to(y), attention)
    outs = []
    for i, item in enumerate(speech):
        positions = None
        if item.masks is not None and q is not None and k is not None:
            positions = speaker_positions(reference_attention_map(q[i : i + 1], k[i : i + 1], item.masks.to(y.device)))
        outs.append(audio.audio_cross_attn(y[i : i + 1], item.tokens.to(y).unsqueeze(0), attention, positions))
    return torch.cat(outs)

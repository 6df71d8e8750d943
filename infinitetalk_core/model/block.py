"""The forward pass of the audio-conditioned Wan block, for any block with the checkpoint's sub-module names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .attention import Attention
from .audio_adapter import AudioBlock, SpeechTokens
from .speakers import reference_attention_map, speaker_positions


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

"""What InfiniteTalk adds to Wan: a projection of speech windows and, in every block, attention to it.

Sub-module names are those of the released weights (`audio_proj.*`, `blocks.N.audio_cross_attn.*`,
`blocks.N.norm_x.*`), so a file loads as it is. Source: wan/modules/multitalk_model.py of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError
from .attention import Attention
from .speakers import audio_positions, place

# Video frames behind one latent frame after the first, and the window entries that stand for them:
# of frames a b c d, each with five entries: a[0:3], b[2], c[2], d[2:5].
FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of an audio adapter."""

    dim: int  # channels of the Wan blocks
    heads: int
    blocks: int
    audio_width: int  # values in a speech feature: wav2vec layers x channels
    window: int = 5  # frames in a speech window
    hidden: int = 512
    tokens: int = 32  # audio tokens a latent frame and speaker
    token_dim: int = 768

    @property
    def late_window(self) -> int:
        """Window entries behind a latent frame that stands for four video frames."""
        return self.window + FRAMES_PER_LATENT - 1

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]], heads: int) -> AdapterConfig:
        """Read the sizes from tensor shapes of a file of InfiniteTalk weights; `heads` the backbone knows."""
        hidden, inputs = shapes["audio_proj.proj1.weight"]
        late_inputs = shapes["audio_proj.proj1_vf.weight"][1]
        token_dim = shapes["audio_proj.norm.weight"][0]
        # late_inputs is for three window entries more than inputs.
        audio_width = (late_inputs - inputs) // (FRAMES_PER_LATENT - 1)
        if audio_width < 1 or inputs % audio_width:
            raise InputError(
                f"the audio projection of these weights takes {inputs} and {late_inputs} values, which do not "
                "fit windows of speech; the file is not InfiniteTalk's or is damaged"
            )
        return cls(
            dim=shapes["blocks.0.norm_x.weight"][0],
            heads=heads,
            blocks=1 + max(int(k.split(".")[1]) for k in shapes if k.startswith("blocks.")),
            audio_width=audio_width,
            window=inputs // audio_width,
            hidden=hidden,
            tokens=shapes["audio_proj.proj3.weight"][0] // token_dim,
            token_dim=token_dim,
        )

    def check_features(self, layers: int, channels: int) -> None:
        """Refuse speech features of `layers` x `channels` that these weights were not trained with."""
        if layers * channels != self.audio_width:
            raise InputError(
                f"the audio encoder gives {layers} layers of {channels}, but these InfiniteTalk weights take "
                f"{self.audio_width} values a frame; use the encoder they were trained with "
                "(for the released weights wav2vec2 base with 12 layers of 768, such as wav2vec2-chinese-base)"
            )


@dataclass(frozen=True)
class SpeechTokens:
    """What one prediction hears.

    tokens: (T, S·tokens, token_dim), the speakers one after the other; masks: (S+1, N) areas of the speakers and
    the background in tokens of one frame, or None when everybody hears the same voice.
    """

    tokens: Tensor
    masks: Tensor | None = None


class AudioProjection(nn.Module):
    """Speech windows → audio tokens, one group a latent frame."""

    def __init__(self, config: AdapterConfig, operations: Any, **factory: Any):
        super().__init__()
        c = config
        self.config = config
        self.proj1 = operations.Linear(c.window * c.audio_width, c.hidden, **factory)
        self.proj1_vf = operations.Linear(c.late_window * c.audio_width, c.hidden, **factory)
        self.proj2 = operations.Linear(c.hidden, c.hidden, **factory)
        self.proj3 = operations.Linear(c.hidden, c.tokens * c.token_dim, **factory)
        self.norm = operations.LayerNorm(c.token_dim, **factory)

    def forward(self, windows: Tensor) -> Tensor:
        """windows (S, F, window, layers, channels), F = 4(T−1)+1 → (S, T, tokens, token_dim)."""
        first, late = split_windows(windows)
        first = torch.relu(self.proj1(first.flatten(2)))
        late = torch.relu(self.proj1_vf(late.flatten(2)))
        x = torch.relu(self.proj2(torch.cat([first, late], dim=1)))
        x = rearrange(self.proj3(x), "s t (n c) -> s t n c", n=self.config.tokens)
        return self.norm(x)


def split_windows(windows: Tensor) -> tuple[Tensor, Tensor]:
    """windows (S, F, W, …) → the first frame's (S, 1, W, …), the later latent frames' (S, T−1, W+3, …)."""
    middle = windows.shape[2] // 2
    groups = rearrange(windows[:, 1:], "s (t n) w ... -> s t n w ...", n=FRAMES_PER_LATENT)
    late = torch.cat(
        [
            groups[:, :, 0, : middle + 1],
            groups[:, :, 1:-1, middle],
            groups[:, :, -1, middle:],
        ],
        dim=2,
    )
    return windows[:, :1], late


class AudioCrossAttention(nn.Module):
    """Tokens of a latent frame attend to the audio tokens of that frame."""

    def __init__(self, config: AdapterConfig, operations: Any, **factory: Any):
        super().__init__()
        self.heads = config.heads
        self.q_linear = operations.Linear(config.dim, config.dim, **factory)
        self.kv_linear = operations.Linear(config.token_dim, 2 * config.dim, **factory)
        self.proj = operations.Linear(config.dim, config.dim, **factory)

    def forward(self, x: Tensor, audio: Tensor, attention: Attention, positions: Tensor | None = None) -> Tensor:
        """x (B, T·N, C), audio (B, T, M, token_dim), positions (B, T·N) of two speakers or None → (B, T·N, C)."""
        batch, frames, tokens = audio.shape[:3]
        q = self.q_linear(x)
        k, v = self.kv_linear(audio).chunk(2, dim=-1)
        if positions is not None:
            q = place(q.unflatten(-1, (self.heads, -1)), positions).flatten(-2)
            k = place(k.unflatten(-1, (self.heads, -1)), audio_positions(tokens, k.device)).flatten(-2)
        q = q.reshape(batch * frames, -1, q.shape[-1])
        k, v = (t.reshape(batch * frames, tokens, -1) for t in (k, v))
        return self.proj(attention(q, k, v, self.heads).view_as(x))


class AudioBlock(nn.Module):
    """The audio part of one Wan block."""

    def __init__(self, config: AdapterConfig, operations: Any, **factory: Any):
        super().__init__()
        self.norm_x = operations.LayerNorm(config.dim, eps=1e-6, **factory)
        self.audio_cross_attn = AudioCrossAttention(config, operations, **factory)


class AudioAdapter(nn.Module):
    """All that a file of InfiniteTalk weights holds.

    `operations` supplies Linear and LayerNorm: torch.nn, or a host's layers that load, cast and move by
    themselves. `factory` goes to each of them (device, dtype).
    """

    def __init__(self, config: AdapterConfig, operations: ModuleType | type = nn, **factory: Any):
        super().__init__()
        self.config = config
        self.audio_proj = AudioProjection(config, operations, **factory)
        self.blocks = nn.ModuleList(AudioBlock(config, operations, **factory) for _ in range(config.blocks))

    def speech_tokens(self, windows: Tensor, masks: Tensor | None = None) -> SpeechTokens:
        """Tokens of the windows (S, F, window, layers, channels) of S speakers."""
        tokens = rearrange(self.audio_proj(windows), "s t n c -> t (s n) c")
        return SpeechTokens(tokens, masks)

    def silence(self, windows: Tensor) -> SpeechTokens:
        """The null condition of guidance: windows of zeros, for one speaker (reference: `zeros_like(audio)[-1:]`)."""
        return self.speech_tokens(torch.zeros_like(windows[-1:]))

"""The layers that InfiniteTalk adds to Wan: the audio projection and an audio cross-attention in every block.

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

from ..checkpoints.tensor_shapes import TensorShapes
from ..errors import InputError
from .audio_cross_attention import AudioBlock, SpeechTokens

# Video frames per latent frame, except for the first latent frame, which encodes one. The audio windows (five entries
# each) of its frames a b c d are reduced to the entries a[0:3], b[2], c[2], d[2:5].
FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class AdapterConfig:
    """Layer sizes of an audio adapter; the defaults are those of the released weights."""

    dim: int  # channels of the Wan blocks
    heads: int
    blocks: int
    audio_width: int  # values of the speech features of one frame: wav2vec layers x channels
    window: int = 5  # frames in an audio window
    hidden: int = 512
    tokens: int = 32  # audio tokens per latent frame and speaker
    token_dim: int = 768

    @property
    def late_window(self) -> int:
        """Window entries per latent frame after the first (the reference's `seq_len_vf`): 8 for windows of 5."""
        return self.window + FRAMES_PER_LATENT - 1

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]], heads: int) -> AdapterConfig:
        """Read the sizes from the tensor shapes of a file of InfiniteTalk weights.

        heads: attention heads of the backbone, which the file does not contain. Raises InputError for missing tensors
        and for shapes that do not fit audio windows.
        """
        tensors = TensorShapes.of(shapes)
        hidden, inputs = tensors.sizes("audio_proj.proj1.weight", 2)
        late_inputs = tensors.sizes("audio_proj.proj1_vf.weight", 2)[1]
        (token_dim,) = tensors.sizes("audio_proj.norm.weight", 1)
        # proj1_vf takes three window entries more than proj1.
        audio_width = (late_inputs - inputs) // (FRAMES_PER_LATENT - 1)
        if audio_width < 1 or inputs % audio_width:
            raise InputError(
                f"the audio projection of {tensors.file} takes {inputs} and {late_inputs} values, which do not fit "
                "windows of speech; it is not InfiniteTalk's or is damaged, so download it again"
            )
        return cls(
            dim=tensors.sizes("blocks.0.norm_x.weight", 1)[0],
            heads=heads,
            blocks=tensors.blocks("blocks.", "norm_x.weight"),
            audio_width=audio_width,
            window=inputs // audio_width,
            hidden=hidden,
            tokens=max(1, tensors.sizes("audio_proj.proj3.weight", 2)[0] // token_dim),
            token_dim=token_dim,
        )

    def check_features(self, layers: int, channels: int) -> None:
        """Raise InputError unless these weights take speech features of `layers` x `channels` values per frame."""
        if layers * channels != self.audio_width:
            raise InputError(
                f"the audio encoder gives {layers} layers of {channels}, but these InfiniteTalk weights take "
                f"{self.audio_width} values a frame; use the encoder they were trained with "
                "(for the released weights wav2vec2 base with 12 layers of 768, such as wav2vec2-chinese-base)"
            )


class AudioProjection(nn.Module):
    """Project audio windows to audio tokens, `tokens` per speaker and latent frame (the reference's AudioProjModel)."""

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
        """Project windows (S, F, window, layers, channels) with F = 4(T-1)+1 -> (S, T, tokens, token_dim)."""
        first, late = split_windows(windows)
        first = torch.relu(self.proj1(first.flatten(2)))
        late = torch.relu(self.proj1_vf(late.flatten(2)))
        x = torch.relu(self.proj2(torch.cat([first, late], dim=1)))
        x = rearrange(self.proj3(x), "s t (n c) -> s t n c", n=self.config.tokens)
        return self.norm(x)


def split_windows(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Split windows (S, F, W, …) by latent frame: the first (S, 1, W, …) and the later ones (S, T-1, W+3, …)."""
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


class AudioAdapter(nn.Module):
    """All modules of a file of InfiniteTalk weights: the audio projection and the audio layers of every block.

    operations: supplies Linear and LayerNorm; torch.nn, or the host's layer classes, which load, cast and move weights
    themselves. factory: keyword arguments of each layer (device, dtype).
    """

    EXACT = ("audio_proj.",)  # the speech features are float32, and so is the computation of their tokens

    def __init__(self, config: AdapterConfig, operations: ModuleType | type = nn, **factory: Any):
        super().__init__()
        self.config = config
        self.audio_proj = AudioProjection(config, operations, **factory)
        sizes = (config.dim, config.heads, config.token_dim)
        self.blocks = nn.ModuleList(AudioBlock(*sizes, operations, **factory) for _ in range(config.blocks))

    def speech_tokens(self, windows: Tensor, masks: Tensor | None = None) -> SpeechTokens:
        """Project the windows (S, F, window, layers, channels) of S speakers to tokens (T, S·tokens, token_dim).

        masks: as in `SpeechTokens`.
        """
        tokens = rearrange(self.audio_proj(windows), "s t n c -> t (s n) c")
        return SpeechTokens(tokens, masks)

    def silence(self, windows: Tensor) -> SpeechTokens:
        """Return the null audio condition: windows of zeros, for one speaker (reference: `zeros_like(audio)[-1:]`)."""
        return self.speech_tokens(torch.zeros_like(windows[-1:]))

"""A Wan 2.1 I2V backbone in plain PyTorch, for unit tests, training and evaluation.

In production the backbone is the host's; a test checks that both compute the same. Sub-module names are the
checkpoint's.
Source: Wan 2.1, wan/modules/model.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn import Conv3d, LayerNorm, Linear  # plain ones: ComfyUI never runs this module
from torch.utils.checkpoint import checkpoint

from ..checkpoints.tensor_shapes import TensorShapes
from .attention import sdpa
from .audio_adapter import AudioAdapter
from .audio_cross_attention import AudioBlock, BlockCalls, SpeechTokens, audio_conditioned_block
from .rope import Rotate, video_rotation

PATCH = (1, 2, 2)
Blocks = Callable[[Tensor], Tensor]  # tokens (B, L, C) -> tokens after all blocks
# (time modulation (B, 6, C), tokens, blocks) -> the result of `blocks(tokens)`, computed or taken from a cache
BlockRunner = Callable[[Tensor, Tensor, Blocks], Tensor]


@dataclass(frozen=True)
class WanConfig:
    """Sizes of a Wan I2V backbone; the defaults are the 14B model's."""

    dim: int = 5120
    ffn_dim: int = 13824
    heads: int = 40
    layers: int = 40
    in_channels: int = 36
    out_channels: int = 16
    text_dim: int = 4096
    text_len: int = 512
    clip_dim: int = 1280
    freq_dim: int = 256
    eps: float = 1e-6

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]], heads: int, text_len: int = 512) -> WanConfig:
        """Read the sizes from a checkpoint's shapes; it does not contain `heads` (dim / 128 in every release).

        Raises InputError for missing tensors and for shapes that no Wan has.
        """
        tensors = TensorShapes.of(shapes)
        dim, in_channels = tensors.sizes("patch_embedding.weight", 5)[:2]
        return cls(
            dim=dim,
            ffn_dim=tensors.sizes("blocks.0.ffn.0.weight", 2)[0],
            heads=heads,
            layers=tensors.blocks("blocks.", "ffn.0.weight"),
            in_channels=in_channels,
            out_channels=tensors.sizes("head.head.weight", 2)[0] // 4,
            text_dim=tensors.sizes("text_embedding.0.weight", 2)[1],
            text_len=text_len,
            clip_dim=tensors.sizes("img_emb.proj.0.weight", 1)[0],
            freq_dim=tensors.sizes("time_embedding.0.weight", 2)[1],
        )


class SelfAttention(nn.Module):
    """Self-attention over all video tokens; queries and keys are normalized over the full width, then rotated."""

    def __init__(self, config: WanConfig):
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.dim, eps=config.eps) for _ in range(2))

    def forward(self, x: Tensor, rotate: Rotate) -> tuple[Tensor, Tensor, Tensor]:
        """Attend within x (B, L, C) -> (out (B, L, C), rotated q and k (B, L, H, D))."""
        q, k = (
            rotate(rearrange(n(f(x)), "b l (h d) -> b l h d", h=self.heads))
            for n, f in ((self.norm_q, self.q), (self.norm_k, self.k))
        )
        return self.o(sdpa(q.flatten(2), k.flatten(2), self.v(x), self.heads)), q, k


class CrossAttention(SelfAttention):
    """Cross-attention to the text and CLIP image tokens: one query, separate keys and values."""

    def __init__(self, config: WanConfig):
        super().__init__(config)
        self.k_img, self.v_img = (Linear(config.dim, config.dim) for _ in range(2))
        self.norm_k_img = nn.RMSNorm(config.dim, eps=config.eps)

    def attend(self, x: Tensor, text: Tensor, picture: Tensor | None) -> Tensor:
        """Attend from x (B, L, C) to text (B, M, C) and picture (B, 257, C) or None -> (B, L, C)."""
        q = self.norm_q(self.q(x))
        out = sdpa(q, self.norm_k(self.k(text)), self.v(text), self.heads)
        if picture is not None:
            out = out + sdpa(q, self.norm_k_img(self.k_img(picture)), self.v_img(picture), self.heads)
        return self.o(out)


class Block(nn.Module):
    """The layers of one transformer block; its forward pass is `audio_conditioned_block`."""

    def __init__(self, config: WanConfig):
        super().__init__()
        dim = config.dim
        self.norm1, self.norm2 = (LayerNorm(dim, config.eps, elementwise_affine=False) for _ in range(2))
        self.norm3 = LayerNorm(dim, config.eps)
        self.self_attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.Sequential(Linear(dim, config.ffn_dim), nn.GELU(approximate="tanh"), Linear(config.ffn_dim, dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)


class Head(nn.Module):
    """The output layer: projects tokens to patches of the predicted velocity."""

    def __init__(self, config: WanConfig):
        super().__init__()
        self.norm = LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.head = Linear(config.dim, config.out_channels * 4)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Project x (B, L, C) with the time embedding e (B, C) -> (B, L, 4·out)."""
        shift, scale = (self.modulation + e.unsqueeze(1)).chunk(2, dim=1)
        return self.head(torch.addcmul(shift, self.norm(x), 1 + scale))


class PictureEmbedding(nn.Module):
    """Projection of CLIP image tokens to the width of the backbone."""

    def __init__(self, config: WanConfig):
        super().__init__()
        self.proj = nn.Sequential(
            LayerNorm(config.clip_dim),
            Linear(config.clip_dim, config.clip_dim),
            nn.GELU(),
            Linear(config.clip_dim, config.dim),
            LayerNorm(config.dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Project x (B, 257, clip_dim) -> (B, 257, C)."""
        return self.proj(x)


def model_input(z1: Tensor, mask: Tensor, z2: Tensor) -> Tensor:
    """Concatenate z1, m and z2 on the channel axis: (B, 36, T, h, w). m and z2 are expanded to the batch of z1."""
    batch = len(z1)
    return torch.cat([z1, *(t.to(z1).expand(batch, -1, -1, -1, -1) for t in (mask, z2))], dim=1)


def time_frequencies(timesteps: Tensor, dim: int) -> Tensor:
    """Return the sinusoidal embedding (B, dim) float32 of timesteps (B,) in 0…1000: cosines first, in float64."""
    half = dim // 2
    steps = torch.arange(half, device=timesteps.device, dtype=torch.float64) / half
    angles = timesteps.double()[:, None] * 10000.0**-steps
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def run_blocks(modulation: Tensor, x: Tensor, blocks: Blocks) -> Tensor:
    """Run all blocks: the default of `Running.block_runner`."""
    return blocks(x)


@dataclass(frozen=True)
class Running:
    """How the blocks are run.

    recompute: gradient checkpointing, one checkpoint per block. block_runner: called in place of the loop over all
    blocks (step caching).
    """

    recompute: bool = False
    block_runner: BlockRunner = run_blocks


PLAIN = Running()


class WanBackbone(nn.Module):
    """Wan 2.1 I2V whose blocks take the audio layers of an `AudioAdapter`."""

    def __init__(self, config: WanConfig):
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = Conv3d(config.in_channels, dim, PATCH, stride=PATCH)
        self.text_embedding = nn.Sequential(Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), Linear(dim, dim))
        self.time_embedding = nn.Sequential(Linear(config.freq_dim, dim), nn.SiLU(), Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), Linear(dim, dim * 6))
        self.img_emb = PictureEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        picture: Tensor | None,
        adapter: AudioAdapter,
        speech: Sequence[SpeechTokens],
        audio_scale: float = 1.0,
        after_block: Callable[[int, Tensor], Tensor] | None = None,
        running: Running = PLAIN,
    ) -> Tensor:
        """Predict the velocity.

        x (B, 36, T, h, w); timesteps (B,) on 0…1000; text (B, M <= text_len, text_dim); picture (B, 257, clip_dim)
        or None; speech: the audio condition of each of the B items; audio_scale: factor of the audio cross-attention;
        after_block: (i, output of block i (B, L, C)) -> the tokens for the next block; running: how the blocks are run.
        Returns (B, 16, T, h, w).
        """
        x = self.patch_embedding(x)
        grid: tuple[int, int, int] = tuple(x.shape[2:])  # type: ignore[assignment]
        x = rearrange(x, "b c t h w -> b (t h w) c")
        e = self.time_embedding(time_frequencies(timesteps, self.config.freq_dim).to(x))
        e6 = self.time_projection(e).unflatten(1, (6, -1))
        # The padding tokens are attended to: the reference pads before the embedding and has no mask.
        text = self.text_embedding(F.pad(text, (0, 0, 0, self.config.text_len - text.shape[1])))
        picture = None if picture is None else self.img_emb(picture)
        rotate = video_rotation(grid, self.config.dim // self.config.heads, x.device)
        run: Callable[..., Tensor] = audio_conditioned_block
        if running.recompute:
            run = partial(checkpoint, audio_conditioned_block, use_reentrant=False)

        def blocks(x: Tensor) -> Tensor:
            for i, (module, audio) in enumerate(zip(self.blocks, adapter.blocks, strict=True)):
                block = cast(Block, module)
                calls = BlockCalls(
                    self_attention=partial(_self_attention, block, rotate),
                    cross_attention=partial(block.cross_attn.attend, text=text, picture=picture),
                    attention=sdpa,
                )
                x = run(block, cast(AudioBlock, audio), x, e6, speech, audio_scale, calls)
                x = x if after_block is None else after_block(i, x)
            return x

        x = running.block_runner(e6, x, blocks)
        t, h, w = grid
        return rearrange(
            self.head(x, e), "b (t h w) (p q c) -> b c t (h p) (w q)", t=t, h=h, w=w, p=PATCH[1], q=PATCH[2]
        )


def _self_attention(block: Block, rotate: Rotate, y: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    return block.self_attn(y, rotate)

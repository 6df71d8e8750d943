"""Uni3C: a ControlNet whose residuals, added after the first Wan blocks, control the camera motion.

Sub-module names are those of `Wan21_Uni3C_controlnet_fp16`. Source: ewrfcas/Uni3C, src/models/controlnet.py and
src/models/pcd_controller.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..checkpoints.tensor_shapes import TensorShapes
from ..errors import InputError
from .attention import Attention, sdpa
from .rope import Rotate, video_rotation

PATCH = (1, 2, 2)
LATENT = (4, 8, 8)  # frames, rows and columns of pixels per latent value: the VAE's compression
INPUT_CHANNELS = 20 + 16  # Wan's noisy latents and mask; the latents of the guidance video
RELEASED_HEADS = 16
ANOTHER_FILE = "use Wan21_Uni3C_controlnet_fp16.safetensors"


@dataclass(frozen=True)
class Uni3CConfig:
    """Sizes of a Uni3C ControlNet; the defaults are the released one's."""

    dim: int = 1024
    ffn_dim: int = 4096
    heads: int = RELEASED_HEADS
    blocks: int = 20
    embed_dim: int = 5120  # width of the patch embedding, before the projection to `dim`
    time_dim: int = 5120  # width of Wan's time embedding
    out_dim: int = 5120  # width of Wan's blocks, to which the residuals are added
    view_channels: int = 7  # render mask 1, camera embedding 6; or the mask alone
    view_dim: int = 256

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]], heads: int = RELEASED_HEADS) -> Uni3CConfig:
        """Read the sizes from the tensor shapes of a file, under the module names of this file.

        The number of heads is in no file: ComfyUI and the WanVideo wrapper take 16 for any width. Raises InputError for
        a missing tensor and for sizes that Wan 2.1 I2V does not fit.
        """
        first, tensors = "controlnet_blocks.0", TensorShapes.of(shapes)
        embed_dim, inputs = tensors.sizes("controlnet_patch_embedding.weight", 5)[:2]
        out_dim, dim = tensors.sizes("proj_out.0.weight", 2)
        view_dim, view_channels = tensors.sizes("controlnet_mask_embedding.mask_proj.0.weight", 5)[:2]
        if inputs != INPUT_CHANNELS:
            raise InputError(
                f"{tensors.file} holds a Uni3C ControlNet that takes {inputs} channels, and Wan 2.1 I2V with a "
                f"guidance video gives {INPUT_CHANNELS}; {ANOTHER_FILE}"
            )
        if dim % (2 * heads):
            raise InputError(
                f"{tensors.file} holds a Uni3C ControlNet whose width {dim} cannot be shared by {heads} heads; "
                f"{ANOTHER_FILE}"
            )
        return cls(
            dim=dim,
            ffn_dim=tensors.sizes(f"{first}.ffn.0.weight", 2)[0],
            heads=heads,
            blocks=tensors.blocks("controlnet_blocks.", "ffn.0.weight"),
            embed_dim=embed_dim,
            time_dim=tensors.sizes(f"{first}.norm1.linear.weight", 2)[1],
            out_dim=out_dim,
            view_channels=view_channels,
            view_dim=view_dim,
        )


class ModulatedNorm(nn.Module):
    """Layer norm with shift, scale and gate from the time embedding (CogVideoX's LayerNormZero)."""

    def __init__(self, config: Uni3CConfig, operations: Any, **factory: Any):
        super().__init__()
        self.linear = operations.Linear(config.time_dim, 3 * config.dim, **factory)
        self.norm = operations.LayerNorm(config.dim, eps=1e-5, **factory)

    def forward(self, x: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
        """Normalize x (B, L, C) with temb (B, time) -> (normalized x (B, L, C), gate (B, 1, C))."""
        shift, scale, gate = self.linear(F.silu(temb)).unsqueeze(1).chunk(3, dim=-1)
        return torch.addcmul(shift, self.norm(x), 1 + scale), gate


class SelfAttention(nn.Module):
    """Self-attention over all video tokens; queries and keys are normalized over the full width, then rotated."""

    def __init__(self, config: Uni3CConfig, operations: Any, **factory: Any):
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.to_q, self.to_k, self.to_v = (operations.Linear(dim, dim, **factory) for _ in range(3))
        self.to_out = nn.Sequential(operations.Linear(dim, dim, **factory))
        self.norm_q, self.norm_k = (operations.RMSNorm(dim, eps=1e-6, **factory) for _ in range(2))

    def forward(self, x: Tensor, rotate: Rotate, attention: Attention) -> Tensor:
        """Attend within x (B, L, C) -> (B, L, C)."""
        q, k = (
            rotate(rearrange(norm(project(x)), "b l (h d) -> b l h d", h=self.heads)).flatten(2)
            for norm, project in ((self.norm_q, self.to_q), (self.norm_k, self.to_k))
        )
        return self.to_out(attention(q, k, self.to_v(x), self.heads))


class ControlBlock(nn.Module):
    """One transformer block of the ControlNet: self-attention and feed-forward, modulated by the time embedding."""

    def __init__(self, config: Uni3CConfig, operations: Any, **factory: Any):
        super().__init__()
        self.norm1, self.norm2 = (ModulatedNorm(config, operations, **factory) for _ in range(2))
        self.self_attn = SelfAttention(config, operations, **factory)
        self.ffn = nn.Sequential(
            operations.Linear(config.dim, config.ffn_dim, **factory),
            nn.GELU(approximate="tanh"),
            operations.Linear(config.ffn_dim, config.dim, **factory),
        )

    def forward(self, x: Tensor, temb: Tensor, rotate: Rotate, attention: Attention) -> Tensor:
        """Run the block on x (B, L, C) with temb (B, time) -> (B, L, C)."""
        y, gate = self.norm1(x, temb)
        x = torch.addcmul(x, self.self_attn(y, rotate, attention), gate)
        y, gate = self.norm2(x, temb)
        return torch.addcmul(x, self.ffn(y), gate)


class ViewEmbedding(nn.Module):
    """Embedding of the render mask and the camera embedding, both at pixel resolution, into tokens."""

    def __init__(self, config: Uni3CConfig, operations: Any, **factory: Any):
        super().__init__()
        c = config
        self.mask_proj = nn.Sequential(
            operations.Conv3d(c.view_channels, c.view_dim, LATENT, stride=LATENT, **factory),
            operations.GroupNorm(c.view_dim // 8, c.view_dim, **factory),
            nn.SiLU(),
        )
        self.mask_zero_proj = operations.Conv3d(c.view_dim, c.embed_dim, PATCH, stride=PATCH, **factory)

    def forward(self, parts: Sequence[Tensor], device: torch.device) -> Tensor:
        """Embed parts (B, c, F, H, W) whose channels add up to view_channels and F = 4(T-1)+1 -> (B, tokens, embed).

        The convolution's windows do not overlap, so pixels are moved to the device one latent frame at a time: seven
        channels of a long clip at pixel resolution are the largest tensor here. The group norm uses all frames.
        """
        frames = parts[0].shape[2]
        latents = []
        for end in range(1, frames + 1, LATENT[0]):
            window = slice(max(end - LATENT[0], 0), end)
            pixels = torch.cat([p[:, :, window].to(device, torch.float32) for p in parts], dim=1)
            # The first latent frame encodes one frame, padded in front with frames of zeros.
            pixels = F.pad(pixels, (0, 0, 0, 0, LATENT[0] - pixels.shape[2], 0))
            latents.append(self.mask_proj[0](pixels))
        x = self.mask_proj[1:](torch.cat(latents, dim=2))
        return rearrange(self.mask_zero_proj(x), "b c t h w -> b (t h w) c")


class Uni3C(nn.Module):
    """The Uni3C ControlNet: computes residuals for Wan's first blocks from Wan's input and a guidance video.

    operations: supplies Linear, Conv3d, LayerNorm, RMSNorm and GroupNorm; torch.nn, or the host's layer classes, which
    load, cast and move weights themselves. factory: keyword arguments of each layer (device, dtype). Embeddings are
    computed in float32 for any dtype of x, as in the reference; so with torch.nn the weights must be float32.
    """

    EXACT = ("controlnet_patch_embedding.", "controlnet_mask_embedding.")  # the embeddings

    def __init__(self, config: Uni3CConfig, operations: ModuleType | type = nn, **factory: Any):
        super().__init__()
        c, ops = config, cast(Any, operations)
        self.config = config
        self.controlnet_patch_embedding = ops.Conv3d(INPUT_CHANNELS, c.embed_dim, PATCH, stride=PATCH, **factory)
        self.controlnet_mask_embedding = ViewEmbedding(c, ops, **factory)
        self.proj_in = nn.Identity() if c.embed_dim == c.dim else ops.Linear(c.embed_dim, c.dim, **factory)
        self.controlnet_blocks = nn.ModuleList(ControlBlock(c, ops, **factory) for _ in range(c.blocks))
        self.proj_out = nn.ModuleList(ops.Linear(c.dim, c.out_dim, **factory) for _ in range(c.blocks))

    def forward(
        self,
        x: Tensor,
        render_latents: Tensor,
        temb: Tensor,
        mask: Tensor | None = None,
        camera: Tensor | None = None,
        attention: Attention = sdpa,
    ) -> list[Tensor]:
        """Return the residuals (B, tokens, out_dim); the i-th is added after Wan's block i.

        For the arguments see `states` and `view_tokens`. The list is large (20 x 335 MB at 480p and 81 frames in half
        precision): to save memory, call `states` and `residual` block by block.
        """
        view = None if mask is None and camera is None else self.view_tokens(mask, camera, x.device)
        states = self.states(x, render_latents, temb, view, attention)
        return [self.residual(i, state) for i, state in enumerate(states)]

    def view_tokens(self, mask: Tensor | None, camera: Tensor | None, device: torch.device) -> Tensor:
        """Embed a chunk's render mask and camera embedding to tokens (B, tokens, embed), constant over the steps.

        mask (B, 1, F, H, W): 1 in the holes of the guidance video, 0 elsewhere. camera (B, 6, F, H, W): the direction
        of each pixel's ray and its moment, the cross product camera position x direction. F = 4(T-1)+1 frames of
        H = 8h, W = 8w pixels, on any device. The reference always adds these tokens, also for a mask of zeros (the
        biases make them non-zero); other ComfyUI nodes leave them out. Raises InputError for missing inputs and wrong
        sizes.
        """
        parts = [p for p in (mask, camera) if p is not None]
        if mask is None or sum(p.shape[1] for p in parts) != self.config.view_channels:
            needed = "a render mask and a camera embedding" if self.config.view_channels > 1 else "a render mask alone"
            raise InputError(
                f"this Uni3C ControlNet takes {needed} ({self.config.view_channels} channels), got "
                f"{' and '.join(str(p.shape[1]) for p in parts)}; connect {needed}, or neither of the two"
            )
        if len({p.shape[2:] for p in parts}) > 1:
            raise InputError(
                f"the render mask is {_size(mask)} and the camera embedding {_size(parts[-1])}; "
                "take both from the same camera path"
            )
        frames, height, width = mask.shape[2:]
        if frames % 4 != 1 or height % 16 or width % 16:
            raise InputError(
                f"render mask and camera embedding must have 4n+1 frames of multiples of 16 pixels, got {_size(mask)}; "
                "render them at the size of the video"
            )
        return self.controlnet_mask_embedding(parts, device)

    def states(
        self, x: Tensor, render_latents: Tensor, temb: Tensor, view: Tensor | None = None, attention: Attention = sdpa
    ) -> Iterator[Tensor]:
        """Yield the output (B, tokens, dim) of each control block in order.

        x (B, 20, T, h, w): the first 20 channels of Wan's input; render_latents (B or 1, 16, T, h, w): the encoded
        guidance video in the same scale; temb (B, time): Wan's time embedding before its projection; view: the result
        of `view_tokens` or None. Raises InputError where `view` does not have the size of x.
        """
        hidden, grid = self._embed(x, render_latents, view)
        rotate = video_rotation(grid, self.config.dim // self.config.heads, x.device)
        for block in self.controlnet_blocks:
            hidden = block(hidden, temb.to(x), rotate, attention)
            yield hidden

    def _embed(self, x: Tensor, render_latents: Tensor, view: Tensor | None) -> tuple[Tensor, tuple[int, int, int]]:
        """Return the input tokens (B, tokens, dim) and their (T, H, W) grid.

        A separate function, so that the large float32 patches are freed on return and not kept alive by the generator
        `states`.
        """
        inputs = torch.cat([x, render_latents.to(x).expand(len(x), -1, -1, -1, -1)], dim=1)
        patches = self.controlnet_patch_embedding(inputs.float())
        grid: tuple[int, int, int] = tuple(patches.shape[2:])  # type: ignore[assignment]
        tokens = rearrange(patches, "b c t h w -> b (t h w) c")
        if view is not None:
            self._check_tokens(view, x, tokens.shape[1])
            tokens = tokens + view.to(tokens)
        return self.proj_in(tokens.to(x.dtype)), grid

    def residual(self, index: int, state: Tensor) -> Tensor:
        """Project a state (B, tokens, dim) of control block `index` to the residual (B, tokens, out_dim) of Wan's."""
        return self.proj_out[index](state)

    def _check_tokens(self, view: Tensor, x: Tensor, tokens: int) -> None:
        if view.shape[1] != tokens:
            t, h, w = x.shape[2:]
            raise InputError(
                "the render mask and the camera embedding do not have the size or length of the chunk, "
                f"{4 * (t - 1) + 1} frames of {8 * w} x {8 * h} pixels; render them at the size of the video"
            )


def _size(part: Tensor) -> str:
    frames, height, width = part.shape[2:]
    return f"{frames} frames of {width} x {height}"

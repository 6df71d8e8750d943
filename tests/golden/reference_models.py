"""The engine's `Models` made of the golden cases' small DiT and of their linear stand-ins for VAE and CLIP."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

from infinitetalk_core.chunks.conditioning import ChunkConditioning
from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter
from infinitetalk_core.model.wan import WanBackbone, WanConfig, model_input
from infinitetalk_core.sampling.euler import euler
from infinitetalk_core.sampling.guidance import Branch, Guidance, guided
from infinitetalk_core.speakers import Box


def build_dit(config: dict, weights: dict[str, Tensor]) -> tuple[WanBackbone, AudioAdapter]:
    """Backbone and adapter from the reference's own state dict."""
    audio = {k: v for k, v in weights.items() if "audio" in k or "norm_x" in k}
    wan = {k: v for k, v in weights.items() if k not in audio}
    shapes = {k: tuple(v.shape) for k, v in audio.items()}
    adapter = AudioAdapter(AdapterConfig.from_shapes(shapes, config["num_heads"]))
    adapter.load_state_dict(audio)
    backbone = WanBackbone(
        WanConfig.from_shapes({k: v.shape for k, v in wan.items()}, config["num_heads"], config["text_len"])
    )
    backbone.load_state_dict(wan)
    return backbone.eval(), adapter.eval()


def boxes(row: dict) -> tuple[Box, ...] | None:
    """The speakers' areas of a row, None where it has none.

    The reference reads x as rows and y as columns; our boxes are x across, y down.
    """
    if row["bbox"] is None:
        return None
    return tuple(Box(x0=y0, y0=x0, x1=y1, y1=x1) for x0, y0, x1, y1 in row["bbox"].values())


def branches_of_reference(guidance: Guidance) -> tuple[Branch, ...]:
    """The predictions that the reference makes in a step, also those whose weight is zero, in its order."""
    if guidance.text_is_off:
        return Branch.COND, Branch.DROP_AUDIO
    return Branch.COND, Branch.DROP_TEXT, Branch.UNCOND


@dataclass(frozen=True)
class LinearCodec:
    """The cases' mock VAE: one matrix for the first frame, one for each group of four."""

    e1: Tensor
    e4: Tensor
    d1: Tensor
    d4: Tensor
    b: Tensor

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> LinearCodec:
        return cls(*(tensors[k] for k in ("E1", "E4", "D1", "D4", "b")))

    def encode(self, frames: Tensor) -> Tensor:
        x = rearrange(frames * 2 - 1, "f (h p) (w q) c -> f c p q h w", p=8, q=8)
        first = torch.einsum("zn,nhw->zhw", self.e1, rearrange(x[0], "c p q h w -> (c p q) h w"))
        groups = rearrange(x[1:], "(t n) c p q h w -> t (c n p q) h w", n=4)
        later = torch.einsum("zn,tnhw->zthw", self.e4, groups)
        return (torch.cat([first[:, None], later], dim=1) + self.b.view(-1, 1, 1, 1))[None]

    def decode(self, latents: Tensor) -> Tensor:
        z = latents[0] - self.b.view(-1, 1, 1, 1)
        first = torch.einsum("nz,zhw->nhw", self.d1, z[:, 0])
        first = rearrange(first, "(c p q) h w -> 1 (h p) (w q) c", p=8, q=8, c=3)
        later = torch.einsum("nz,zthw->tnhw", self.d4, z[:, 1:])
        later = rearrange(later, "t (c n p q) h w -> (t n) (h p) (w q) c", n=4, p=8, q=8, c=3)
        return torch.cat([first, later]).clamp(-1, 1) / 2 + 0.5


@dataclass
class ReferenceModels:
    """What the run asks for; keeps each chunk's conditioning and result for comparison."""

    backbone: WanBackbone
    adapter: AudioAdapter
    codec: LinearCodec
    clip_p: Tensor
    clip_w: Tensor
    text: Tensor
    negative: Tensor
    sigmas: Tensor
    guidance: Guidance
    seen: list[tuple[ChunkConditioning, Tensor]] = field(default_factory=list)

    def encode(self, frames: Tensor) -> Tensor:
        return self.codec.encode(frames)

    def decode(self, latents: Tensor) -> Tensor:
        return self.codec.decode(latents)

    def encode_image(self, picture: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d((picture * 2 - 1).permute(2, 0, 1), (2, 2))
        return self.clip_p[None] + (small.reshape(1, 12) @ self.clip_w)[:, None]

    def denoise(self, c: ChunkConditioning, after_step) -> Tensor:
        speech = self.adapter.speech_tokens(c.audio_windows, c.masks)
        silence = self.adapter.silence(c.audio_windows)
        combine = guided(self.guidance)

        def predict(x: Tensor, sigma: Tensor, branch: Branch) -> Tensor:
            text = self.text if branch.uses_text else self.negative
            heard = speech if branch.uses_audio else silence
            z = model_input(x, c.mask, c.reference)
            t = (sigma * 1000).reshape(1)
            return self.backbone(z, t, text[None], c.clip, self.adapter, [heard])

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return combine({b: predict(x, sigma, b) for b in self.guidance.branches})

        latents = euler(velocity, c.noise, self.sigmas, c.context, after_step)
        self.seen.append((c, latents))
        return latents

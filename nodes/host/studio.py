"""The engine's `Models` on ComfyUI's VAE, CLIP vision and MODEL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.samplers
import node_helpers
import torch
from torch import Tensor

from ...infinitetalk_core.chunks.conditioning import ChunkConditioning
from ...infinitetalk_core.chunks.dub import AfterStep
from ...infinitetalk_core.chunks.plan import Chunk
from ...infinitetalk_core.clip_image import clip_pixels
from ...infinitetalk_core.errors import InputError
from ...infinitetalk_core.sampling.euler import pin
from ...infinitetalk_core.sampling.guidance import Guidance
from ...infinitetalk_core.sampling.sdedit import start_at
from .adapter import check_backbone
from .guider import SpeechGuider
from .patchers import Patcher
from .uni3c import CameraControl

CLIP_TOKENS = (257, 1280)


@dataclass(frozen=True)
class Studio:
    """The models of one run. Latents are the VAE's own, as everywhere in ComfyUI."""

    model: Patcher
    vae: Any
    clip_vision: Any | None
    positive: list
    negative: list
    guidance: Guidance
    sampler: Any
    sigmas: Tensor
    seed_of: Callable[[Chunk], int]
    camera: CameraControl | None = None

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (F, H, W, 3) → latents (1, 16, T, h, w)."""
        return self.vae.encode(frames)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (1, 16, T, h, w) → frames (F, H, W, 3) on the CPU."""
        frames = self.vae.decode(latents)[0].float().cpu()
        if not torch.isfinite(frames).all():
            raise RuntimeError(
                "the VAE gave not-a-number, which would be black frames; start ComfyUI with --fp32-vae or --bf16-vae, "
                "or download wan_2.1_vae.safetensors again"
            )
        return frames

    def see(self, picture: Tensor) -> Any | None:
        """CLIP tokens of a picture (H, W, 3), preprocessed as in training: ComfyUI's own way crops or antialiases."""
        vision = self.clip_vision
        if vision is None:
            return None
        comfy.model_management.load_model_gpu(vision.patcher)
        pixels = clip_pixels(
            picture.to(vision.load_device), vision.image_size, tuple(vision.image_mean), tuple(vision.image_std)
        )
        tokens = vision.model(pixel_values=pixels, intermediate_output=-2)[1]
        if tuple(tokens.shape[1:]) != CLIP_TOKENS:
            raise InputError(
                f"this CLIP vision model gives tokens {tuple(tokens.shape[1:])}, and Wan 2.1 takes {CLIP_TOKENS}; "
                "load clip_vision_h.safetensors"
            )
        seen = comfy.clip_vision.Output()
        seen["penultimate_hidden_states"] = tokens.to(comfy.model_management.intermediate_device())
        return seen

    def denoise(self, conditioning: ChunkConditioning, after_step: AfterStep) -> Tensor:
        """The latents (1, 16, T, h, w) of one chunk."""
        guider = SpeechGuider(self.model, self.guidance, conditioning, self.camera)
        guider.set_branches(_on_reference(self.positive, conditioning), _on_reference(self.negative, conditioning))
        source = conditioning.source
        latents = guider.sample(
            conditioning.noise,
            torch.zeros_like(conditioning.noise) if source is None else source,
            self.sampler,
            start_at(self.sigmas, conditioning.strength),
            denoise_mask=conditioning.free,
            callback=lambda step, clean, x, steps: after_step(step, clean),
            disable_pbar=True,
            seed=self.seed_of(conditioning.chunk) % 2**64,
        )
        if not torch.isfinite(latents).all():
            raise RuntimeError(
                f"chunk {conditioning.chunk.index + 1} came out as not-a-number. Usual reasons are an attention "
                "backend in low precision (start ComfyUI without --use-sage-attention and without --fast) or a "
                "damaged model file"
            )
        # Not every sampler ends exactly on its last estimate.
        return pin(latents, conditioning.context)


def no_text(model: Patcher) -> list:
    """The conditioning that stands for an empty prompt: zeros, which is what ComfyUI pads prompts with."""
    backbone = check_backbone(model)
    return [[torch.zeros(1, backbone.text_len, backbone.text_dim), {}]]


def check_vae(vae: Any) -> None:
    """Refuse a VAE whose latents are not Wan 2.1's: 16 channels, video."""
    if getattr(vae, "latent_dim", 2) != 3 or getattr(vae, "latent_channels", 4) != 16:
        raise InputError(
            f"this VAE has {getattr(vae, 'latent_channels', '?')} latent channels"
            f"{'' if getattr(vae, 'latent_dim', 2) == 3 else ' and is for pictures'}; "
            "load wan_2.1_vae.safetensors"
        )


def _on_reference(conditioning: list, chunk: ChunkConditioning) -> list:
    """`conditioning` with the chunk's z₂, m and CLIP tokens, under the names of ComfyUI's Wan models."""
    values: dict[str, Any] = {
        "concat_latent_image": chunk.reference,
        # ComfyUI's mask says what is to be made: the opposite of m.
        "concat_mask": 1 - chunk.mask,
    }
    if chunk.picture is not None:
        values["clip_vision_output"] = chunk.picture
    return node_helpers.conditioning_set_values(conditioning, values)

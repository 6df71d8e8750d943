"""The engine's `Models` on ComfyUI's VAE, CLIP vision and MODEL."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.samplers
import node_helpers
import torch
from torch import Tensor

from ...infinitetalk_core.chunks.camera import CameraControl
from ...infinitetalk_core.chunks.conditioning import ChunkConditioning
from ...infinitetalk_core.chunks.dub import AfterStep
from ...infinitetalk_core.clip_image import clip_pixels
from ...infinitetalk_core.errors import InputError
from ...infinitetalk_core.model.kernels import is_broken
from ...infinitetalk_core.sampling.euler import pin
from ...infinitetalk_core.sampling.guidance import Guidance
from ...infinitetalk_core.sampling.sdedit import start_at
from .adapter import check_backbone
from .attention import attention_in_use, can_be_replaced, with_plain_attention
from .guider import SpeechGuider
from .memory import MemoryMargin, retry_on_oom
from .patchers import Patcher

log = logging.getLogger("infinitetalk")
CLIP_TOKENS = (257, 1280)


@dataclass(frozen=True)
class ComfyBackend:
    """The models of one run. Latents are the VAE's own, as everywhere in ComfyUI."""

    model: Patcher
    vae: Any
    clip_vision: Any | None
    positive: list
    negative: list
    guidance: Guidance
    sampler: Any
    sigmas: Tensor
    camera: CameraControl | None = None
    room: MemoryMargin = field(default_factory=MemoryMargin)

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

    def encode_image(self, picture: Tensor) -> Any | None:
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
        """The latents (1, 16, T, h, w) of one chunk.

        Where memory does not suffice, it is made again with more of the weights in RAM.
        """
        make = partial(self._denoise, conditioning, after_step)
        latents = retry_on_oom(make, self.model, self.room, conditioning.noise.shape)
        # Not every sampler ends exactly on its last estimate.
        return pin(latents, conditioning.context)

    def _denoise(self, conditioning: ChunkConditioning, after_step: AfterStep, model: Patcher) -> Tensor:
        """Where a low-precision attention that nobody chose here spoils it, it is made again with PyTorch's own: seen
        after the first step, so little is lost.
        """
        try:
            return self._sample(model, conditioning, after_step, can_be_replaced(model))
        except SpoiledError as spoiled:
            log.warning(
                "InfiniteTalk: %s; making the chunk again with PyTorch's own attention. Choose attention 'sdpa' in the "
                "InfiniteTalk Model Loader to save the time",
                spoiled,
            )
        return self._sample(with_plain_attention(model), conditioning, after_step, False)

    def _sample(self, model: Patcher, conditioning: ChunkConditioning, after_step: AfterStep, guarded: bool) -> Tensor:
        """One pass of the sampler; guarded: SpoiledError as soon as it is seen that nothing will come of it."""
        guider = SpeechGuider(model, self.guidance, conditioning, self.camera)
        held = conditioning.context.shape[2]
        what = f"chunk {conditioning.chunk.index + 1} came out black or as not-a-number with {attention_in_use(model)}"

        def watch(step: int, clean: Tensor, x: Tensor, steps: int) -> None:
            if step == 0:
                _judge(clean, held, guarded, what)
            after_step(step, clean)

        guider.set_branches(_on_reference(self.positive, conditioning), _on_reference(self.negative, conditioning))
        source = conditioning.source
        latents = guider.sample(
            conditioning.noise,
            torch.zeros_like(conditioning.noise) if source is None else source,
            self.sampler,
            start_at(self.sigmas, conditioning.strength),
            denoise_mask=conditioning.free,
            callback=watch,
            disable_pbar=True,
            seed=conditioning.seed,
        )
        _judge(latents, held, guarded, what)
        return latents


def _judge(latents: Tensor, held: int, guarded: bool, what: str) -> None:
    """Say so if the latents are spoiled; `what` is that sentence. A flat picture may be meant, so it is kept unless
    it can be made again."""
    if not is_broken(latents, held):
        return
    if guarded:
        raise SpoiledError(what)
    if not torch.isfinite(latents).all():
        raise RuntimeError(
            f"{what}; choose another attention in the InfiniteTalk Model Loader (sdpa is the safest), start ComfyUI "
            "without --fast, or download the model again, which may be damaged"
        )
    log.warning("InfiniteTalk: %s; if the video should not be black there, choose attention 'sdpa'", what)


class SpoiledError(Exception):
    """The attention of a pass has broken the picture."""


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

"""The engine's `Models`, implemented with ComfyUI's VAE, CLIP vision and MODEL."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.samplers
import torch
from torch import Tensor

from ....infinitetalk_core.chunks.camera_control import CameraControl
from ....infinitetalk_core.chunks.conditioning import ChunkConditioning
from ....infinitetalk_core.chunks.dub import AfterStep
from ....infinitetalk_core.clip_image import clip_pixels
from ....infinitetalk_core.errors import InputError, RunError
from ....infinitetalk_core.log import log
from ....infinitetalk_core.model.attention_trial import cause_of
from ....infinitetalk_core.model.kernels import is_broken
from ....infinitetalk_core.runs.weights_on_gpu import WeightsOnGpu
from ....infinitetalk_core.sampling.euler import pin
from ....infinitetalk_core.sampling.guidance import Guidance
from ....infinitetalk_core.sampling.sdedit import start_at
from ..messages import warn
from ..model.attention import AttentionFallback, attention_in_use, can_be_replaced, may_fail, with_plain_attention
from ..model.memory import MemoryMargin, is_out_of_memory, retry_on_oom, retry_unloaded
from ..model.patchers import Patcher
from .conditioning import chunk_conditioning
from .guider import SpeechGuider

CLIP_TOKENS = (257, 1280)
# Errors that no other attention cures.
NOT_THE_ATTENTION = (InputError, RunError, comfy.model_management.InterruptProcessingException)
ENCODE_TILE, DECODE_TILE = 256, 32  # pixels and latent positions, as in ComfyUI's own fallback


@dataclass(frozen=True)
class ComfyBackend:
    """The models of one run. Latents are in the VAE's scale, as everywhere in ComfyUI."""

    model: Patcher
    vae: Any
    clip_vision: Any | None
    positive: list
    negative: list
    guidance: Guidance
    sampler: Any
    sigmas: Tensor
    camera: CameraControl | None = None
    margin: MemoryMargin = field(default_factory=MemoryMargin)
    fallback: AttentionFallback = field(default_factory=AttentionFallback)
    weights: dict[int, tuple[WeightsOnGpu, ...]] = field(default_factory=dict)  # by chunk, until it is asked for

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (F, H, W, 3) to latents (1, 16, T, h, w)."""
        vae, tiles = self.vae, _tiles(ENCODE_TILE)
        return retry_unloaded(lambda: vae.encode(frames), lambda: vae.encode_tiled(frames, **tiles), "in tiles")

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (1, 16, T, h, w) to frames (F, H, W, 3) on the CPU. Raises RuntimeError for NaN or inf."""
        vae, tiles = self.vae, _tiles(DECODE_TILE)
        decoded = retry_unloaded(lambda: vae.decode(latents), lambda: vae.decode_tiled(latents, **tiles), "in tiles")
        frames = decoded[0]
        # On the device where they are, and in one pass: `isfinite` makes a second tensor of their size.
        if not torch.isfinite(torch.stack(frames.aminmax())).all():
            raise RuntimeError(
                "the VAE gave not-a-number, which would be black frames; start ComfyUI with --fp32-vae or --bf16-vae, "
                "or download wan_2.1_vae.safetensors again"
            )
        return frames.float().cpu()

    def encode_image(self, picture: Tensor) -> Any | None:
        """Encode a picture (H, W, 3) to ComfyUI's CLIP vision output, tokens (1, 257, 1280); None without a model.

        Preprocesses as in training, since ComfyUI's own preprocessing crops or antialiases. Raises InputError for a
        model whose tokens have another shape.
        """
        vision = self.clip_vision
        if vision is None:
            return None
        see = partial(_clip_tokens, vision, picture)
        tokens = retry_unloaded(see, see, "alone")
        if tuple(tokens.shape[1:]) != CLIP_TOKENS:
            raise InputError(
                f"this CLIP vision model gives tokens {tuple(tokens.shape[1:])}, and Wan 2.1 takes {CLIP_TOKENS}; "
                "load clip_vision_h.safetensors"
            )
        output = comfy.clip_vision.Output()
        output["penultimate_hidden_states"] = tokens.to(comfy.model_management.intermediate_device())
        return output

    def denoise(self, conditioning: ChunkConditioning, after_step: AfterStep) -> Tensor:
        """Return the denoised latents (1, 16, T, h, w) of one chunk.

        If the GPU runs out of memory, the chunk is made again with more of the weights in RAM.
        """
        make = partial(self._denoise, conditioning, after_step)
        latents = retry_on_oom(make, self.model, self.margin, conditioning.noise.shape)
        # Not every sampler ends exactly on its last denoised estimate, so restore the context latents.
        return pin(latents, conditioning.context)

    def _denoise(self, conditioning: ChunkConditioning, after_step: AfterStep, model: Patcher) -> Tensor:
        """Sample one chunk; if its attention fails or gives broken latents, sample again with PyTorch's.

        Only where our node did not set the attention backend (`can_be_replaced`). Both show in the first step, so
        little time is lost, and only once in a job: later chunks are made with PyTorch's attention from the start.
        """
        index = conditioning.chunk.index
        if not can_be_replaced(model):
            return self._sample(model, conditioning, after_step, False)
        if not self.fallback.covers(index):
            steps: list[int] = []

            def counting(step: int, denoised: Tensor) -> None:
                steps.append(step)
                after_step(step, denoised)

            try:
                return self._sample(model, conditioning, counting, True)
            except SpoiledError as error:
                reason = str(error)
            except Exception as error:
                elsewhere = bool(steps) or isinstance(error, NOT_THE_ATTENTION) or is_out_of_memory(error)
                if elsewhere or not may_fail(model):
                    raise
                reason = f"chunk {index + 1} failed at once with {attention_in_use(model)} ({cause_of(error)})"
            # After the except block, since the exception keeps the tensors of the attempt alive.
            log.warning("%s; making it again with PyTorch's own attention", reason)
        plain = with_plain_attention(model)
        latents = self._sample(plain, conditioning, after_step, False)
        # A picture that is flat with PyTorch's attention too is meant to be flat, and is no fault of the other.
        if not self.fallback.covers(index) and not is_broken(latents, conditioning.context.shape[2]):
            self.fallback.remember(index)
            warn(
                f"PyTorch's own attention makes the rest of this job, since {attention_in_use(model)} spoiled chunk "
                f"{index + 1}; to save that time choose attention 'sdpa' in the InfiniteTalk Model Loader"
            )
        return latents

    def _sample(
        self, model: Patcher, conditioning: ChunkConditioning, after_step: AfterStep, can_retry: bool
    ) -> Tensor:
        """Run the sampler once. can_retry: raise SpoiledError as soon as the latents are found broken."""
        guider = SpeechGuider(model, self.guidance, conditioning, self.camera)
        context_length = conditioning.context.shape[2]
        text = f"chunk {conditioning.chunk.index + 1} came out black or as not-a-number with {attention_in_use(model)}"

        def callback(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
            if step == 0:
                _check_latents(denoised, context_length, can_retry, text)
            after_step(step, denoised)

        guider.set_branches(
            chunk_conditioning(self.positive, conditioning), chunk_conditioning(self.negative, conditioning)
        )
        source = conditioning.source
        latents = guider.sample(
            conditioning.noise,
            torch.zeros_like(conditioning.noise) if source is None else source,
            self.sampler,
            start_at(self.sigmas, conditioning.strength).clone(),  # uni_pc writes into them
            denoise_mask=conditioning.denoise_mask,
            callback=callback,
            disable_pbar=True,
            seed=conditioning.seed,
        )
        _check_latents(latents, context_length, can_retry, text)
        self.weights[conditioning.chunk.index] = guider.weights
        return latents

    def weights_of(self, chunk: int) -> tuple[WeightsOnGpu, ...]:
        """Return where the weights were when a chunk was made (see `NotesWeights`); once, then it is forgotten."""
        return self.weights.pop(chunk, ())


def _tiles(size: int) -> dict[str, int]:
    return {"tile_x": size, "tile_y": size, "overlap": size // 4}


def _clip_tokens(vision: Any, picture: Tensor) -> Tensor:
    comfy.model_management.load_model_gpu(vision.patcher)
    pixels = clip_pixels(
        picture.to(vision.load_device), vision.image_size, tuple(vision.image_mean), tuple(vision.image_std)
    )
    return vision.model(pixel_values=pixels, intermediate_output=-2)[1]


def _check_latents(latents: Tensor, context_length: int, can_retry: bool, message: str) -> None:
    """Raise or log `message` if the latents are broken.

    With can_retry raises SpoiledError; else RuntimeError for NaN or infinity, and a warning for a flat picture, which
    may be intended.
    """
    if not is_broken(latents, context_length):
        return
    if can_retry:
        raise SpoiledError(message)
    if not torch.isfinite(latents).all():
        raise RuntimeError(
            f"{message}; choose another attention in the InfiniteTalk Model Loader (sdpa is the safest), start ComfyUI "
            "without --fast, or download the model again, which may be damaged"
        )
    log.warning("%s; if the video should not be black there, choose attention 'sdpa'", message)


class SpoiledError(Exception):
    """The latents of a sampling pass are broken, probably by its attention backend."""


def check_vae(vae: Any) -> None:
    """Raise InputError for a VAE whose latents are not Wan 2.1's: 16 channels, video."""
    if getattr(vae, "latent_dim", 2) != 3 or getattr(vae, "latent_channels", 4) != 16:
        raise InputError(
            f"this VAE has {getattr(vae, 'latent_channels', '?')} latent channels"
            f"{'' if getattr(vae, 'latent_dim', 2) == 3 else ' and is for pictures'}; "
            "load wan_2.1_vae.safetensors"
        )

"""Guider that denoises one chunk with ComfyUI's sampling: any SAMPLER, SIGMAS, LoRA, quantisation or offloading."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ....infinitetalk_core.chunks.camera_control import CameraControl
from ....infinitetalk_core.chunks.conditioning import ChunkConditioning
from ....infinitetalk_core.sampling.euler import pin
from ....infinitetalk_core.sampling.guidance import Guidance, guided
from ..model.audio_adapter import KEY, SpeechCall, adapter_of
from ..model.cached_blocks import ChunkCache, step_caching_of
from ..model.patchers import Patcher
from ..model.uni3c import KEY as CAMERA_KEY
from ..model.uni3c import camera_steps


class SpeechGuider(comfy.samplers.CFGGuider):
    """CFGGuider with text and speech guidance that keeps the context latents noise-free.

    The guidance branches are ComfyUI conditionings, so that ComfyUI batches them when memory allows.
    """

    def __init__(
        self, model: Patcher, guidance: Guidance, chunk: ChunkConditioning, camera: CameraControl | None = None
    ):
        super().__init__(model)
        self.guidance = guidance
        self.chunk = chunk
        self.camera = camera
        self.step_cache: ChunkCache | None = None

    def set_branches(self, positive: list, negative: list) -> None:
        """Set one conditioning per active guidance branch, from the positive and the negative one."""
        self.inner_set_conds({b.name: positive if b.uses_text else negative for b in self.guidance.branches})

    def inner_sample(self, noise: Tensor, latent_image: Tensor, device: torch.device, *args: Any, **kw: Any):
        """Sample, with the models on the device. What is the same in every step is computed here."""
        adapter = adapter_of(self.model_patcher)
        windows = self.chunk.windows.to(device)
        masks = None if self.chunk.masks is None else self.chunk.masks.to(device)
        speech = adapter.speech_tokens(windows, masks)
        silence = adapter.silence(windows)
        branch_speech = tuple(speech if b.uses_audio else silence for b in self.guidance.branches)
        self.call = SpeechCall(adapter, branch_speech, self.model_patcher.get_attachment(KEY))
        self.context = self.inner_model.process_latent_in(self.chunk.context.to(device))
        self.combine = guided(self.guidance)
        if self.camera is not None and self.chunk.camera is not None:
            (uni3c,) = self.model_patcher.get_additional_models_with_key(CAMERA_KEY)
            self.camera_step = camera_steps(
                self.camera, uni3c.model, self.chunk.camera, self.inner_model, device, len(branch_speech)
            )
        caching = step_caching_of(self.model_patcher)
        if caching is None:
            return super().inner_sample(noise, latent_image, device, *args, **kw)
        self.step_cache = ChunkCache(caching, self.inner_model)
        try:
            return super().inner_sample(noise, latent_image, device, *args, **kw)
        finally:
            self.step_cache.close(self.chunk.chunk.index)

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: int | None = None):
        """Return the guided denoised latents (1, 16, T, h, w)."""
        options = model_options or {}
        transformer_options = options.get("transformer_options", {})
        call = self.call
        if self.camera is not None and self.camera.acts_at(
            float(timestep.flatten()[0]), transformer_options["sample_sigmas"]
        ):
            call = replace(call, camera=self.camera_step())
        if self.step_cache is not None:
            call = replace(call, cached=self.step_cache.begin(timestep, call.camera is not None))
        transformer_options = {**transformer_options, KEY: call}
        x = pin(x, self.context)
        branches = self.guidance.branches
        denoised = comfy.samplers.calc_cond_batch(  # one per branch
            self.inner_model,
            [self.conds[b.name] for b in branches],
            x,
            timestep,
            {**options, "transformer_options": transformer_options},
        )
        # Guidance is defined on velocities, and ComfyUI returns denoised latents: v = (x - denoised) / sigma.
        sigma = timestep.view(-1, 1, 1, 1, 1).to(x)
        velocity = self.combine({b: (x - d) / sigma for b, d in zip(branches, denoised, strict=True)})
        guided_denoised = self._apply_post_cfg(x - sigma * velocity, denoised, x, timestep, options)
        return pin(guided_denoised, self.context)

    def _apply_post_cfg(
        self, guided_denoised: Tensor, denoised: list[Tensor], x: Tensor, timestep: Tensor, options: dict[str, Any]
    ) -> Tensor:
        """Apply the post-CFG functions of other nodes and some samplers (CFG++), with ComfyUI's arguments."""
        first, last = (self.conds[b.name] for b in (self.guidance.branches[0], self.guidance.branches[-1]))
        for function in options.get("sampler_post_cfg_function", []):
            guided_denoised = function(
                {
                    "denoised": guided_denoised,
                    "cond": first,
                    "uncond": last,
                    "cond_denoised": denoised[0],
                    "uncond_denoised": denoised[-1],
                    "cond_scale": self.guidance.text_scale,
                    "model": self.inner_model,
                    "sigma": timestep,
                    "model_options": options,
                    "input": x,
                }
            )
        return guided_denoised

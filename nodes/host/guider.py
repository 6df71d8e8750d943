"""Denoising of one chunk by ComfyUI's own sampling: any SAMPLER, SIGMAS, LoRA, quantisation or offloading."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...infinitetalk_core.chunks.camera import CameraControl
from ...infinitetalk_core.chunks.conditioning import ChunkConditioning
from ...infinitetalk_core.sampling.euler import pin
from ...infinitetalk_core.sampling.guidance import Guidance, guided
from .adapter import KEY, SpeechCall, adapter_of
from .patchers import Patcher
from .step_cache import ChunkCache, step_caching_of
from .uni3c import KEY as CAMERA_KEY
from .uni3c import camera_steps


class SpeechGuider(comfy.samplers.CFGGuider):
    """Guidance by text and speech, with the context latents held clean.

    The branches go to the model as ComfyUI conditionings, so that it batches them when memory allows.
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
        """The conditionings of the branches that count, made from the two that a user connects."""
        self.inner_set_conds({b.name: positive if b.uses_text else negative for b in self.guidance.branches})

    def inner_sample(self, noise: Tensor, latent_image: Tensor, device: torch.device, *args: Any, **kw: Any):
        """Sample; the models are on the device by now. What stays the same in every step is computed here."""
        adapter = adapter_of(self.model_patcher)
        windows = self.chunk.windows.to(device)
        masks = None if self.chunk.masks is None else self.chunk.masks.to(device)
        speech = adapter.speech_tokens(windows, masks)
        silence = adapter.silence(windows)
        heard = tuple(speech if b.uses_audio else silence for b in self.guidance.branches)
        self.call = SpeechCall(adapter, heard, self.model_patcher.get_attachment(KEY))
        self.context = self.inner_model.process_latent_in(self.chunk.context.to(device))
        self.combine = guided(self.guidance)
        if self.camera is not None and self.chunk.camera is not None:
            (uni3c,) = self.model_patcher.get_additional_models_with_key(CAMERA_KEY)
            self.camera_step = camera_steps(
                self.camera, uni3c.model, self.chunk.camera, self.inner_model, device, len(heard)
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
        """The guided estimate of the clean latents (1, 16, T, h, w)."""
        options = model_options or {}
        transformer_options = options.get("transformer_options", {})
        call = self.call
        if self.camera is not None and self.camera.acts_at(
            float(timestep.flatten()[0]), transformer_options["sample_sigmas"]
        ):
            call = replace(call, camera=self.camera_step())
        if self.step_cache is not None:
            call = replace(call, cached=self.step_cache.begin(timestep, call.camera is not None))
        heard = {**transformer_options, KEY: call}
        x = pin(x, self.context)
        branches = self.guidance.branches
        clean = comfy.samplers.calc_cond_batch(
            self.inner_model,
            [self.conds[b.name] for b in branches],
            x,
            timestep,
            {**options, "transformer_options": heard},
        )
        # Guidance is defined on velocities; ComfyUI speaks of clean estimates: v = (x - clean) / sigma.
        sigma = timestep.view(-1, 1, 1, 1, 1).to(x)
        velocity = self.combine({b: (x - c) / sigma for b, c in zip(branches, clean, strict=True)})
        guided_clean = self._after_guidance(x - sigma * velocity, clean, x, timestep, options)
        return pin(guided_clean, self.context)

    def _after_guidance(
        self, guided_clean: Tensor, clean: list[Tensor], x: Tensor, timestep: Tensor, options: dict[str, Any]
    ) -> Tensor:
        """What other nodes and some samplers (CFG++) do after guidance, with the arguments of ComfyUI's own."""
        first, last = (self.conds[b.name] for b in (self.guidance.branches[0], self.guidance.branches[-1]))
        for function in options.get("sampler_post_cfg_function", []):
            guided_clean = function(
                {
                    "denoised": guided_clean,
                    "cond": first,
                    "uncond": last,
                    "cond_denoised": clean[0],
                    "uncond_denoised": clean[-1],
                    "cond_scale": self.guidance.text_scale,
                    "model": self.inner_model,
                    "sigma": timestep,
                    "model_options": options,
                    "input": x,
                }
            )
        return guided_clean

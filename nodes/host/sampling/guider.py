"""Guider that denoises one chunk with ComfyUI's sampling: any SAMPLER, SIGMAS, LoRA, quantization or offloading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ....infinitetalk_core.chunks.camera_control import CameraControl
from ....infinitetalk_core.chunks.conditioning import ChunkConditioning
from ....infinitetalk_core.log import log
from ....infinitetalk_core.model.exact_float32 import exact_float32
from ....infinitetalk_core.sampling.euler import pin
from ....infinitetalk_core.sampling.guidance import Branch, Guidance, guided
from ....infinitetalk_core.sampling.step_cache import StepCache
from ..model.audio_adapter import adapter_of
from ..model.cached_blocks import step_caching_of, time_modulation
from ..model.patchers import Patcher
from ..model.uni3c import KEY as CAMERA_KEY
from ..model.uni3c_step import Uni3CStep, uni3c_steps
from ..model.wan_wrappers import KEY, SpeechCall


@dataclass(frozen=True)
class ChunkInputs:
    """What is the same in every step of a chunk, on the device.

    context: clean context latents in the model's scale. combine: velocities by branch -> the guided velocity.
    new_uni3c_step: creates Uni3C's state for a step; None without camera control. cache: None without step caching.
    """

    call: SpeechCall
    context: Tensor
    combine: Callable[[dict[Branch, Tensor]], Tensor]
    new_uni3c_step: Callable[[], Uni3CStep] | None
    cache: StepCache | None


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
        self.inputs: ChunkInputs | None = None  # set while the sampler runs

    def set_branches(self, positive: list, negative: list) -> None:
        """Set one conditioning per active guidance branch, from the positive and the negative one."""
        self.inner_set_conds({b.name: positive if b.uses_text else negative for b in self.guidance.branches})

    def inner_sample(self, noise: Tensor, latent_image: Tensor, device: torch.device, *args: Any, **kw: Any):
        """Sample, with the models on the device."""
        self.inputs = self._chunk_inputs(device)
        cache = self.inputs.cache
        try:
            return super().inner_sample(noise, latent_image, device, *args, **kw)
        finally:
            self.inputs = None
            if cache is not None:
                log.info("chunk %d: %s", self.chunk.chunk.index + 1, cache.summary())
                cache.clear()

    @exact_float32()  # audio and view tokens
    def _chunk_inputs(self, device: torch.device) -> ChunkInputs:
        """Compute what is the same in every step."""
        chunk, model = self.chunk, self.inner_model
        adapter = adapter_of(self.model_patcher)
        windows = chunk.audio_windows.to(device)
        speech = adapter.speech_tokens(windows, None if chunk.masks is None else chunk.masks.to(device))
        silence = adapter.silence(windows)
        branch_speech = tuple(speech if b.uses_audio else silence for b in self.guidance.branches)
        new_uni3c_step = None
        if self.camera is not None and chunk.camera is not None:
            (uni3c,) = self.model_patcher.get_additional_models_with_key(CAMERA_KEY)
            new_uni3c_step = uni3c_steps(self.camera, uni3c.model, chunk.camera, model, device, len(branch_speech))
        caching = step_caching_of(self.model_patcher)
        return ChunkInputs(
            call=SpeechCall(adapter, branch_speech, self.model_patcher.get_attachment(KEY)),
            context=model.process_latent_in(chunk.context.to(device)),
            combine=guided(self.guidance),
            new_uni3c_step=new_uni3c_step,
            cache=None if caching is None else StepCache(caching),
        )

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: int | None = None):
        """Return the guided denoised latents (1, 16, T, h, w)."""
        assert self.inputs is not None
        inputs, call = self.inputs, self.inputs.call
        options = model_options or {}
        transformer_options = options.get("transformer_options", {})
        if self._camera_acts(timestep, transformer_options) and inputs.new_uni3c_step is not None:
            call = replace(call, camera=inputs.new_uni3c_step())
        if inputs.cache is not None:
            modulation = time_modulation(self.inner_model, timestep)
            call = replace(call, cached=inputs.cache.begin(modulation, call.camera is not None))
        transformer_options = {**transformer_options, KEY: call}
        x = pin(x, inputs.context)
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
        velocity = inputs.combine({b: (x - d) / sigma for b, d in zip(branches, denoised, strict=True)})
        guided_denoised = self._apply_post_cfg(x - sigma * velocity, denoised, x, timestep, options)
        return pin(guided_denoised, inputs.context)

    def _camera_acts(self, timestep: Tensor, transformer_options: dict[str, Any]) -> bool:
        camera = self.camera
        return camera is not None and camera.acts_at(float(timestep.flatten()[0]), transformer_options["sample_sigmas"])

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

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
from ....infinitetalk_core.model.audio_cross_attention import SpeechTokens
from ....infinitetalk_core.model.exact_float32 import exact_float32
from ....infinitetalk_core.runs.weights_on_gpu import WeightsOnGpu
from ....infinitetalk_core.sampling.euler import pin
from ....infinitetalk_core.sampling.guidance import Branch, Guidance, guided
from ....infinitetalk_core.sampling.step_cache import CachedStep, StepCache
from ..model.audio_adapter import adapter_of
from ..model.cached_blocks import step_caching_of, time_modulation
from ..model.foreign_caches import nothing_carried_over
from ..model.patchers import Patcher
from ..model.uni3c import KEY as CAMERA_KEY
from ..model.uni3c_step import Uni3CStep, uni3c_steps
from ..model.wan_wrappers import KEY, SpeechCall
from ..model.weights_on_gpu import weights_on_gpu


@dataclass(frozen=True)
class ChunkInputs:
    """What is the same in every step of a chunk, on `device`.

    calls: by device; more than one where ComfyUI divides the branches among GPUs. context: clean context latents in the
    model's scale. combine: velocities by branch -> the guided velocity. new_uni3c_steps: create Uni3C's state for a
    step, by device; empty without camera control. cache: None without step caching.
    """

    device: torch.device
    calls: dict[torch.device, SpeechCall]
    context: Tensor
    combine: Callable[[dict[Branch, Tensor]], Tensor]
    new_uni3c_steps: dict[torch.device, Callable[[], Uni3CStep]]
    cache: StepCache | None

    def call_of_step(self, camera: bool, cached: CachedStep | None) -> SpeechCall:
        """Return the call of one step, with those on other devices as its copies."""
        calls = {
            where: replace(call, cached=cached, camera=self.new_uni3c_steps[where]() if camera else None)
            for where, call in self.calls.items()
        }
        return replace(calls.pop(self.device), copies=calls)


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
        self.weights: tuple[WeightsOnGpu, ...] = ()  # set when the sampler has ended

    def set_branches(self, positive: list, negative: list) -> None:
        """Set one conditioning per active guidance branch, from the positive and the negative one."""
        self.inner_set_conds({b.name: positive if b.uses_text else negative for b in self.guidance.branches})

    def inner_sample(self, noise: Tensor, latent_image: Tensor, device: torch.device, *args: Any, **kw: Any):
        """Sample, with the models on the device."""
        self.inputs = self._chunk_inputs(device)
        cache = self.inputs.cache
        try:
            with nothing_carried_over(patcher.model.diffusion_model for patcher in self._models(device).values()):
                latents = super().inner_sample(noise, latent_image, device, *args, **kw)
            self.weights = weights_on_gpu(self.model_patcher)
            return latents
        finally:
            self.inputs = None
            if cache is not None:
                log.info("chunk %d: %s", self.chunk.chunk.index + 1, cache.summary())
                cache.clear()

    def _models(self, device: torch.device) -> dict[torch.device, Patcher]:
        """Return ComfyUI's MODELs by device: this one on `device`, and those on other GPUs."""
        return {**self.model_options.get("multigpu_clones", {}), device: self.model_patcher}

    @exact_float32()  # audio and view tokens
    def _chunk_inputs(self, device: torch.device) -> ChunkInputs:
        """Compute what is the same in every step."""
        chunk, model = self.chunk, self.inner_model
        adapter = adapter_of(self.model_patcher)
        windows = chunk.audio_windows.to(device)
        speech = adapter.speech_tokens(windows, None if chunk.masks is None else chunk.masks.to(device))
        silence = adapter.silence(windows)
        branch_speech = tuple(speech if b.uses_audio else silence for b in self.guidance.branches)
        strength = self.model_patcher.get_attachment(KEY)
        models = self._models(device)
        calls = {
            where: SpeechCall(adapter_of(patcher), tuple(_moved(tokens, where) for tokens in branch_speech), strength)
            for where, patcher in models.items()
        }
        new_uni3c_steps = {}
        if self.camera is not None and chunk.camera is not None:
            branches = -(-len(branch_speech) // len(models))
            for where, patcher in models.items():
                (uni3c,) = patcher.get_additional_models_with_key(CAMERA_KEY)
                new_uni3c_steps[where] = uni3c_steps(
                    self.camera, uni3c.model, chunk.camera, patcher.model, where, branches
                )
        caching = step_caching_of(self.model_patcher)
        return ChunkInputs(
            device=device,
            calls=calls,
            context=model.process_latent_in(chunk.context.to(device)),
            combine=guided(self.guidance),
            new_uni3c_steps=new_uni3c_steps,
            cache=None if caching is None else StepCache(caching),
        )

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: int | None = None):
        """Return the guided denoised latents (1, 16, T, h, w)."""
        assert self.inputs is not None
        inputs, cached = self.inputs, None
        options = model_options or {}
        transformer_options = options.get("transformer_options", {})
        camera = bool(inputs.new_uni3c_steps) and self._camera_acts(timestep, transformer_options)
        branches = self.guidance.branches_at(float(timestep.flatten()[0]), transformer_options["sample_sigmas"])
        if inputs.cache is not None:
            control = (camera, branches)
            cached = inputs.cache.begin(time_modulation(self.inner_model, timestep), control)
        call = inputs.call_of_step(camera, cached)
        transformer_options = {**transformer_options, KEY: call}
        x = pin(x, inputs.context)
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


def _moved(speech: SpeechTokens, device: torch.device) -> SpeechTokens:
    return SpeechTokens(speech.tokens.to(device), None if speech.masks is None else speech.masks.to(device))

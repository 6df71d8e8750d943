"""Sampling with the step cache as the reference caches, for the golden case `teacache`."""

from __future__ import annotations

from math import ceil

import torch
from golden_rows import streams_of
from reference_models import LinearCodec, branches_of_reference, build_dit
from torch import Tensor

from infinitetalk_core.audio.windows import speech_windows
from infinitetalk_core.chunks.conditioning import reference_mask, reference_video
from infinitetalk_core.chunks.sizes import fit_to
from infinitetalk_core.model.wan import Running, model_input
from infinitetalk_core.sampling.euler import euler
from infinitetalk_core.sampling.guidance import Branch, Guidance, guided
from infinitetalk_core.sampling.schedule import shifted_sigmas
from infinitetalk_core.sampling.step_cache import CachedStep, StepCache, StepCaching


class CachedRun:
    """The chunk of a run of the case `teacache`, to be sampled by our loop."""

    def __init__(self, case, row: dict):
        self.case, self.row = case, row
        self.backbone, self.adapter = build_dit(self.case.config["model_config"], self.case.weights)
        self.guidance = Guidance(row["text_guide_scale"], row["audio_guide_scale"])
        self.branches = branches_of_reference(self.guidance)
        self.streams = streams_of(row)
        self.steps: list[CachedStep] = []
        self.calls: list[tuple[float, bool, Tensor]] = []  # drift, skipped, prediction

    def new_cache(self, stream: int = 0) -> StepCache:
        """The cache of a stream; the reference counts the calls that always run, over all streams in turn."""
        first_steps = ceil((self.row["ret_steps"] - stream) / self.streams)
        return StepCache(StepCaching(self.row["threshold"], tuple(self.row["coefficients"]), first_steps))

    def sample(self, cache_of_call) -> Tensor:
        """The latents; `cache_of_call(call number, branch)` gives the cache of a call and how it runs the blocks."""
        inputs, frames = self.case.under("inputs"), self.case.config["frame_num"]
        noise = inputs[f"{self.row['name']}/noise"][None]
        height, width = noise.shape[-2:]
        codec = LinearCodec.of(self.case.under("inputs/mock_vae"))
        picture = fit_to(inputs["source_image"].float() / 255, 8 * height, 8 * width)
        small = torch.nn.functional.adaptive_avg_pool2d((picture * 2 - 1).permute(2, 0, 1), (2, 2))
        clip = inputs["mock_clip/P"][None] + (small.reshape(1, 12) @ inputs["mock_clip/W"])[:, None]
        windows = speech_windows((inputs["audio_emb_1"],), 0, frames, self.case.config["model_config"]["audio_window"])
        speech, silence = self.adapter.speech_tokens(windows), self.adapter.silence(windows)
        mask, z2 = reference_mask(noise.shape[2], height, width), codec.encode(reference_video(picture, frames))
        combine = guided(self.guidance)

        def predict(x: Tensor, sigma: Tensor, branch: Branch) -> Tensor:
            text = inputs["context" if branch.uses_text else "context_null"][None]
            heard = [speech if branch.uses_audio else silence]
            cache, run = cache_of_call(len(self.calls), branch)
            z, t = model_input(x, mask, z2), (sigma * 1000).reshape(1)
            out = self.backbone(z, t, text, clip, self.adapter, heard, running=Running(block_runner=run))
            self.calls.append((cache.drift, self.steps[-1].skips, out))
            return out

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return combine({b: predict(x, sigma, b) for b in self.branches})

        sigmas = shifted_sigmas(self.row["steps"], self.case.config["shift"])
        return euler(velocity, noise, sigmas, codec.encode(picture[None]))

    def sample_by_streams(self) -> Tensor:
        """The latents, with a cache for each stream, which take turns by the number of the call as the reference's do.

        With two predictions a step the reference still counts to three, so that a branch gets another's memory.
        """
        caches = [self.new_cache(stream) for stream in range(self.streams)]

        def cache_of_call(call: int, branch: Branch):
            cache = caches[call % len(caches)]

            def blocks_of(modulation, x, blocks):
                self.steps.append(cache.begin(modulation))
                return self.steps[-1].run([0], x, blocks)

            return cache, blocks_of

        return self.sample(cache_of_call)

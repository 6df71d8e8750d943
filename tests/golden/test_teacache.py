"""Step caching decides and predicts as the reference does, prediction by prediction."""

from __future__ import annotations

import pytest
import torch
from reference_models import LinearCodec, build_dit
from torch import Tensor

from infinitetalk_core.audio.windows import speech_windows
from infinitetalk_core.chunks.conditioning import reference_mask, reference_video
from infinitetalk_core.chunks.sizes import fit_to
from infinitetalk_core.model.wan import Running, model_input
from infinitetalk_core.sampling.euler import euler
from infinitetalk_core.sampling.guidance import Branch, Guidance, guided
from infinitetalk_core.sampling.schedule import shifted_sigmas
from infinitetalk_core.sampling.step_cache import CachedStep, StepCache, StepCaching

STREAMS = 3  # memories that the reference has, whatever the guidance


class Run:
    """The case's chunk, sampled by our loop."""

    def __init__(self, golden, name: str):
        self.case = golden("teacache")
        self.row = next(row for row in self.case.config["runs"] if row["name"] == name)
        self.want = self.case.under(f"outputs/{name}")
        dit = golden("dit_single").under("weights") | self.case.under("weights")
        self.backbone, self.adapter = build_dit(self.case.config["model_config"], dit)
        self.guidance = Guidance(self.row["text_guide_scale"], self.row["audio_guide_scale"])
        self.caching = StepCaching(
            self.row["threshold"], tuple(self.row["coefficients"]), self.row["ret_steps"] // STREAMS
        )
        self.steps: list[CachedStep] = []
        self.calls: list[tuple[float, bool, Tensor]] = []  # drift, skipped, prediction

    def sample(self, cache_of_call) -> Tensor:
        """The latents; `cache_of_call(call number, branch)` gives the cache of a call and how it runs the blocks."""
        inputs, frames = self.case.under("inputs"), self.case.config["frame_num"]
        noise = inputs[f"{self.row['name']}/noise"][None]
        height, width = noise.shape[-2:]
        codec = LinearCodec.of(self.case.under("inputs/mock_vae"))
        picture = fit_to(inputs["source_image"].float() / 255, 8 * height, 8 * width)
        small = torch.nn.functional.adaptive_avg_pool2d((picture * 2 - 1).permute(2, 0, 1), (2, 2))
        clip = inputs["mock_clip/P"][None] + (small.reshape(1, 12) @ inputs["mock_clip/W"])[:, None]
        windows = speech_windows((inputs["audio_emb_1"],), 0, frames)
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
            return combine({b: predict(x, sigma, b) for b in self.guidance.branches})

        sigmas = shifted_sigmas(self.row["steps"], self.case.config["shift"])
        return euler(velocity, noise, sigmas, codec.encode(picture[None]))

    def compare(self, x0: Tensor, assert_close) -> None:
        """Decisions exactly, the sums and the predictions within the case's tolerance."""
        limit = self.case.tolerance("preds")
        for (drift, skipped, got), call in zip(self.calls, self.row["calls"], strict=True):
            assert skipped is not call["should_calc"], f"call {call['cnt']}"
            assert drift == pytest.approx(call["accumulated_after"], rel=1e-3, abs=1e-6)
            assert_close(got[0], self.want[f"pred_{call['cnt']}"], limit, f"prediction {call['cnt']}")
        assert_close(x0[0], self.want["x0"], limit, "latents")


@torch.inference_mode()
def test_three_branches_are_cached_as_in_the_reference(golden, assert_close):
    """One cache for the chunk, with a place for each branch; the rule is asked once a step."""
    run = Run(golden, "text5")
    cache, branches = StepCache(run.caching), run.guidance.branches

    def cache_of_call(call: int, branch: Branch):
        def blocks_of(modulation, x, blocks):
            if branch is branches[0]:
                run.steps.append(cache.begin(modulation))
            return run.steps[-1].run([branches.index(branch)], x, blocks)

        return cache, blocks_of

    run.compare(run.sample(cache_of_call), assert_close)
    assert cache.skipped == 4


@torch.inference_mode()
def test_the_rule_is_the_references_also_where_it_mixes_branches(golden, assert_close):
    """With two predictions a step the reference still counts to three, so that a branch gets another's memory.
    Nobody should want that, but three of our caches used in this order must do the same."""
    run = Run(golden, "text1")
    caches = [StepCache(run.caching) for _ in range(STREAMS)]

    def cache_of_call(call: int, branch: Branch):
        cache = caches[call % STREAMS]

        def blocks_of(modulation, x, blocks):
            run.steps.append(cache.begin(modulation))
            return run.steps[-1].run([0], x, blocks)

        return cache, blocks_of

    run.compare(run.sample(cache_of_call), assert_close)

"""Schedule, guidance settings and the Euler loop, apart from the golden cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infinitetalk_core.chunks.conditioning import draw_noise, reference_mask, reference_video
from infinitetalk_core.chunks.plan import chunk_seed, plan_chunks
from infinitetalk_core.errors import InputError
from infinitetalk_core.model.wan import model_input
from infinitetalk_core.sampling.euler import euler, pin
from infinitetalk_core.sampling.guidance import Apg, Branch, Guidance, guided
from infinitetalk_core.sampling.schedule import even_sigmas, shifted_sigmas
from infinitetalk_core.sampling.settings import PRESETS, SamplingSettings


@pytest.mark.parametrize("schedule", [shifted_sigmas, even_sigmas])
@given(steps=st.integers(1, 100), shift=st.floats(0.5, 20))
def test_the_schedule_falls_from_one_to_zero(schedule, steps, shift):
    sigmas = schedule(steps, shift)
    assert sigmas.dtype == torch.float32
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(1, abs=1e-6)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_evenly_spaced_levels_are_those_of_the_formula():
    for k, sigma in enumerate(even_sigmas(8, 7.0).tolist()):
        t = 1 - k / 8
        assert sigma == pytest.approx(7 * t / (1 + 6 * t), abs=1e-7)


def test_euler_follows_a_straight_flow_exactly():
    """With the true velocity of a straight path, noise − video, every schedule ends at the video."""
    torch.manual_seed(0)
    noise, video = torch.randn(2, 1, 16, 3, 4, 4)
    for steps in (1, 4, 40):
        estimates = []
        sigmas, context = shifted_sigmas(steps, 7), video[:, :, :1]
        got = euler(lambda x, s: noise - video, noise, sigmas, context, lambda step, x, to=estimates: to.append(x))
        torch.testing.assert_close(got, video, atol=1e-5, rtol=1e-5)
        for denoised in estimates:
            torch.testing.assert_close(denoised, video, atol=1e-5, rtol=1e-5)


def test_context_is_held_clean_before_each_call_and_at_the_end():
    context = torch.full((1, 16, 2, 4, 4), 7.0)
    seen = []

    def velocity(x, sigma):
        seen.append(x[:, :, :2].clone())
        return torch.randn_like(x)

    after = []
    result = euler(velocity, torch.randn(1, 16, 4, 4, 4), shifted_sigmas(5, 7), context, lambda i, x: after.append(i))
    assert all(torch.equal(x, context) for x in seen)
    assert torch.equal(result[:, :, :2], context)
    assert after == [0, 1, 2, 3, 4]


def test_pin_keeps_the_rest():
    x = torch.randn(2, 16, 4, 3, 3)
    pinned = pin(x, torch.zeros(1, 16, 1, 3, 3))
    assert (pinned[:, :, 0] == 0).all()
    assert torch.equal(pinned[:, :, 1:], x[:, :, 1:])


def test_conditioning_has_the_papers_shapes():
    z = torch.randn(2, 16, 21, 6, 8)
    mask = reference_mask(21, 6, 8)
    x = model_input(z, mask, torch.randn(1, 16, 21, 6, 8))
    assert x.shape == (2, 36, 21, 6, 8)
    assert torch.equal(x[:1, 16:20], mask)
    assert mask.sum() == 4 * 6 * 8
    frames = reference_video(torch.rand(16, 16, 3), 81)
    assert frames.shape == (81, 16, 16, 3)
    assert (frames[1:] == 0.5).all()


def test_noise_of_a_chunk_depends_on_seed_and_index_only():
    a, b, *_ = plan_chunks(400)
    shape = (1, 16, 2, 4, 4)

    def noise(seed, chunk):
        return draw_noise(chunk_seed(seed, chunk), shape)

    most = 2**64 - 1
    assert torch.equal(noise(most, a), noise(most, a))
    assert not torch.equal(noise(most, a), noise(most, b))
    assert torch.equal(noise(most, b), noise(0, a)), "seeds wrap around"
    assert chunk_seed(np.int64(7), b) == 8, "nodes of other packs give numbers of numpy"


def test_apg_starts_fresh_with_each_rule():
    torch.manual_seed(0)
    velocities = {b: torch.randn(1, 16, 2, 4, 4) for b in Branch}
    guidance = Guidance(5, 4, Apg())
    rule = guided(guidance)
    first, second = rule(velocities), rule(velocities)
    assert not torch.equal(first, second), "momentum acts within a chunk"
    assert torch.equal(guided(guidance)(velocities), first)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_scales_that_mean_nothing_are_refused(bad):
    with pytest.raises(InputError, match="guidance must be a number from 0 up"):
        Guidance(text_scale=bad)
    with pytest.raises(InputError, match="audio guidance"):
        Guidance(audio_scale=bad)


def test_settings_refuse_no_steps_and_no_shift():
    with pytest.raises(InputError, match="at least 1 step"):
        SamplingSettings(steps=0)
    with pytest.raises(InputError, match="shift must be above 0"):
        SamplingSettings(shift=0)


def test_presets_set_what_belongs_together():
    quality, distilled = PRESETS["quality 480p (40 steps)"], PRESETS["distill LoRA (4 steps)"]
    assert len(quality.guidance.branches) == 3
    assert len(distilled.guidance.branches) == 1
    assert PRESETS["quality 720p (40 steps)"].shift == 11


@pytest.mark.parametrize("apg", [None, Apg()])
@pytest.mark.parametrize("scales", [(5.0, 4.0), (1.0, 4.0), (5.0, 1.0), (1.0, 1.0)])
def test_outside_of_its_range_guidance_is_one_prediction(scales, apg):
    guidance = Guidance(*scales, apg, start=0.25, end=0.5)
    sigmas = SamplingSettings(steps=8, shift=7).sigmas
    counts = [len(guidance.branches_at(float(sigma), sigmas)) for sigma in sigmas[:-1]]
    several = len(guidance.branches)
    assert counts == [1, 1, several, several, several, 1, 1, 1]
    condition = torch.randn(1, 16, 2, 4, 4)
    assert torch.equal(guided(guidance)({Branch.COND: condition}), condition)


def test_the_whole_range_has_no_bounds():
    """Samplers that add noise exceed the schedule."""
    sigmas = SamplingSettings(steps=8).sigmas
    assert Guidance().branches_at(1.5, sigmas) == Guidance().branches


@pytest.mark.parametrize(("start", "end"), [(-0.1, 1.0), (0.0, 1.1), (0.6, 0.5), (float("nan"), 1.0)])
def test_a_range_that_is_none_is_refused(start, end):
    with pytest.raises(InputError, match="guidance_start and guidance_end must be between 0 and 1"):
        SamplingSettings(guidance_start=start, guidance_end=end)


def test_the_presets_say_how_many_predictions_a_chunk_takes():
    def predictions(settings: SamplingSettings) -> int:
        sigmas = settings.sigmas
        return sum(len(settings.guidance.branches_at(float(sigma), sigmas)) for sigma in sigmas[:-1])

    counts = {name: predictions(settings) for name, settings in PRESETS.items()}
    assert [counts[f"{name} 480p (40 steps)"] for name in ("quality", "audio guidance", "half the predictions")] == [
        *(120, 80, 61)
    ]
    assert (counts["distill LoRA (4 steps)"], counts["distill LoRA (8 steps)"]) == (4, 16)

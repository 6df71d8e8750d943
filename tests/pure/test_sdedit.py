"""SDEdit: the schedule starts exactly at the strength, 1 changes nothing, 0 gives the source through the VAE."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.errors import InputError
from infinitetalk_core.sampling.schedule import shifted_sigmas
from infinitetalk_core.sampling.sdedit import noised, parse_strengths, start_at
from infinitetalk_core.video.source import PictureBatch
from tests.support.models import PlainModels, make_job


@given(strength=st.floats(0.01, 0.999), steps=st.integers(1, 60), shift=st.floats(1, 15))
def test_starts_exactly_at_the_strength_with_all_steps_below(strength, steps, shift):
    sigmas = shifted_sigmas(steps, shift)
    started = start_at(sigmas, strength)
    assert len(started) == steps + 1
    assert started[0].item() == torch.tensor(strength).item()
    assert started[-1] == 0
    assert (started.diff() < 0).all()


def test_the_shape_of_the_schedule_stays():
    """Begun at one of its own levels, every second level of a schedule of twice the steps is met."""
    fine = shifted_sigmas(20, 7.0)
    started = start_at(fine, fine[10].item())
    assert torch.allclose(started[::2], fine[10:], atol=1e-5)


def test_strength_one_is_the_schedule_itself():
    sigmas = shifted_sigmas(8, 7.0)
    assert start_at(sigmas, 1.0) is sigmas


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_strengths_that_mean_nothing(bad):
    with pytest.raises(InputError, match="SDEdit strength must be between"):
        start_at(shifted_sigmas(4, 7), bad)


@pytest.mark.parametrize("strength", [0.5, 0.6])
def test_a_schedule_that_ends_above_the_strength_is_refused(strength):
    with pytest.raises(InputError, match=r"the schedule ends at 0\.6"):
        start_at(torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6]), strength)


def test_strengths_as_people_write_them():
    assert parse_strengths("0.9, 0.8\n1") == (0.9, 0.8, 1.0)
    with pytest.raises(InputError, match="'much' is not a strength"):
        parse_strengths("much")
    with pytest.raises(InputError, match=r"between 0 and 1, got 1\.5"):
        parse_strengths("1.5")


def moving_source(frames: int = 60) -> PictureBatch:
    torch.manual_seed(0)
    return PictureBatch(torch.rand(frames, 32, 48, 3).mul(255).round().div(255))


def test_strength_zero_is_the_source_through_the_codec():
    source, models = moving_source(), PlainModels()
    job = make_job(source, 13, ReferenceSettings(Policy.CHUNK_START), sdedit=(0.0,))
    (finished,) = dub(job, models)
    want = models.decode(models.encode(torch.stack([source.frame(i) for i in range(13)])))
    torch.testing.assert_close(finished.frames, want)
    assert not models.seen, "nothing is sampled"


def test_strength_one_reads_no_source_and_changes_nothing():
    source = moving_source()
    plain, full = PlainModels(), PlainModels()
    a = list(dub(make_job(source, 30), plain))
    b = list(dub(make_job(source, 30, sdedit=(1.0,)), full))
    assert all(torch.equal(x.frames, y.frames) for x, y in zip(a, b, strict=True))
    assert all(c.source is None for c in full.seen)


def test_each_chunk_gets_its_own_slice_of_the_source_and_strength():
    source, models = moving_source(), PlainModels()
    job = make_job(source, 40, ReferenceSettings(Policy.CHUNK_START), sdedit=(0.9, 0.5))
    list(dub(job, models))
    assert [c.strength for c in models.seen] == [0.9, 0.5, 0.5, 0.5, 0.5]
    for c in models.seen:
        frames = range(c.chunk.start, c.chunk.start + c.chunk.length)
        want = models.encode(torch.stack([source.frame(min(i, 59)) for i in frames]))
        torch.testing.assert_close(c.source, want)


def test_noising_is_the_flows_formula():
    source, noise = torch.randn(2, 1, 16, 2, 4, 4)
    assert torch.equal(noised(source, noise, 1.0), noise)
    assert torch.equal(noised(source, noise, 0.0), source)

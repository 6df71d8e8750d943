"""Which source frame each chunk looks at, by every policy, and never across a cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.reference import (
    AfterEnd,
    Policy,
    ReferenceChoice,
    ReferenceSettings,
    choose_references,
    output_cuts,
    parse_times,
    shown_frames,
    source_frame,
)
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.source import PictureBatch
from tests.support.models import PlainModels, make_job

RANDOM = [Policy.NEIGHBOR, Policy.SAME_CHUNK, Policy.CHUNK_EDGE, Policy.DISTANT, Policy.ADAPTIVE]


@given(frame=st.integers(0, 2000), length=st.integers(1, 300))
def test_after_the_end_of_the_source(frame, length):
    shown = {after: source_frame(frame, length, after) for after in AfterEnd}
    assert all(0 <= f < length for f in shown.values())
    if frame < length:
        assert set(shown.values()) == {frame}
    else:
        assert shown[AfterEnd.HOLD] == length - 1
        assert shown[AfterEnd.LOOP] == frame % length
        assert shown[AfterEnd.PING_PONG] == [*range(length), *reversed(range(length))][frame % (2 * length)]


def test_still_and_chunk_start():
    plan = plan_chunks(300)
    still = choose_references(plan, ReferenceSettings(Policy.STILL), 1000)
    start = choose_references(plan, ReferenceSettings(Policy.CHUNK_START), 1000)
    assert [p.frames for p in still] == [(0,)] * len(plan)
    assert [p.frames for p in start] == [(0,), (72,), (144,), (216,), (288,)]


def test_each_policy_looks_where_its_name_says():
    plan = plan_chunks(400)
    chunk = plan[2]
    first, last = chunk.start, chunk.start + chunk.length - 1

    def choose(policy: Policy, **options) -> ReferenceChoice:
        return choose_references(plan, ReferenceSettings(policy, **options), 2000)[2]

    for seed in range(20):
        (near,) = choose(Policy.NEIGHBOR, seed=seed, radius_seconds=0.4).frames
        assert 0 < max(first - near, near - last) <= 10
        (inside,) = choose(Policy.SAME_CHUNK, seed=seed).frames
        assert first <= inside <= last
        (edge,) = choose(Policy.CHUNK_EDGE, seed=seed).frames
        assert edge in (first, last)
        (far,) = choose(Policy.DISTANT, seed=seed).frames
        assert max(first - far, far - last) > 125
        assert all(0 < max(first - f, f - last) <= 25 for f in choose(Policy.ADAPTIVE, seed=seed).frames)
    assert choose(Policy.FIRST_LAST) == ReferenceChoice((first,), last=last)
    assert choose(Policy.PREVIOUS_OUTPUT) == ReferenceChoice((first,), previous=True)


@pytest.mark.parametrize("policy", RANDOM)
def test_a_seed_gives_the_same_picks_and_another_seed_others(policy):
    plan = plan_chunks(1000)
    choices = [choose_references(plan, ReferenceSettings(policy, seed=seed), 5000) for seed in (1, 1, 2)]
    assert choices[0] == choices[1] != choices[2]
    assert choose_references(plan[5:], ReferenceSettings(policy, seed=1), 5000) == choices[0][5:], "each chunk alone"


@settings(deadline=None)
@given(
    policy=st.sampled_from(list(Policy)),
    after_end=st.sampled_from(list(AfterEnd)),
    length=st.integers(1, 200),
    total=st.integers(1, 400),
    source_cuts=st.lists(st.integers(1, 199), max_size=4, unique=True).map(sorted),
    seed=st.integers(0, 99),
)
def test_no_policy_leaves_the_source_or_the_shot(policy, after_end, length, total, source_cuts, seed):
    source_cuts = [c for c in source_cuts if c < length]
    plan = plan_chunks(total, 13, 5, output_cuts(total, source_cuts, length, after_end))
    settings = ReferenceSettings(policy, after_end, seed=seed, times_seconds=(0.0,) * len(plan))
    choices = choose_references(plan, settings, length, source_cuts)
    assert len(choices) == len(plan)

    def shot(frame: int) -> int:
        return sum(cut <= frame for cut in source_cuts)

    for chunk, choice in zip(plan, choices, strict=True):
        frames = [*choice.frames, *([] if choice.last is None else [choice.last])]
        assert all(0 <= f < length for f in frames)
        if policy not in (Policy.STILL, Policy.BY_HAND):
            seen = source_frame(chunk.start + chunk.context, length, after_end)
            assert {shot(f) for f in frames} == {shot(seen)}


def test_a_plan_starts_afresh_at_a_cut():
    cuts = output_cuts(100, [40], 100, AfterEnd.HOLD)
    assert cuts == [40]
    plan = plan_chunks(100, 13, 5, cuts)
    fresh = [c for c in plan if c.context == 0]
    assert [c.start for c in fresh] == [0, 40]
    assert all(not (c.start < 40 < c.start + c.context + c.keep) for c in plan), "no chunk writes across the cut"
    assert sum(c.keep for c in plan) == 100


def test_cuts_come_back_when_the_source_plays_backwards():
    assert output_cuts(20, [3], 10, AfterEnd.PING_PONG) == [3, 17]
    assert output_cuts(30, [3], 10, AfterEnd.HOLD) == [3]


def test_by_hand():
    plan = plan_chunks(100, 13, 5)
    times = tuple(i * 0.5 for i in range(len(plan)))
    choices = choose_references(plan, ReferenceSettings(Policy.BY_HAND, times_seconds=times), 500)
    assert [p.frames[0] for p in choices[:4]] == [0, 12, 25, 37]
    with pytest.raises(InputError, match=r"2 reference times are given, but the speech needs 12 chunks"):
        choose_references(plan, ReferenceSettings(Policy.BY_HAND, times_seconds=(0.0, 1.0)), 500)
    for bad in (-1.0, 20.5, float("nan")):
        with pytest.raises(InputError, match=r"reference time 1 is .* outside the source, which lasts 20 s"):
            choose_references(plan, ReferenceSettings(Policy.BY_HAND, times_seconds=(bad,) * 20), 500)


def test_times_as_people_write_them():
    assert parse_times("0, 2.5\n1:07 10:00.5") == (0.0, 2.5, 67.0, 600.5)
    assert parse_times(" ") == ()
    with pytest.raises(InputError, match="'soon' is not a time"):
        parse_times("0, soon")


@pytest.mark.parametrize("options", [{"control": 1.5}, {"control": -0.1}, {"radius_seconds": 0}])
def test_settings_that_mean_nothing(options):
    with pytest.raises(InputError):
        ReferenceSettings(Policy.ADAPTIVE, **options)


def gray_ramp(frames: int) -> PictureBatch:
    """Frame i is gray i / frames."""
    return PictureBatch((torch.arange(frames) / frames)[:, None, None, None].expand(-1, 32, 48, 3).contiguous())


def reference_frames(models: PlainModels) -> list[float]:
    return [round(c.clip.mean().item(), 2) for c in models.seen]


@pytest.mark.parametrize("policy", [Policy.DISTANT, Policy.NEIGHBOR, Policy.BY_HAND])
def test_a_video_opens_with_the_source_at_that_moment_whatever_it_looks_at(policy):
    models = PlainModels()
    settings = ReferenceSettings(policy, times_seconds=(3.0,) * 9)
    list(dub(make_job(gray_ramp(100), 20, settings), models))
    first = models.seen[0]
    assert first.clip.mean() > 0.1, "it looks elsewhere"
    assert first.context[0, 0].mean().item() == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("after_end", [AfterEnd.LOOP, AfterEnd.PING_PONG])
def test_neighbors_lie_outside_the_chunk_also_where_the_source_starts_again(after_end):
    plan = plan_chunks(400, 81, 9)
    chunk = plan[2]  # frames 144 to 224 of a source of 200
    shown = set(shown_frames(chunk, 200, after_end))
    for seed in range(40):
        for policy in (Policy.NEIGHBOR, Policy.ADAPTIVE):
            choice = choose_references(plan, ReferenceSettings(policy, after_end, seed=seed), 200)[2]
            assert not set(choice.frames) & shown


def test_picks_of_an_hour_are_quick():
    plan = plan_chunks(90_000)
    for policy in RANDOM:
        assert len(choose_references(plan, ReferenceSettings(policy), 90_000)) == len(plan)


def test_adaptive_takes_the_neighbor_by_its_likeness_to_the_context():
    """The video that is made is gray 0.25: the most alike neighbor is the one nearest to that."""
    source = gray_ramp(100)
    for control, order in ((0.0, min), (1.0, max)):
        job = make_job(source, 50, ReferenceSettings(Policy.ADAPTIVE, control=control, radius_seconds=1.0))
        models = PlainModels(level=0.25)
        list(dub(job, models))
        for chosen, choice in zip(reference_frames(models)[1:], [p.choice for p in job.plan[1:]], strict=True):
            want = order(choice.frames, key=lambda f: abs(f / 100 - 0.25))
            assert chosen == pytest.approx(want / 100, abs=0.011)


def test_previous_output_looks_at_what_was_made():
    models = PlainModels(level=0.75)
    list(dub(make_job(gray_ramp(100), 40, ReferenceSettings(Policy.PREVIOUS_OUTPUT)), models))
    assert reference_frames(models) == [0.0] + [0.75] * (len(models.seen) - 1)


def test_first_and_last_are_both_in_z2_and_in_the_mask():
    models = PlainModels()
    list(dub(make_job(gray_ramp(100), 20, ReferenceSettings(Policy.FIRST_LAST)), models))
    conditioning = models.seen[1]
    z2, mask = conditioning.reference, conditioning.mask
    assert mask[0, 0, :, 0, 0].tolist() == [1, 0, 0, 0]
    assert mask[0, 3, :, 0, 0].tolist() == [1, 0, 0, 1], "only the last of four frames is given"
    assert z2[0, 0, 0, 0, 0].item() == pytest.approx(0.08, abs=0.01)
    assert z2[0, 0, 1, 0, 0].item() == 0.5
    assert z2[0, 0, -1, 0, 0].item() == pytest.approx((3 * 0.5 + 0.20) / 4, abs=0.01)


def test_context_does_not_cross_a_cut():
    models = PlainModels(level=0.75)
    job = make_job(gray_ramp(100), 40, ReferenceSettings(Policy.CHUNK_START), (20,))
    chunks = list(dub(job, models))
    assert sum(len(c.frames) for c in chunks) == 40
    (fresh,) = [c for c in models.seen if c.chunk.start == 20]
    assert fresh.context.shape[2] == 1
    assert fresh.context[0, 0].mean().item() == pytest.approx(0.20, abs=0.01), "the source's frame, not the video's"

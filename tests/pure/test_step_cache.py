"""Step caching: what is left out, what is kept, and that nothing of it outlives its chunk."""

from __future__ import annotations

import pytest
import torch

from infinitetalk_core.errors import InputError
from infinitetalk_core.sampling.step_cache import CALIBRATIONS, StepCache, StepCaching

PLAIN = CALIBRATIONS["none"]


def modulations(*levels: float) -> list[torch.Tensor]:
    """Time modulations whose mean sizes are the levels."""
    return [torch.full((1, 6, 4), level) for level in levels]


def blocks_that_count(calls: list[int]):
    def blocks(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return 2 * x + len(calls)

    return blocks


def test_small_changes_are_left_out_until_they_add_up():
    cache, calls = StepCache(StepCaching(0.25, PLAIN, 1)), []
    x = torch.ones(2, 3, 4)
    decisions = []
    for level in (1.0, 1.1, 1.21, 1.331, 1.4641):  # each a tenth more: 0.1, 0.2, 0.3 which is too much, 0.1
        skipped = cache.skipped
        out = cache.block_runner([0, 1])(modulations(level)[0], x, blocks_that_count(calls))
        decisions.append(cache.skipped > skipped)
        assert out.shape == x.shape
    assert decisions == [False, True, True, False, True]
    assert calls == [2, 2]
    assert (cache.steps, cache.skipped) == (5, 3)
    assert "3 of 5 steps (60%)" in cache.summary()


def test_what_stands_in_is_what_the_blocks_added_to_the_same_branch():
    cache = StepCache(StepCaching(1.0, PLAIN, 1))
    torch.manual_seed(0)
    first, second, added = torch.randn(3, 3, 4), torch.randn(3, 3, 4), torch.randn(3, 3, 4)
    step = cache.begin(modulations(1.0)[0])
    for i in range(3):  # one after the other, as where memory is short
        step.run([i], first[i : i + 1], lambda x, i=i: x + added[i : i + 1])
    step = cache.begin(modulations(1.0)[0])
    assert step.skips

    def never(x):
        raise AssertionError("the blocks must not run")

    torch.testing.assert_close(step.run([2, 0, 1], second, never), second + added[[2, 0, 1]])


def test_the_first_steps_are_made_and_keep_nothing_that_is_not_needed():
    cache, x = StepCache(StepCaching(1.0, PLAIN, 3)), torch.ones(1, 3, 4)
    sizes = []
    for level in modulations(1.0, 1.0, 1.0, 1.0):
        cache.block_runner([0])(level, x, lambda x: x + 1)
        sizes.append(cache.size_bytes)
    assert sizes == [0, 0, x.nbytes, x.nbytes]
    assert cache.skipped == 1


def test_memory_is_one_answer_a_branch_and_is_given_back():
    cache, x = StepCache(StepCaching(1e-3, PLAIN, 1)), torch.ones(3, 5, 4)
    for step in range(6):
        cache.block_runner(range(3))(modulations(1.0 + step)[0], x, lambda x: x + 1)
        assert cache.size_bytes == x.nbytes
    cache.clear()
    assert cache.size_bytes == 0


def test_blocks_run_where_something_else_about_them_changed():
    """A camera control that ends, for example."""
    cache, x = StepCache(StepCaching(1.0, PLAIN, 1)), torch.ones(1, 3, 4)
    totals = []
    for camera in (True, True, False, False):
        cache.block_runner([0], camera)(modulations(1.0)[0], x, lambda x: x + 1)
        totals.append(cache.skipped)
    assert totals == [0, 1, 1, 2]


def test_a_branch_that_was_not_there_before_is_made():
    cache, calls, x = StepCache(StepCaching(1.0, PLAIN, 1)), [], torch.ones(1, 3, 4)
    for branch in (0, 1):
        cache.block_runner([branch])(modulations(1.0)[0], x, blocks_that_count(calls))
    assert calls == [1, 1]


def test_an_answer_that_was_not_kept_cannot_stand_in():
    """Another cache on the same model may leave the blocks out behind our back."""
    cache = StepCache(StepCaching(1.0, PLAIN, 1))
    assert not cache.begin(modulations(1.0)[0]).skips
    assert not cache.begin(modulations(1.0)[0]).skips


def test_a_broken_modulation_runs_the_blocks():
    cache, x = StepCache(StepCaching(1.0, PLAIN, 1)), torch.ones(1, 3, 4)
    for level in modulations(0.0, 0.0, float("nan")):
        cache.block_runner([0])(level, x, lambda x: x + 1)
    assert cache.skipped == 0


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), 11.0])
def test_a_threshold_that_makes_no_sense_is_refused(threshold):
    with pytest.raises(InputError, match=r"threshold of the step cache must be above 0 .* 0\.2 is a careful one"):
        StepCaching(threshold)


def test_only_what_is_kept_on_the_gpu_is_asked_for_there():
    assert StepCaching().gpu_bytes(32760, 5120, 2) == 0
    assert StepCaching(on_gpu=True).gpu_bytes(32760, 5120, 2) == 4 * 32760 * 5120 * 2

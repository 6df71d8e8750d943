"""Step caching decides and predicts as the reference does, prediction by prediction."""

from __future__ import annotations

import pytest
import torch
from cached_runs import CachedRun
from torch import Tensor

from infinitetalk_core.sampling.guidance import Branch


def compare(run: CachedRun, x0: Tensor, assert_close) -> None:
    """Decisions exactly, the sums and the predictions within the case's tolerance."""
    want, limit = run.case.under(f"outputs/{run.row['name']}"), run.case.tolerance("preds")
    sum_limit = limit * len(run.row["coefficients"])  # each power of the polynomial enlarges a relative error
    for (drift, skipped, got), call in zip(run.calls, run.row["calls"], strict=True):
        assert skipped is not call["should_calc"], f"call {call['cnt']}"
        assert drift == pytest.approx(call["accumulated_after"], rel=sum_limit)
        assert_close(got[0], want[f"pred_{call['cnt']}"], limit, f"prediction {call['cnt']}")
    assert_close(x0[0], want["x0"], limit, "latents")


@torch.inference_mode()
def test_branches_are_cached_as_in_the_reference(golden, assert_close, run_of_all_streams):
    """One cache for the chunk, with a place for each branch; the rule is asked once a step."""
    run = CachedRun(golden("teacache"), run_of_all_streams)
    cache, branches = run.new_cache(), run.branches

    def cache_of_call(call: int, branch: Branch):
        def blocks_of(modulation, x, blocks):
            if branch is branches[0]:
                run.steps.append(cache.begin(modulation))
            return run.steps[-1].run([branches.index(branch)], x, blocks)

        return cache, blocks_of

    compare(run, run.sample(cache_of_call), assert_close)
    assert cache.steps == run.row["steps"]
    assert cache.skipped * len(branches) == sum(not call["should_calc"] for call in run.row["calls"])


@torch.inference_mode()
def test_the_rule_is_the_references_also_where_it_mixes_branches(golden, assert_close, run):
    """Nobody should want that, but as many of our caches as it has streams, used in its order, must do the same."""
    run = CachedRun(golden("teacache"), run)
    compare(run, run.sample_by_streams(), assert_close)

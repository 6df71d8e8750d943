"""Guidance combines the branches as the reference does, and asks only for branches that count."""

import pytest
import torch

from infinitetalk_core.sampling.guidance import Apg, Branch, Guidance, guided


def test_guided_predictions(golden, assert_close):
    case = golden("guidance")
    for row in case.config["cases"]:
        apg = Apg(row["mom"], row["thr"]) if row["use_apg"] else None
        guidance = Guidance(row["text"], row["audio"], apg)
        combine = guided(guidance)
        for step in range(case.config["steps"]):
            velocities = {b: case[f"inputs/{b.name.lower()}/{step}"] for b in guidance.branches}
            want = case[f"outputs/{row['id']}/{step}"]
            assert_close(combine(velocities), want, case.tolerance(), f"case {row['id']} step {step}")


@pytest.mark.parametrize(
    ("text", "audio", "apg", "names"),
    [
        (5, 4, None, "COND DROP_TEXT UNCOND"),
        (5, 4, Apg(), "COND DROP_TEXT UNCOND"),
        (1, 4, None, "COND DROP_AUDIO"),
        (1, 1, None, "COND"),
        (1, 1, Apg(), "COND"),
        (5, 1, None, "COND DROP_TEXT"),
        (5, 1, Apg(), "COND DROP_TEXT"),
        (3, 3, None, "COND UNCOND"),
        (3, 3, Apg(), "COND DROP_TEXT UNCOND"),
    ],
)
def test_branches_without_weight_are_not_run(text, audio, apg, names):
    guidance = Guidance(text, audio, apg)
    assert guidance.branches == tuple(Branch[n] for n in names.split())
    torch.manual_seed(0)
    every = {b: torch.randn(1, 16, 2, 4, 4) for b in Branch}
    asked = {b: every[b] for b in guidance.branches}
    full = {b: every[b] for b in ([Branch.COND, Branch.DROP_AUDIO] if text == 1 else Branch)}
    want = every[Branch.COND].double()
    c, d, n = (every[Branch[k]].double() for k in ("COND", "DROP_TEXT", "UNCOND"))
    if apg is None and text != 1:
        want = n + text * (c - d) + audio * (d - n)
        torch.testing.assert_close(guided(guidance)(asked).double(), want, atol=1e-5, rtol=1e-5)
    else:
        torch.testing.assert_close(guided(guidance)(asked), guided(guidance)(full))

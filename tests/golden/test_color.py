"""Golden case `color`: the Lab mean and spread transfer is the reference's."""

from __future__ import annotations

import torch

from infinitetalk_core.chunks.color import hold_color


def test_color_transfer_is_the_references(golden):
    case = golden("color")
    limit = case.tolerance("abs")
    for name in (row["name"] for row in case.config["cases"]):
        source = (case[f"inputs/{name}/source"][0].permute(1, 2, 3, 0) + 1) / 2
        anchor = (case[f"inputs/{name}/reference"][0, :, 0].permute(1, 2, 0) + 1) / 2
        for strength in case.config["strengths"]:
            got = hold_color(source, anchor, strength) * 2 - 1
            want = case[f"outputs/{name}/strength{strength}"][0].permute(1, 2, 3, 0)
            error = (got - want).abs().max().item()
            assert error <= limit, f"{name}, strength {strength}: {error:.3g} > {limit:.3g}"


def test_strength_zero_gives_the_very_same_tensor(golden):
    case = golden("color")
    name = case.config["cases"][0]["name"]
    source = case[f"inputs/{name}/source"][0].permute(1, 2, 3, 0)
    assert hold_color(source, torch.zeros(2, 2, 3), 0.0) is source

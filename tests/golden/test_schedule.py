"""The noise schedule equals the reference's."""

import torch

from infinitetalk_core.sampling.schedule import shifted_sigmas


def test_timesteps(golden):
    case = golden("schedule")
    for row in case.config["cases"]:
        want = case[f"outputs/steps{row['steps']}_shift{row['shift']:g}/timesteps"]
        got = shifted_sigmas(row["steps"], row["shift"]) * 1000
        torch.testing.assert_close(got, want.to(got), atol=case.tolerance(), rtol=0)

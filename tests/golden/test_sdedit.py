"""SDEdit's noising equals the generic formula of the reference branch (no InfiniteTalk SDEdit exists to match)."""

import torch

from infinitetalk_core.sampling.sdedit import noised


def test_first_input(golden):
    case = golden("sdedit")
    names = sorted({key.split("/")[1] for key in case.tensors if key.endswith("/first_input")})
    assert names
    source = case["inputs/source_latent"][0]
    for name in names:
        sigma = case[f"outputs/{name}/timesteps"][0].item() / 1000
        got = noised(source, case[f"inputs/{name}/noise"], sigma)
        torch.testing.assert_close(got, case[f"outputs/{name}/first_input"], atol=case.tolerance("first_input"), rtol=0)

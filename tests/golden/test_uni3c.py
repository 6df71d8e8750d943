"""Uni3C's residuals and what they do to the prediction are the reference's."""

from __future__ import annotations

import pytest
import torch
from reference_models import build_dit

from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig
from infinitetalk_core.model.wan import time_frequencies

SIZES = {  # ours: the case's
    "dim": "dim",
    "ffn_dim": "ffn_dim",
    "heads": "num_heads",
    "blocks": "num_layers",
    "embed_dim": "conv_out_dim",
    "time_dim": "time_embed_dim",
    "out_dim": "out_proj_dim",
    "view_channels": "add_channels",
    "view_dim": "mid_channels",
}

PREDICTION = "dit_pred_"


@pytest.fixture
def case(golden):
    return golden("uni3c")


@pytest.fixture
def uni3c(case):
    """The ControlNet of the case."""
    weights = case.under("weights")
    shapes = {k: tuple(v.shape) for k, v in weights.items()}
    model = Uni3C(Uni3CConfig.from_shapes(shapes, case.config["num_heads"]))
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture
def dit(golden):
    """Backbone, adapter and the inputs of its forward, of the case that uni3c builds on."""
    single = golden("dit_single")
    backbone, adapter = build_dit(single.config, single.weights)
    x = torch.cat([single["inputs/x"][None], single["inputs/y"]], dim=1)
    speech = [adapter.speech_tokens(single["inputs/audio"])]
    return backbone, x, (single["inputs/context"][None], single["inputs/clip_fea"], adapter, speech)


def timestep(case) -> torch.Tensor:
    return torch.tensor([case.config["timestep"]])


def time_embedding(backbone, case) -> torch.Tensor:
    return backbone.time_embedding(time_frequencies(timestep(case), backbone.config.freq_dim))


def inputs(case, x) -> tuple[torch.Tensor, torch.Tensor]:
    """The channels of the DiT's input that the ControlNet takes, and the latents of the rendered video."""
    render = case["inputs/render_latent"]
    return x[:, : case.config["in_channels"] - render.shape[1]], render


def test_sizes_are_read_from_the_tensors(case, uni3c):
    assert {k: getattr(uni3c.config, k) for k in SIZES} == {k: case.config[name] for k, name in SIZES.items()}


@torch.inference_mode()
def test_residuals_equal_the_reference(case, uni3c, dit, assert_close):
    backbone, x, _ = dit
    temb = time_embedding(backbone, case)
    assert_close(temb, case["outputs/temb"], case.tolerance(), "time embedding")
    latents, render = inputs(case, x)
    assert torch.equal(torch.cat([latents, render], dim=1), case["outputs/controlnet_input"])
    got = uni3c(latents, render, temb)
    assert len(got) == case.config["num_layers"]
    for i, residual in enumerate(got):
        assert_close(residual, case[f"outputs/residual_{i}"], case.tolerance(), f"residual {i}")


@torch.inference_mode()
def test_prediction_with_the_residuals_equals_the_reference(case, uni3c, dit, assert_close):
    """At every strength of the case; `no_uni3c` is without."""
    backbone, x, rest = dit
    residuals = uni3c(*inputs(case, x), time_embedding(backbone, case))
    predictions = {k: want for k, want in case.under("outputs").items() if k.startswith(PREDICTION)}
    assert predictions
    for name, want in predictions.items():
        strength = 0.0 if name.endswith("no_uni3c") else float(name.removeprefix(f"{PREDICTION}strength"))

        def add(block, tokens, strength=strength):
            return tokens + residuals[block] * strength if block < len(residuals) else tokens

        got = backbone(x, timestep(case), *rest, after_block=add if strength else None)
        assert_close(got[0], want, case.tolerance(), name)

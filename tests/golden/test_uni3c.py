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
    backbone, adapter = build_dit(single.config, single.under("weights"))
    x = torch.cat([single["inputs/x"][None], single["inputs/y"]], dim=1)
    speech = [adapter.speech_tokens(single["inputs/audio"])]
    return backbone, x, (single["inputs/context"][None], single["inputs/clip_fea"], adapter, speech)


def timestep(case) -> torch.Tensor:
    return torch.tensor([case.config["timestep"]])


def time_embedding(backbone, case) -> torch.Tensor:
    return backbone.time_embedding(time_frequencies(timestep(case), backbone.config.freq_dim))


def test_sizes_are_read_from_the_tensors(case, uni3c):
    assert {k: getattr(uni3c.config, k) for k in SIZES} == {k: case.config[name] for k, name in SIZES.items()}


@torch.inference_mode()
def test_residuals_equal_the_reference(case, uni3c, dit, assert_close):
    backbone, x, _ = dit
    temb = time_embedding(backbone, case)
    assert_close(temb, case["outputs/temb"], case.tolerance(), "time embedding")
    render = case["inputs/render_latent"]
    assert torch.equal(torch.cat([x[:, :20], render], dim=1), case["outputs/controlnet_input"])
    got = uni3c(x[:, :20], render, temb)
    assert len(got) == case.config["num_layers"]
    for i, residual in enumerate(got):
        assert_close(residual, case[f"outputs/residual_{i}"], case.tolerance(), f"residual {i}")


@pytest.mark.parametrize(("strength", "name"), [(None, "no_uni3c"), (0.35, "strength0.35"), (1.0, "strength1")])
@torch.inference_mode()
def test_prediction_with_the_residuals_equals_the_reference(case, uni3c, dit, assert_close, strength, name):
    backbone, x, rest = dit
    residuals = uni3c(x[:, :20], case["inputs/render_latent"], time_embedding(backbone, case))

    def add(block, tokens):
        return tokens + residuals[block] * strength if block < len(residuals) else tokens

    got = backbone(x, timestep(case), *rest, after_block=None if strength is None else add)
    assert_close(got[0], case[f"outputs/dit_pred_{name}"], case.tolerance(), name)

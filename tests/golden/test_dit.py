"""The DiT with speech predicts what the reference predicts, for one and for two speakers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference_models import build_dit

from infinitetalk_core.model.speaker_positions import reference_attention_map
from infinitetalk_core.speakers import token_masks


@pytest.mark.parametrize("name", ["dit_single", "dit_multi"])
@torch.inference_mode()
def test_prediction_equals_the_reference(golden, assert_close, name):
    case = golden(name)
    backbone, adapter = build_dit(case.config, case.weights)
    audio = case["inputs/audio"]
    masks = token_masks(case["inputs/ref_target_masks"]) if len(audio) > 1 else None
    x = torch.cat([case["inputs/x"][None], case["inputs/y"]], dim=1)
    text, picture = case["inputs/context"][None], case["inputs/clip_fea"]
    conditions = {"pred": adapter.speech_tokens(audio, masks), "pred_null_audio": adapter.silence(audio)}
    predictions = {key: want for key, want in case.under("outputs").items() if key.startswith("pred")}
    assert predictions
    for key, want in predictions.items():
        kind, step = key.rsplit("_", 1)
        t = case["inputs/timesteps"][int(step)].reshape(1)
        got = backbone(x, t, text, picture, adapter, [conditions[kind]])
        assert_close(got, want, case.tolerance(), key)


@torch.inference_mode()
def test_items_of_a_batch_do_not_hear_each_other(golden, assert_close):
    case = golden("dit_multi")
    backbone, adapter = build_dit(case.config, case.weights)
    audio, masks = case["inputs/audio"], token_masks(case["inputs/ref_target_masks"])
    speech = [adapter.speech_tokens(audio, masks), adapter.silence(audio), adapter.speech_tokens(audio[:1])]
    x = torch.cat([case["inputs/x"][None], case["inputs/y"]], dim=1)
    t, text, picture = case["inputs/timesteps"][-1:], case["inputs/context"][None], case["inputs/clip_fea"]
    together = backbone(
        x.expand(3, -1, -1, -1, -1),
        t.expand(3),
        text.expand(3, -1, -1),
        picture.expand(3, -1, -1),
        adapter,
        speech,
    )
    for i, item in enumerate(speech):
        assert_close(together[i : i + 1], backbone(x, t, text, picture, adapter, [item]), case.tolerance(), f"item {i}")


def test_reference_attention_map_equals_the_plain_formula():
    torch.manual_seed(0)
    q, k = torch.randn(2, 24, 5, 16), torch.randn(2, 24, 5, 16)
    masks = (torch.rand(3, 12) > 0.4).float()
    scores = torch.einsum("blhd,bmhd->bhlm", q[:, :, :4], k[:, :12, :4]) / 16**0.5
    want = torch.einsum("bhlm,sm->bhsl", scores.softmax(-1), masks / masks.sum(1, keepdim=True)).mean(1)
    torch.testing.assert_close(reference_attention_map(q, k, masks), want)


@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "channels", "areas"), [(1, 24, 4, 16, 3), (2, 24, 5, 8, 3), (1, 5000, 2, 128, 2)]
)
def test_every_attention_of_the_map_gets_plain_tensors(monkeypatch, batch, tokens, heads, channels, areas):
    """Real memory for each head, one row of channels after the other, and equal widths: what every kernel takes."""
    seen, plain = [], F.scaled_dot_product_attention

    def record(*tensors, **options):
        seen.append(tensors)
        return plain(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    q, k = torch.randn(2, batch, tokens, heads, channels)
    masks = (torch.rand(areas, 12) > 0.4).float()
    reference_attention_map(q, k, masks)
    assert seen
    for given in seen:
        assert len({t.shape[-1] for t in given}) == 1
        assert all(0 not in t.stride() and t.stride(-1) == 1 for t in given)

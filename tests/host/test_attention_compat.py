"""Attention of others, each as a stand-in: speech is heard, two speakers stay apart (docs/compatibility.md)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch, wrap_attn
from comparing import relative
from test_attention import core  # noqa: F401
from test_comfyui_attention import choose_by_node, start_with
from test_equality import load_model, make_backend, make_conditioning

OVERRIDE = "optimized_attention_override"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"


def options_of(model):
    return model.model_options["transformer_options"]


def noted(calls, function):
    """An attention function that notes its calls, wrapped as ComfyUI's are."""

    def attention(q, k, v, heads, *rest, **kw):
        calls.append(k.shape[-2])
        return function(q, k, v, heads, *rest, **kw)

    attention.__name__ = "attention_of_another"
    return wrap_attn(attention)


def chosen_node(model, calls, monkeypatch):
    """ComfyUI's node Model Attention Backend, with PyTorch's attention."""
    function = noted(calls, attention_pytorch)
    function.__name__ = "attention_pytorch"
    choose_by_node(model, function)


def chosen_quantizing_node(model, calls, monkeypatch):
    """The same with an attention in 8 bits, which is asked for no few keys: here all are few."""
    choose_by_node(model, noted([], attention_pytorch))
    calls.append(0)


def flag(model, calls, monkeypatch):
    """ComfyUI started with --use-flash-attention or the like."""
    function = noted(calls, attention_pytorch)
    function.__name__ = "attention_flash"
    start_with(monkeypatch, function)


def whole_override(model, calls, monkeypatch):
    """Another attention for everything: a node that patches SageAttention in."""
    function = noted(calls, attention_pytorch)
    options_of(model)[OVERRIDE] = lambda func, *args, **kwargs: function.__wrapped__(*args, **kwargs)


def override_by_steps(model, calls, monkeypatch):
    """SageAttention 3 in all but the first and last blocks and steps."""
    function = noted(calls, attention_pytorch)

    def override(func, *args, **kwargs):
        options = kwargs.get("transformer_options", {})
        first = torch.allclose(options["sample_sigmas"][0], options["sigmas"])
        return func(*args, **kwargs) if first else function(*args, **kwargs)

    options_of(model)[OVERRIDE] = override


def near(q, k, v, heads, *rest, **kw):
    """Attention of a video's tokens to those nearby only; dense where queries are not keys."""
    if q.shape != k.shape:
        return attention_pytorch(q, k, v, heads, *rest, **kw)
    places = torch.arange(q.shape[1])
    return attention_pytorch(q, k, v, heads, mask=(places[:, None] - places).abs() < 40)


def sparse_override(model, calls, monkeypatch):
    """A sparse attention as an override, for the attention to the video."""
    function = noted(calls, near)
    options_of(model)[OVERRIDE] = lambda func, *args, **kwargs: function.__wrapped__(*args, **kwargs)


def radial(model, calls, monkeypatch, wrap=True):
    """ComfyUI-RadialAttn: another function in the place of ComfyUI's while a step runs."""
    function = noted(calls, near)
    function = function if wrap else function.__wrapped__

    def step(model_function, given):
        with mock.patch("comfy.ldm.wan.model.optimized_attention", new=lambda *a, **k: function(*a, **k)):
            return model_function(given["input"], given["timestep"], **given["c"])

    model.set_model_unet_function_wrapper(step)


def around_a_block(model, calls, monkeypatch):
    """An override that a node sets in transformer_options while a block runs."""
    function = noted(calls, attention_pytorch)

    def block(args, extra):
        options = args["transformer_options"]
        before = options.get(OVERRIDE)
        options[OVERRIDE] = lambda func, *a, **k: function.__wrapped__(*a, **k)
        try:
            return extra["original_block"](args)
        finally:
            options.pop(OVERRIDE)
            if before is not None:
                options[OVERRIDE] = before

    model.set_model_patch_replace(block, "dit", "double_block", 1)


def wrong_values(model, calls, monkeypatch, value=torch.nan):
    """A kernel that gives NaN or fails in the first step: PyTorch's attention makes the chunk."""

    def override(func, q, *rest, **kw):
        calls.append(0)
        return torch.full_like(q, value)

    options_of(model)[OVERRIDE] = override


EXACT = {
    "node-pytorch": chosen_node,
    "node-int8": chosen_quantizing_node,
    "flag": flag,
    "override": whole_override,
    "override-steps": override_by_steps,
    "around-a-block": around_a_block,
    "spoils": wrong_values,
}
SPARSE = {
    "sparse-override": sparse_override,
    "radial": radial,
    "radial-unwrapped": partial(radial, wrap=False),
}
ROWS = {**EXACT, **SPARSE}


def video(core, model, speakers=1, voice=0, swap=False):  # noqa: F811
    """The latents of a chunk. voice: which one speaks; swap: two speakers in each other's places."""
    c = make_conditioning(core, SimpleNamespace(adapter=core.adapter.adapter_of(model)), speakers)
    if voice:
        c = replace(c, audio_windows=c.audio_windows.flip(1))
    if swap:
        c = replace(c, masks=c.masks[[1, 0, 2]])
    with torch.inference_mode():
        return make_backend(core, model, core.guidance.Guidance(1, 1)).denoise(c, lambda step, x: None)


@pytest.fixture(scope="module")
def plain(core, files):  # noqa: F811
    """The latents with PyTorch's attention, by speakers and whether they are swapped."""
    model = load_model(core, files)
    cases = ((1, False), (2, False), (2, True))
    return {(speakers, swap): video(core, model, speakers, swap=swap) for speakers, swap in cases}


@pytest.mark.parametrize("name", ROWS)
def test_the_speech_is_heard_and_two_speakers_are_apart(core, files, monkeypatch, plain, name):  # noqa: F811
    other, calls = load_model(core, files), []
    ROWS[name](other, calls, monkeypatch)
    one, two = video(core, other, 1), video(core, other, 2)
    assert calls, "the stand-in has run"
    if name in EXACT:
        assert relative(one, plain[1, False]) < 1e-5
        assert relative(two, plain[2, False]) < 1e-5
    else:
        assert relative(one, plain[1, False]) > 1e-4, "the stand-in computes something else"
    assert relative(video(core, other, 1, voice=1), one) > 1e-4
    effect = relative(plain[2, True], plain[2, False])
    assert relative(video(core, other, 2, swap=True), two) > effect / 2 > 1e-5


def test_the_page_has_a_row_for_each():
    text = PAGE.read_text(encoding="utf-8")
    for name in ROWS:
        assert f"`[{name}]`" in text, name

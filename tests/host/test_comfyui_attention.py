"""ComfyUI's own attention, by its flags or its node: nothing quantizes few keys, and what cannot run is replaced."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

import comfy.ldm.modules.attention as host_attention
import comfy.ldm.wan.model
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch, wrap_attn
from comparing import relative
from test_attention import BLOCKS, LARGE, SMALL, STEPS, TEXT, sampled
from test_equality import load_model
from test_layouts import base_model


@pytest.fixture(scope="module")
def core(core, pack):
    """With the modules of this test."""
    found = {
        "attention": "nodes.host.model.attention",
        "comfyui_attention": "nodes.host.model.comfyui_attention",
        "kernels": "infinitetalk_core.model.kernels",
    }
    return SimpleNamespace(**{**vars(core), **{k: import_module(f"{pack.__name__}.{v}") for k, v in found.items()}})


def stand_in(name: str, keys: list[int], run=None):
    """An attention function of ComfyUI's, which notes the numbers of keys. run: what it computes."""

    def attention(q, k, v, heads, *rest, **options):
        keys.append(k.shape[-2])
        return (run or host_attention.attention_pytorch)(q, k, v, heads, *rest, **options)

    attention.__name__ = name
    return wrap_attn(attention)


def start_with(monkeypatch, function):
    """As if ComfyUI had been started with the flag for this function."""
    monkeypatch.setattr(host_attention, "optimized_attention", function)
    monkeypatch.setattr(comfy.ldm.wan.model, "optimized_attention", function)


def choose_by_node(model, function):
    """As ComfyUI 0.33's Model Attention Backend does it; 0.3.75 has no such node."""
    if hasattr(model, "set_model_optimized_attention"):
        model.set_model_optimized_attention(function)
        return

    def optimized_attention_override(_, *args, **kwargs):
        return function(*args, **kwargs)

    optimized_attention_override.__module__ = "comfy.model_patcher"
    model.model_options["transformer_options"]["optimized_attention_override"] = optimized_attention_override


QUANTIZING = ("attention_sage", "attention3_sage", "attention_comfy_kitchen_int8", "attention_of_tomorrow")
EXACT = ("attention_pytorch", "attention_sub_quad", "attention_split", "attention_xformers", "attention_flash")
VIDEO = {SMALL: 96, LARGE: 1024}


@pytest.fixture(scope="module")
def wanted(core, files):
    """The latents of a size with PyTorch's attention."""
    return {size: sampled(core, load_model(core, files), size=size)[0] for size in VIDEO}


CASES = [(name, SMALL, by_node) for name in (*QUANTIZING, *EXACT) for by_node in (False, True)]


@pytest.mark.parametrize(
    ("name", "size", "by_node"), [*CASES, ("attention_sage", LARGE, False), ("attention_of_tomorrow", LARGE, True)]
)
def test_few_keys_are_left_to_what_does_not_quantize(core, files, monkeypatch, wanted, name, size, by_node):
    keys: list[int] = []
    function = stand_in(name, keys)
    model = load_model(core, files)
    if by_node:
        choose_by_node(model, function)
    else:
        start_with(monkeypatch, function)
    got, _ = sampled(core, model, size=size)
    assert relative(got, wanted[size]) < 1e-5
    video, text = [VIDEO[size]] * BLOCKS * STEPS, [TEXT] * 2 * BLOCKS * STEPS
    few = name in QUANTIZING
    assert sorted(keys) == sorted((video if not few or size == LARGE else []) + ([] if few else text))


@pytest.mark.parametrize("keys", [1, 32, 64, 257, 512, 769, 1023, 1024, 32760])
def test_the_shape_decides_in_every_layout(core, keys):
    heads, calls = 2, []

    def function(q, k, v, heads, *rest, **options):
        calls.append(k.shape)
        return torch.zeros(())

    override = core.comfyui_attention.PlainForFewKeys(None)
    q = torch.randn(1, heads, 3, 8)
    k, v = torch.randn(2, 1, heads, keys, 8)
    flat = [t.transpose(1, 2).flatten(2) for t in (q, k, v)]
    want = attention_pytorch(q, k, v, heads, skip_reshape=True)
    for given, how in (((q, k, v), {"skip_reshape": True}), (flat, {})):
        got = override(function, *given, heads, **how)
        assert got.ndim == 0 if keys >= 1024 else torch.equal(got, want)
    assert len(calls) == (2 if keys >= 1024 else 0)


def test_another_packs_override_decides_itself(core):
    """It may do more than compute, such as to weigh regions of the picture."""
    options = {core.attention.OVERRIDE: lambda *args, **kwargs: None, "block_index": 3}
    assert core.comfyui_attention.plain_for_few_keys(options) is options
    chosen = {core.attention.OVERRIDE: core.attention.ChosenAttention(core.kernels.AttentionBackend.SDPA)}
    assert core.comfyui_attention.plain_for_few_keys(chosen) is chosen


def fail(error):
    def run(*args, **kwargs):
        raise error

    return run


def swallow(q, k, v, heads, *rest, **options):
    """What ComfyUI's functions for SageAttention and FlashAttention do with a kernel's exception, at each call."""
    record = logging.LogRecord(
        "root", logging.ERROR, host_attention.__file__, 1, "Error running sage attention: %s", ("no image",), None
    )
    logging.getLogger().handle(record)
    return attention_pytorch(q, k, v, heads, *rest, **options)


BROKEN = {
    "raises": (fail(RuntimeError("CUDA error: no kernel image is available")), "no kernel image is available"),
    "import": (fail(ImportError("undefined symbol: _ZN3c10")), "undefined symbol: _ZN3c10"),
    "swallows": (swallow, "Error running sage attention: no image"),
    "NaN": (lambda q, *rest, **options: torch.full_like(q, torch.nan), "NaN or infinite"),
    "shape": (lambda q, *rest, **options: q[:, 1:], "it gave (1, 1151, 2, 128)"),
    "black": (lambda q, *rest, **options: q * 0, "wrong values"),
    "nothing": (lambda q, *rest, **options: None, "no tensor"),
}


@pytest.mark.parametrize("by_node", [False, True], ids=["by a flag", "by a node"])
@pytest.mark.parametrize(("run", "words"), BROKEN.values(), ids=BROKEN)
def test_with_auto_a_broken_one_is_replaced_and_named(core, files, monkeypatch, caplog, wanted, run, words, by_node):
    keys: list[int] = []
    function = stand_in("attention_xformers", keys, run)
    base = base_model(files)
    if by_node:
        choose_by_node(base, function)
    else:
        start_with(monkeypatch, function)
    auto = core.kernels.AttentionBackend.AUTO
    with caplog.at_level(logging.WARNING, logger="infinitetalk"):
        models = [core.adapter.patch_model(base, files.infinitetalk, 1.0, auto) for _ in range(2)]
    assert keys == [1152], "tried once in this process"
    (said, _) = (r.getMessage() for r in caplog.records if r.name == "infinitetalk")
    chosen = "a node has chosen" if by_node else "ComfyUI was started with"
    assert f"the attention that {chosen} (xformers) cannot run here: " in said
    assert words in said and said.endswith("; using PyTorch's own attention instead")
    got, _ = sampled(core, models[1])
    assert relative(got, wanted[SMALL]) < 1e-5
    assert keys == [1152], "and not asked again"
    assert core.attention.attention_name(models[0]) == "sdpa"


@pytest.mark.parametrize("name", ["attention_sage", "attention_xformers"])
def test_with_auto_one_that_works_stays(core, files, monkeypatch, name):
    keys: list[int] = []
    start_with(monkeypatch, stand_in(name, keys))
    model = core.adapter.patch_model(base_model(files), files.infinitetalk, 1.0, core.kernels.AttentionBackend.AUTO)
    assert keys == [1152]
    assert core.attention.attention_name(model) == name


@pytest.mark.parametrize("name", ["attention_pytorch", "attention_sub_quad", "attention_split", "attention_basic"])
def test_pytorchs_own_are_not_tried(core, files, monkeypatch, name):
    keys: list[int] = []
    start_with(monkeypatch, stand_in(name, keys))
    core.adapter.patch_model(base_model(files), files.infinitetalk, 1.0, core.kernels.AttentionBackend.AUTO)
    assert keys == []


def test_with_auto_another_packs_override_is_not_tried(core, files):
    """It may rely on the video's tokens, and is seen in the first step."""
    base = base_model(files)
    base.model_options["transformer_options"]["optimized_attention_override"] = fail(RuntimeError("4680 tokens"))
    model = core.adapter.patch_model(base, files.infinitetalk, 1.0, core.kernels.AttentionBackend.AUTO)
    assert core.attention.attention_name(model) == "run"


PACKAGES = {
    "import": (fail(OSError("libcudart.so.11.0: cannot open")), "libcudart.so.11.0: cannot open"),
    "call": (fail(RuntimeError("no kernel image is available")), "no kernel image is available"),
    "NaN": (lambda q, *rest, **options: torch.full_like(q, torch.nan), "NaN or infinite"),
    "shape": (lambda q, *rest, **options: q.transpose(1, 2), "it gave (1, 2, 1152, 128)"),
}


@pytest.mark.parametrize(("choice", "module"), [("sage", "sageattention"), ("flash", "flash_attn")])
@pytest.mark.parametrize(("run", "words"), PACKAGES.values(), ids=PACKAGES)
def test_an_explicit_choice_of_a_broken_package_is_refused(core, files, monkeypatch, choice, module, run, words):
    package = ModuleType(module)
    if words.startswith("libcudart"):
        package.__getattr__ = run
    else:
        package.sageattn = package.flash_attn_func = run
    monkeypatch.setitem(sys.modules, module, package)
    machine = core.kernels.Machine("cuda", (9, 0), lambda name: name == module)
    monkeypatch.setattr(core.attention.Machine, "here", lambda device: machine)
    with pytest.raises(ValueError, match=f"attention '{choice}' cannot run here: the Python package {module} ") as told:
        core.adapter.patch_model(base_model(files), files.infinitetalk, 1.0, core.kernels.AttentionBackend(choice))
    assert words in str(told.value) and "or choose auto or sdpa" in str(told.value)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, module, package)
    with pytest.raises(ValueError, match="it needs an NVIDIA GPU and ComfyUI runs on cpu"):
        core.adapter.patch_model(base_model(files), files.infinitetalk, 1.0, core.kernels.AttentionBackend(choice))

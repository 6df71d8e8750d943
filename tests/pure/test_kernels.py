"""An attention kernel that cannot run is refused with the reason; one that can is called as its package says."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from infinitetalk_core.errors import InputError
from infinitetalk_core.model import kernels
from infinitetalk_core.model.kernels import AttentionBackend, Machine, attend, find_kernel, is_broken, supports


def machine(capability, *packages, device="cuda"):
    return Machine(device, capability, lambda module: module in packages)


@pytest.mark.parametrize(
    ("choice", "found", "sentence"),
    [
        (
            AttentionBackend.SAGE,
            machine(None, "sageattention", device="cpu"),
            "'sage' cannot run here: .* NVIDIA .* on cpu; ch",
        ),
        (
            AttentionBackend.FLASH,
            machine(None, "flash_attn", device="mps"),
            "needs an NVIDIA GPU and ComfyUI runs on mps",
        ),
        (AttentionBackend.SAGE, machine((8, 9)), "package sageattention is not installed; install it or choose auto"),
        (AttentionBackend.FLASH, machine((8, 9)), "package flash_attn_interface or flash_attn is not installed"),
        (AttentionBackend.SAGE, machine((7, 5), "sageattention"), r"capability 7\.5, and SageAttention runs on 8\.0, "),
        (AttentionBackend.SAGE, machine((10, 0), "sageattention"), r"capability 10\.0"),
        (
            AttentionBackend.FLASH,
            machine((8, 9), "flash_attn_interface"),
            r"FlashAttention 3 runs on 9\.0; choose auto",
        ),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(choice, found, sentence):
    with pytest.raises(InputError, match=sentence):
        find_kernel(choice, found)


@pytest.mark.parametrize(
    ("choice", "found", "title"),
    [
        (AttentionBackend.SAGE, machine((8, 6), "sageattention"), "SageAttention"),
        (AttentionBackend.FLASH, machine((9, 0), "flash_attn", "flash_attn_interface"), "FlashAttention 3"),
        (AttentionBackend.FLASH, machine((10, 0), "flash_attn", "flash_attn.cute"), "FlashAttention 4"),
        (AttentionBackend.FLASH, machine((8, 6), "flash_attn", "flash_attn_interface"), "FlashAttention 2"),
    ],
)
def test_the_best_that_fits_the_gpu_is_taken(choice, found, title):
    assert find_kernel(choice, found).title == title


def test_no_package_of_the_kernels_is_needed_or_imported():
    assert Machine.here(torch.device("cpu")).capability is None
    assert not Machine.here(torch.device("cpu")).has("a_package.that.does_not_exist")
    assert "sageattention" not in sys.modules


def test_types_and_head_sizes():
    def q(dtype, channels):
        return torch.zeros(1, 4, 2, channels, dtype=dtype)

    assert supports(AttentionBackend.SAGE, q(torch.bfloat16, 128))
    assert not supports(AttentionBackend.SAGE, q(torch.float32, 128))
    assert not supports(AttentionBackend.SAGE, q(torch.float16, 256))
    assert supports(AttentionBackend.FLASH, q(torch.float16, 256))


def reference(q, k, v):
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for the packages, which check how they are called."""

    def sageattn(q, k, v, tensor_layout="HND", is_causal=False):
        assert tensor_layout == "NHD"
        return reference(q, k, v)

    sage, flash = ModuleType("sageattention"), ModuleType("flash_attn_interface")
    sage.sageattn = sageattn
    flash.flash_attn_func = lambda q, k, v: (reference(q, k, v), torch.zeros(1))
    monkeypatch.setitem(sys.modules, "sageattention", sage)
    monkeypatch.setitem(sys.modules, "flash_attn_interface", flash)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    "kernel", [("sageattention", "sageattn"), ("flash_attn_interface", "flash_attn_func")], ids=lambda k: k[0]
)
def test_a_kernel_runs_as_one_operation_that_does_not_break_the_graph(kernel):
    q, k, v = (torch.randn(2, n, 3, 8) for n in (7, 5, 5))
    torch.testing.assert_close(attend(q, k, v, *kernel), reference(q, k, v))
    torch.library.opcheck(attend, (q, k, v, *kernel), test_utils=("test_schema", "test_faketensor"))
    compiled = torch.compile(lambda *t: attend(*t, *kernel) * 2, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), reference(q, k, v) * 2)


def imported_again():
    """The module, run once more under another name."""
    spec = importlib.util.spec_from_file_location("infinitetalk_core.model.kernels_again", kernels.__file__)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def custom_op_of_pytorch_2_4(name, function=None, /, *, mutates_args, device_types=None, schema=None):
    """Its order of arguments, and its refusal of annotations that are text; as a decorator too."""
    if function is None:
        return lambda f: custom_op_of_pytorch_2_4(name, f, mutates_args=mutates_args, schema=schema)
    if schema is None and any(isinstance(p.annotation, str) for p in inspect.signature(function).parameters.values()):
        raise ValueError("infer_schema(func): Unsupported type annotation Tensor. It is not a type.")
    torch._C.parse_schema(f"{name}{schema}")
    function.register_fake = lambda fake: fake
    return function


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("custom_op", [custom_op_of_pytorch_2_4, None], ids=["2.4", "older, without it"])
def test_an_old_pytorch_imports_the_module_and_calls_the_kernels(monkeypatch, custom_op):
    if custom_op is None:
        monkeypatch.delattr(torch.library, "custom_op")
    else:
        monkeypatch.setattr(torch.library, "custom_op", custom_op)
    q, k, v = (torch.randn(2, n, 3, 8) for n in (7, 5, 5))
    found = imported_again().attend(q, k, v, "sageattention", "sageattn")
    torch.testing.assert_close(found, reference(q, k, v))


def test_spoiled_latents_are_known():
    good = torch.randn(1, 16, 5, 8, 8)
    assert not is_broken(good, 2)
    hole = good.clone()
    hole[0, 3, 4, 1, 1] = torch.nan
    assert is_broken(hole, 2)
    black = good.clone()
    black[:, :, 2:] = torch.randn(16, 1, 1, 1)
    assert is_broken(black, 2), "the held frames are a picture, the new ones are not"
    half = black.clone()
    half[:, :, 4] = torch.randn(16, 8, 8)
    assert not is_broken(half, 2), "a fade from black is a video"

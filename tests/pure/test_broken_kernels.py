"""A kernel's package that is installed but of no use is tried once and refused in one sentence."""

from __future__ import annotations

import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from infinitetalk_core.errors import InputError, RunError
from infinitetalk_core.model import kernels
from infinitetalk_core.model.kernels import FLASH, SAGE, AttentionBackend, Machine, attend, find_kernel, kernel_problem

CPU = torch.device("cpu")


def reference(q, k, v, **options):
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


def raising(error):
    def run(q, k, v, **options):
        raise error

    return run


class Unimportable(ModuleType):
    """A module whose import has run but whose function cannot be had, as with a part that is built for another ABI."""

    def __init__(self, name, error):
        super().__init__(name)
        self.__dict__["error"] = error

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.error


class UnimportableFinder:
    """Finds a package that fails while it is imported."""

    def __init__(self, name, error):
        self.name, self.error = name, error

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == self.name else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise self.error


IMPORT_ERRORS = {
    "missing part": (ModuleNotFoundError("No module named 'triton'"), "No module named 'triton'"),
    "missing name": (ImportError("cannot import name '_fused' from 'x' (unknown location)"), "cannot import name"),
    "wrong ABI": (ImportError("/x/_C.so: undefined symbol: _ZN3c104cuda9SetDeviceEi"), "undefined symbol: _ZN3c1"),
    "library": (OSError("libcudart.so.11.0: cannot open shared object file"), "libcudart.so.11.0: cannot open"),
    "DLL": (OSError("[WinError 127] The specified procedure could not be found"), "WinError 127"),
    "its own check": (RuntimeError("this build needs CUDA 12.8"), "this build needs CUDA 12.8"),
    "wants to end the program": (SystemExit("CUDA not found"), "CUDA not found"),
    # Only at the import: in a module's lookup of names it means that there is no such name.
    "attribute": (AttributeError("module 'torch' has no attribute 'int1'"), "no attribute 'int1'"),
}
CALL_ERRORS = {
    "no image": (
        raising(RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with")),
        "no kernel image is available for execution on the device",
    ),
    "architecture": (raising(ValueError("Unsupported CUDA architecture: sm100")), "Unsupported CUDA architecture"),
    "no compiler": (raising(RuntimeError("Failed to find C compiler. Please specify via CC")), "find C compiler"),
    "no file": (raising(FileNotFoundError(2, "No such file or directory", "ptxas")), "ptxas"),
    "assertion": (raising(AssertionError()), "AssertionError"),
    "arguments": (lambda q, k: q, "argument"),
    "long": (raising(RuntimeError("x" * 5000)), "xxx"),
    "NaN": (lambda q, k, v, **o: torch.full_like(q, torch.nan), "it gave NaN or infinite values"),
    "infinite": (lambda q, k, v, **o: reference(q, k, v) / 0, "it gave NaN or infinite values"),
    "a NaN in one place": (lambda q, k, v, **o: reference(q, k, v).index_fill(1, torch.tensor(7), torch.nan), "NaN"),
    "shape": (lambda q, k, v, **o: reference(q, k, v).transpose(1, 2), "it gave (1, 2, 1152, 128)"),
    "type": (lambda q, k, v, **o: reference(q, k, v).float(), "of float32 in a small test where"),
    "nothing": (lambda q, k, v, **o: None, "it gave no tensor"),
    "empty tuple": (lambda q, k, v, **o: (), "it gave no tensor"),
    "black": (lambda q, k, v, **o: torch.zeros_like(q), "it gave wrong values in a small test (100% off)"),
    "mixed up": (lambda q, k, v, **o: reference(q, k, v).flip(1), "it gave wrong values"),
}
NAMES = {SAGE: "sageattn", **dict.fromkeys(FLASH, "flash_attn_func")}


def install(monkeypatch, kernel, run=None, error=None):
    """Put a stand-in for a kernel's package into this process."""
    monkeypatch.setitem(sys.modules, kernel.module.split(".")[0], ModuleType(kernel.module.split(".")[0]))
    module = Unimportable(kernel.module, error) if error else ModuleType(kernel.module)
    if run is not None:
        setattr(module, NAMES[kernel], run)
    monkeypatch.setitem(sys.modules, kernel.module, module)


def machine(*installed):
    return Machine("cuda", (9, 0), lambda module: module in {kernel.module for kernel in installed})


def trial(kernel):
    return kernel_problem(kernel, CPU, torch.bfloat16)


def choose(choice, *installed):
    return find_kernel(choice, machine(*installed), trial)


def refusal(choice, *installed) -> str:
    with pytest.raises(InputError) as raised:
        choose(choice, *installed)
    text = str(raised.value)
    assert text.startswith(f"attention {choice.value!r} cannot run here: the Python package ")
    assert text.endswith("; install it again for this PyTorch and this GPU, or choose auto or sdpa")
    assert "\n" not in text and len(text) < 600 and "Traceback" not in text
    return text


@pytest.mark.parametrize("kernel", [SAGE, *FLASH], ids=lambda k: k.module)
@pytest.mark.parametrize(("error", "said"), list(IMPORT_ERRORS.values())[:-1], ids=list(IMPORT_ERRORS)[:-1])
def test_a_package_that_cannot_be_imported(monkeypatch, kernel, error, said):
    install(monkeypatch, kernel, error=error)
    choice = AttentionBackend.SAGE if kernel is SAGE else AttentionBackend.FLASH
    text = refusal(choice, kernel)
    assert f"package {kernel.module.split('.')[0]} ({kernel.title}) is installed but broken: it cannot be imp" in text
    assert said in text


@pytest.mark.parametrize(("error", "said"), IMPORT_ERRORS.values(), ids=IMPORT_ERRORS)
def test_a_package_that_fails_while_it_is_imported(monkeypatch, error, said):
    monkeypatch.setattr(sys, "meta_path", [UnimportableFinder("sageattention", error), *sys.meta_path])
    assert Machine.here(CPU).has("sageattention")
    assert said in refusal(AttentionBackend.SAGE, SAGE)
    assert "sageattention" not in sys.modules


@pytest.mark.parametrize("kernel", [SAGE, *FLASH], ids=lambda k: k.module)
@pytest.mark.parametrize(("run", "said"), CALL_ERRORS.values(), ids=CALL_ERRORS)
def test_a_kernel_that_fails_or_computes_nonsense(monkeypatch, kernel, run, said):
    install(monkeypatch, kernel, run)
    assert said in refusal(AttentionBackend.SAGE if kernel is SAGE else AttentionBackend.FLASH, kernel)


def test_a_broken_package_above_a_module_is_no_error_of_the_search(monkeypatch):
    """To look for flash_attn.cute Python imports flash_attn."""
    error = OSError("flash_attn_2_cuda.so: undefined symbol")
    monkeypatch.setattr(sys, "meta_path", [UnimportableFinder("flash_attn", error), *sys.meta_path])
    has = Machine.here(CPU).has
    assert has("flash_attn") and not has("flash_attn.cute")


def test_the_next_best_is_taken_and_the_broken_one_named(monkeypatch, caplog):
    install(monkeypatch, FLASH[0], error=OSError("libcudart.so.11.0: cannot open shared object file"))
    install(monkeypatch, FLASH[2], reference)
    with caplog.at_level(logging.WARNING, logger="infinitetalk"):
        assert choose(AttentionBackend.FLASH, FLASH[0], FLASH[2]) is FLASH[2]
    assert "(FlashAttention 3) is installed but broken: it cannot be imported (libcudart.so" in caplog.text
    assert "using FlashAttention 2" in caplog.text


def test_all_broken_ones_are_named(monkeypatch):
    install(monkeypatch, FLASH[0], error=OSError("libcudart.so.11.0: cannot open"))
    install(monkeypatch, FLASH[2], CALL_ERRORS["no image"][0])
    text = refusal(AttentionBackend.FLASH, FLASH[0], FLASH[2])
    assert "flash_attn_interface (FlashAttention 3)" in text and "flash_attn (FlashAttention 2)" in text


def test_a_kernel_is_tried_once_for_each_device_and_type(monkeypatch):
    tried = []

    def sageattn(q, k, v, **options):
        tried.append(q.dtype)
        return reference(q, k, v)

    install(monkeypatch, SAGE, sageattn)
    for dtype in (torch.bfloat16, torch.bfloat16, torch.float16, torch.bfloat16):
        assert kernel_problem(SAGE, CPU, dtype) == ""
    assert tried == [torch.bfloat16, torch.float16]
    install(monkeypatch, SAGE, CALL_ERRORS["NaN"][0])
    assert "NaN" in trial(SAGE), "another package is tried anew"


def test_the_error_of_eight_bits_is_accepted(monkeypatch):
    def to_eight_bits(t):
        scale = t.abs().amax(dim=(1, 3), keepdim=True) / 127
        return (t / scale).round() * scale

    install(monkeypatch, SAGE, lambda q, k, v, **o: reference(*(to_eight_bits(t) for t in (q, k, v))))
    assert trial(SAGE) == ""


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")],
)
def test_a_full_gpu_says_nothing_about_a_kernel(monkeypatch, error):
    left = [error]

    def sageattn(q, k, v, **options):
        if left:
            raise left.pop()
        return torch.zeros_like(q)

    install(monkeypatch, SAGE, sageattn)
    assert trial(SAGE) == ""
    assert "wrong values" in trial(SAGE), "so it is tried again"


def test_a_trial_leaves_the_random_numbers_alone(monkeypatch):
    install(monkeypatch, SAGE, lambda q, k, v, **options: reference(q, k, v))
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    assert kernel_problem(SAGE, CPU, torch.float16) == ""
    assert torch.equal(torch.rand(3), want)


def test_a_kernel_that_fails_later_is_one_sentence_too(monkeypatch):
    install(monkeypatch, SAGE, CALL_ERRORS["architecture"][0])
    q = torch.randn(1, 4, 2, 8)
    with pytest.raises(
        RunError, match=r"package sageattention failed \(Unsupported CUDA architecture: sm100\); choose"
    ):
        attend(q, q, q, "sageattention", "sageattn")
    install(monkeypatch, SAGE, raising(torch.cuda.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        attend(q, q, q, "sageattention", "sageattn")


def test_few_keys_are_the_text_the_picture_and_the_audio():
    for keys, few in ((32, True), (64, True), (257, True), (512, True), (769, True), (1344, False), (32760, False)):
        assert kernels.has_few_keys(torch.empty(1, keys, 8, device="meta")) is few
        assert kernels.has_few_keys(torch.empty(1, 2, keys, 4, device="meta")) is few

"""An attention that fails or spoils the picture costs one step of one chunk: PyTorch's makes the rest of the job."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import comfy.ldm.wan.model
import comfy.model_management
import comfy.model_patcher
import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comparing import relative
from test_compile import newest_comfyui_skips
from test_equality import load_model, make_backend, make_conditioning


@pytest.fixture(scope="module")
def core(core, pack):
    """With the modules of this test."""
    found = {
        "attention": "nodes.host.model.attention",
        "sampling": "nodes.host.sampling.run",
        "store": "infinitetalk_core.runs.store",
        "lock": "infinitetalk_core.runs.lock",
        "errors": "infinitetalk_core.errors",
    }
    return SimpleNamespace(**{**vars(core), **{k: import_module(f"{pack.__name__}.{v}") for k, v in found.items()}})


@pytest.fixture
def said(caplog):
    """The warnings of the pack, as texts."""
    with caplog.at_level(logging.INFO, logger="infinitetalk"):
        yield lambda words: [r.getMessage() for r in caplog.records if words in r.getMessage()]


class Attention:
    """Another pack's attention override, which counts its calls and does `what` in the chunks of these indices."""

    def __init__(self, what, chunks=range(100)):
        self.what, self.chunks, self.calls, self.chunk = what, chunks, 0, 0

    def __call__(self, function, q, k, v, heads, *rest, **options):
        self.calls += 1
        out = function(q, k, v, heads, *rest, **options)
        return self.what(out) if self.chunk in self.chunks else out


def fail(error):
    def what(out):
        raise error

    return what


FAULTS = {
    "NaN": lambda out: torch.full_like(out, torch.nan),
    "infinite": lambda out: out / 0,
    "no image": fail(RuntimeError("CUDA error: no kernel image is available for execution on the device")),
    "type": fail(TypeError("attention() got an unexpected keyword argument 'transformer_options'")),
    "assertion": fail(AssertionError("head_dim must be 64 or 128")),
    "no compiler": fail(FileNotFoundError(2, "No such file or directory", "gcc")),
    "shape": lambda out: out[:, :-1],
    "heads apart": lambda out: out.unflatten(-1, (2, -1)),
    "nothing": lambda out: None,
    "tuple": lambda out: (out, None),
    "dtype": lambda out: out.double(),
}


class Video:
    """Chunks of one job, on one backend."""

    def __init__(self, core, model, override=None):
        self.core, self.model, self.override = core, model, override
        if override is not None:
            model.model_options["transformer_options"][core.attention.OVERRIDE] = override
        self.backend = make_backend(core, model, core.guidance.Guidance(1, 1))
        self.steps: list[int] = []

    def chunk(self, index: int, speakers: int = 1):
        own = SimpleNamespace(adapter=self.core.adapter.adapter_of(self.model))
        conditioning = make_conditioning(self.core, own, speakers)
        chunk = replace(conditioning.chunk, index=index)
        if self.override is not None:
            self.override.chunk = index
        self.steps = []
        with torch.inference_mode():
            return self.backend.denoise(replace(conditioning, chunk=chunk), lambda s, x: self.steps.append(s))


@pytest.fixture(scope="module")
def wanted(core, files):
    """A chunk with PyTorch's attention."""
    return Video(core, load_model(core, files)).chunk(0)


@pytest.mark.parametrize("what", FAULTS.values(), ids=FAULTS)
def test_the_job_learns_it_once(core, files, said, wanted, what):
    attention = Attention(what)
    video, calls = Video(core, load_model(core, files), attention), []
    for index in range(2):
        assert relative(video.chunk(index), wanted) < 1e-5
        assert video.steps == [0, 1, 2]
        calls.append(attention.calls)
    assert 0 < calls[0] <= 3 * 3, "one step"
    assert len(set(calls)) == 1, "later chunks do not ask it"
    assert len(said("chunk 1")) == 2, "why, and what follows from it"
    assert len(said("PyTorch's own attention makes the rest of this job, since another node's attention (Att")) == 1
    assert said("to save that time choose attention 'sdpa'")


def test_another_job_tries_it_again(core, files):
    attention = Attention(FAULTS["NaN"])
    model = load_model(core, files)
    calls = []
    for _ in range(2):
        Video(core, model, attention).chunk(0)
        calls.append(attention.calls)
    assert calls[1] == 2 * calls[0] > 0


def test_chunks_before_the_spoiled_one_stay_as_they_are(core, files):
    """And are made again like that, as are those after it."""
    attention = Attention(FAULTS["NaN"], chunks=[2])
    video = Video(core, load_model(core, files), attention)
    video.chunk(1)
    before = attention.calls
    for index, asked in ((2, True), (3, False), (1, True), (2, False), (9, False)):
        video.chunk(index)
        assert (attention.calls > before) is asked, index
        before = attention.calls


def test_a_picture_that_is_meant_to_be_flat_is_no_fault(core, files, said, monkeypatch):
    """With PyTorch's attention it is as flat."""
    backend = import_module(core.backend.__name__)
    monkeypatch.setattr(backend, "is_broken", lambda latents, context: True)
    attention = Attention(lambda out: out)
    video = Video(core, load_model(core, files), attention)
    video.chunk(0)
    before = attention.calls
    video.chunk(1)
    assert attention.calls > before
    assert not said("makes the rest of this job")


def test_errors_that_come_from_elsewhere_are_not_taken_for_it(core, files, said):
    interrupted = comfy.model_management.InterruptProcessingException()
    for error in (interrupted, core.errors.InputError("no text"), core.errors.RunError("the disk")):
        attention = Attention(fail(error))
        with pytest.raises(type(error)):
            Video(core, load_model(core, files), attention).chunk(0)
        assert attention.calls == 1
    video = Video(core, load_model(core, files), Attention(lambda out: out))
    video.steps = None  # what is told about each step fails
    own = make_conditioning(core, SimpleNamespace(adapter=core.adapter.adapter_of(video.model)))
    with pytest.raises(ZeroDivisionError):
        video.backend.denoise(own, lambda step, x: 1 / 0)
    assert not said("making it again")


def test_memory_that_runs_out_is_handled_as_such(core, files, said):
    error = torch.cuda.OutOfMemoryError("CUDA out of memory")
    video = Video(core, load_model(core, files), Attention(fail(error)))
    with pytest.raises(RuntimeError, match="out of memory"):
        video.chunk(0)
    assert not said("making it again with PyTorch")


def test_what_fails_with_pytorchs_too_is_reported_as_it_is(core, files, monkeypatch):
    video = Video(core, load_model(core, files), Attention(lambda out: out))
    monkeypatch.setattr(core.wrappers, "audio_conditioned_block", lambda *a: {}["weight"])
    with pytest.raises(KeyError, match="weight"):
        video.chunk(0)
    assert video.backend.fallback.first is None


def test_a_compiled_model_takes_the_other_attention(core, files, wanted):
    """ComfyUI's node leaves guards on transformer_options out, so a graph knows no other attention from there."""
    torch._dynamo.reset()
    model = load_model(core, files)

    def spoil(function, q, k, v, heads, *rest, **options):
        return torch.full_like(q, torch.nan)

    model.model_options["transformer_options"][core.attention.OVERRIDE] = spoil
    set_torch_compile_wrapper(model, "eager", options={"guard_filter_fn": newest_comfyui_skips})
    try:
        assert relative(Video(core, model).chunk(0), wanted) < 1e-5
    finally:
        torch._dynamo.reset()


def test_a_resumed_run_goes_on_with_it(core, files, tmp_path, said):
    """Also where the other attention would not spoil the next chunk: the bits are those of an uninterrupted run."""
    folder = tmp_path / "run"
    folder.mkdir()

    def execution(attention):
        video = Video(core, load_model(core, files), attention)
        lock = core.lock.RunLock(folder / "lock")
        with lock:
            core.sampling.keep_fallback(video.backend.fallback, core.store.RunStore(folder, lock))
            yield video

    (first,) = [video for video in execution(Attention(FAULTS["NaN"], chunks=[1])) if video.chunk(0) is not None]
    assert first.backend.fallback.first is None
    for video in execution(Attention(FAULTS["NaN"], chunks=[1])):
        video.chunk(1)
    attention = Attention(FAULTS["NaN"], chunks=[1])
    for video in execution(attention):
        video.chunk(2)
        assert attention.calls == 0
        video.chunk(0)
        assert attention.calls > 0, "what was made with it before"
    assert said("PyTorch's own attention makes the chunks from 2 on, as in the run so far")


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2", None, [2]])
def test_a_damaged_note_of_it_does_not_count(core, files, tmp_path, value):
    lock = core.lock.RunLock(tmp_path / "lock")
    with lock:
        core.store.RunStore(tmp_path, lock).describe(plain_attention_from=value)
        fallback = core.attention.AttentionFallback()
        core.sampling.keep_fallback(fallback, core.store.RunStore(tmp_path, lock))
    assert fallback.first is None

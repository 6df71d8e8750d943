"""ComfyUI 0.33 divides the guidance branches among GPUs: our models come along, and the latents stay the same.

Two names of the CPU are the GPUs.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import pytest
import torch
from comparing import relative
from make_tiny_models import Sizes, state_dict
from test_equality import load_model, make_backend, make_conditioning
from test_uni3c import conditioning as with_camera
from test_uni3c import make_backend as make_uni3c_backend
from weight_layouts import write_gguf, write_scaled_old

FIRST, SECOND = torch.device("cpu"), torch.device("cpu", 0)
LIMIT = 1e-5  # of batches of other sizes
needs_multi_gpu = pytest.mark.skipif(
    not hasattr(comfy.model_patcher.ModelPatcher, "deepclone_multigpu"), reason="this ComfyUI uses a single GPU"
)


@pytest.fixture
def split(monkeypatch):
    """`split(model)` is what the node MultiGPU CFG Split does, with two GPUs."""
    multigpu = import_module("comfy.multigpu")
    devices = [FIRST, SECOND]
    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: devices)

    def create(model):
        # ComfyUI's search for copies fails on a listed model of another test that was collected meanwhile.
        comfy.model_management.cleanup_models()
        return multigpu.create_multigpu_deepclones(model, 2, reuse_loaded=True)

    comfy.model_management.unload_all_models()
    return create


@pytest.fixture
def used(core, monkeypatch):
    """The adapter and Uni3C network of each prediction, by device."""
    seen: dict = {}
    plain = core.wrappers.SpeechCall.on

    def on(call, device):
        found = plain(call, device)
        seen.setdefault(device, set()).add((found.adapter, found.camera and found.camera.network))
        return found

    monkeypatch.setattr(core.wrappers.SpeechCall, "on", on)
    return seen


def check_division(used, adapter):
    """Both devices were used, each with models of its own; the first one with the MODEL's."""
    assert set(used) == {FIRST, SECOND}
    (first,), (second,) = used[FIRST], used[SECOND]
    assert first[0] is adapter and second[0] is not adapter
    assert (first[1] is None) == (second[1] is None) and (first[1] is None or first[1] is not second[1])


@needs_multi_gpu
@torch.inference_mode()
@pytest.mark.parametrize("before_our_loader", [False, True])
@pytest.mark.parametrize(("text", "audio", "speakers"), [(1, 2, 1), (5, 4, 2)])
def test_divided_branches_give_the_same_latents(
    core, files, own, split, used, text, audio, speakers, before_our_loader
):
    c = make_conditioning(core, own, speakers)
    guidance = core.guidance.Guidance(text, audio)
    want = make_backend(core, load_model(core, files), guidance).denoise(c, lambda s, x: None)
    used.clear()
    if before_our_loader:
        base = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
        model = core.adapter.patch_model(split(base), files.infinitetalk, 1.0)
    else:
        model = split(load_model(core, files))
    made = make_backend(core, model, guidance)
    got = made.denoise(c, lambda s, x: None)
    check_division(used, core.adapter.adapter_of(model))
    assert relative(got, want) < LIMIT
    again = made.denoise(c, lambda s, x: None)
    assert torch.equal(again, got)
    check_division(used, core.adapter.adapter_of(model))  # with the same copies as before


@needs_multi_gpu
@torch.inference_mode()
def test_copies_that_are_loaded_are_used_again(core, files, own, split, used):
    """The node runs again, as when its number of GPUs was changed to and fro."""
    c = make_conditioning(core, own)
    plain = load_model(core, files)
    first = split(plain)
    want = make_backend(core, first, core.guidance.Guidance(1, 2)).denoise(c, lambda s, x: None)
    got = make_backend(core, split(plain), core.guidance.Guidance(1, 2)).denoise(c, lambda s, x: None)
    assert torch.equal(got, want)
    check_division(used, core.adapter.adapter_of(plain))


@needs_multi_gpu
@torch.inference_mode()
def test_the_camera_and_the_step_cache_come_along(core, pack, files, own, split, used):
    loaded = SimpleNamespace(
        model=load_model(core, files), patcher=core.uni3c.load_uni3c_patcher(files.uni3c), adapter=own.adapter
    )
    cached_blocks = import_module(f"{pack.__name__}.nodes.host.model.cached_blocks")
    step_cache = import_module(f"{pack.__name__}.infinitetalk_core.sampling.step_cache")
    caching = step_cache.StepCaching(2.5, step_cache.CALIBRATIONS["none"], 2)
    loaded.model = cached_blocks.attach_step_cache(loaded.model, caching)
    c = with_camera(core, loaded, view=True)
    camera = {"strength": 1.0, "start": 0.0, "end": 1.0}
    want = make_uni3c_backend(core, loaded, 5, 4, **camera).denoise(c, lambda s, x: None)
    used.clear()
    loaded.model = split(loaded.model)
    got = make_uni3c_backend(core, loaded, 5, 4, **camera).denoise(c, lambda s, x: None)
    check_division(used, core.adapter.adapter_of(loaded.model))
    assert relative(got, want) < LIMIT


@needs_multi_gpu
@torch.inference_mode()
@pytest.mark.parametrize("before_our_loader", [False, True])
def test_our_models_are_on_the_device_that_is_selected_for_the_model(core, files, own, before_our_loader):
    """The node Select Model Device."""
    c = make_conditioning(core, own)
    want = make_backend(core, load_model(core, files), core.guidance.Guidance(1, 2)).denoise(c, lambda s, x: None)
    if before_our_loader:
        base = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
        model = core.adapter.patch_model(base.deepclone_multigpu(SECOND), files.infinitetalk, 1.0)
    else:
        model = load_model(core, files).deepclone_multigpu(SECOND)
    camera = core.uni3c.load_uni3c_patcher(files.uni3c)
    beside = core.patchers.on_device_of(model, camera)
    assert {p.load_device for p in (model, core.adapter.adapter_patcher(model), beside)} == {SECOND}
    assert core.patchers.on_device_of(model, beside) is beside and beside.model is not camera.model
    got = make_backend(core, model, core.guidance.Guidance(1, 2)).denoise(c, lambda s, x: None)
    assert relative(got, want) < LIMIT


@pytest.mark.parametrize("layout", ["plain", "scaled", "Q8_0", "Q4_K"])
def test_a_copy_has_the_same_weights_in_the_same_memory(core, files, tmp_path, layout):
    path = files.infinitetalk
    if layout != "plain":
        sizes = Sizes(audio_hidden=256, audio_width=256)
        weights = state_dict("model_patches/tiny_infinitetalk_single.safetensors", sizes)
        path = tmp_path / ("x.safetensors" if layout == "scaled" else "x.gguf")
        write_scaled_old(path, weights) if layout == "scaled" else write_gguf(path, weights, layout)
    base = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
    model = core.adapter.patch_model(base, path, 1.0)
    patcher = core.adapter.adapter_patcher(model)
    (adapter,) = model.get_additional_models_with_key(core.wrappers.KEY)
    make, arguments = getattr(adapter, "cached_patcher_init", None) or _of_parent(adapter)
    for options in ({}, {"disable_dynamic": True}):
        copy = make(*arguments, **options)
        assert copy is not patcher and copy.model is not patcher.model
        theirs, ours = copy.model.state_dict(), patcher.model.state_dict()
        assert list(theirs) == list(ours)
        assert all(torch.equal(theirs[name].view(torch.uint8), ours[name].view(torch.uint8)) for name in ours)
        assert all(theirs[name].data_ptr() == ours[name].data_ptr() for name in ours)
        modules = [[type(layer).__name__ for layer in m.modules()] for m in (copy.model, patcher.model)]
        assert modules[0] == modules[1]


def _of_parent(patcher):
    """0.3.75 does not hand it to clones, since it does not know it."""
    return patcher.parent.cached_patcher_init

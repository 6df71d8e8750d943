"""One copy of the weights behind all MODELs, in use exactly as long as ComfyUI holds a patcher made from it."""

from __future__ import annotations

import gc
import shutil
from importlib import import_module
from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import pytest
import torch


@pytest.fixture
def shared(pack):
    return import_module(f"{pack.__name__}.nodes.host.model.shared_models").SharedModels(10**9)


@pytest.fixture
def base(files):
    return comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})


def state_of(shared):
    gc.collect()
    return [(entry.key.kind, bool(entry.users)) for entry in shared.cache.contents().entries]


def test_strength_and_attention_make_no_second_copy(core, files, shared, base):
    choice = import_module(f"{core.job.__package__.removesuffix('.chunks')}.model.kernels")
    one = core.adapter.patch_model(base, files.infinitetalk, 1.0, models=shared)
    two = core.adapter.patch_model(base, files.infinitetalk, 0.5, choice.AttentionBackend.SDPA, shared)
    assert core.adapter.adapter_of(one) is core.adapter.adapter_of(two)
    assert (one.get_attachment(core.wrappers.KEY), two.get_attachment(core.wrappers.KEY)) == (1.0, 0.5)
    assert shared.cache.contents().misses == 1


def test_it_is_in_use_as_long_as_any_clone_of_the_model_is(core, files, shared, base):
    model = core.adapter.patch_model(base, files.infinitetalk, 1.0, models=shared)
    clone = model.clone().clone()  # as LoRA nodes make them
    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    del model
    assert state_of(shared) == [("InfiniteTalk weights", True)]
    del clone
    assert state_of(shared) == [("InfiniteTalk weights", False)]


def test_an_idle_model_is_still_known_to_comfyui_and_unloaded_by_it(core, files, shared):
    patcher = core.uni3c.load_uni3c_patcher(files.uni3c, shared)
    network = patcher.model
    comfy.model_management.load_models_gpu([patcher])
    del patcher
    assert state_of(shared) == [("Uni3C", False)]
    assert any(loaded.model is network for loaded in comfy.model_management.loaded_models())
    comfy.model_management.unload_all_models()
    assert not any(loaded.model is network for loaded in comfy.model_management.loaded_models())
    assert core.uni3c.load_uni3c_patcher(files.uni3c, shared).model is network


def test_weights_for_another_model_are_refused_also_from_the_cache(core, files, shared, base):
    kept = core.adapter.patch_model(base, files.infinitetalk, 1.0, models=shared)
    whole = base.model.diffusion_model.blocks
    base.model.diffusion_model.blocks = whole[:-1]
    with pytest.raises(ValueError, match="is made for a model of"):
        core.adapter.patch_model(base, files.infinitetalk, 1.0, models=shared)
    base.model.diffusion_model.blocks = whole
    assert core.adapter.adapter_of(kept) is not None


def test_what_is_on_the_gpu_is_told_apart(shared):
    def patcher(device, size, loaded):
        return SimpleNamespace(load_device=torch.device(device), model_size=lambda: size, loaded_size=lambda: loaded)

    split = import_module(type(shared).__module__).split
    assert split(patcher("cuda", 10, 4)) == (6, 4)
    assert split(patcher("cpu", 10, 10)) == (10, 0)


def test_every_clone_knows_which_weights_were_read(core, files, shared, base, models_dir, tmp_path):
    module = import_module(type(shared).__module__)
    model = core.adapter.patch_model(base, files.infinitetalk, 1.0, models=shared)
    (adapter,) = model.clone().get_additional_models_with_key(core.wrappers.KEY)
    read = module.fingerprint_of(adapter)
    assert module.fingerprint_of(adapter.clone().clone()) == read
    copy = tmp_path / "copy.safetensors"
    shutil.copyfile(files.infinitetalk, copy)
    other = core.adapter.patch_model(base, copy, 1.0, models=shared)
    assert module.fingerprint_of(other.get_additional_models_with_key(core.wrappers.KEY)[0]) == read
    camera = module.fingerprint_of(core.uni3c.load_uni3c_patcher(files.uni3c, shared))
    audio = import_module(f"{core.adapter.__package__.removesuffix('.model')}.media.audio")
    encoder = audio.load_audio_encoder(models_dir / "audio_encoders" / "tiny_wav2vec2.safetensors", shared)
    assert len({read, camera, module.fingerprint_of(encoder.patcher)}) == 3
    with pytest.raises(ValueError, match="has no fingerprint"):
        module.fingerprint_of(base)


def test_a_file_that_is_written_in_place_is_other_weights_for_new_graphs_only(core, files, shared, tmp_path):
    path = tmp_path / "uni3c.safetensors"
    shutil.copyfile(files.uni3c, path)
    first = core.uni3c.load_uni3c_patcher(path, shared)
    want = {name: value.clone() for name, value in first.model.state_dict().items()}
    with path.open("r+b") as file:
        file.seek(-5000, 2)
        file.write(bytes(5000))
    second = core.uni3c.load_uni3c_patcher(path, shared)
    fingerprint_of = import_module(type(shared).__module__).fingerprint_of
    assert fingerprint_of(first) != fingerprint_of(second)
    now = first.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in want.items())

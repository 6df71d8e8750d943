"""Which weights are on a GPU that is too small for all of them: not left to chance, and noted.

The GPU is the `meta` device with a made-up amount of memory: ComfyUI loads, in part or whole, and nothing is computed.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import pytest
import torch
from test_equality import load_model, make_backend, make_conditioning

LAYER_BYTES = 64 * 64 * 4


@pytest.fixture(scope="module")
def more(pack):
    names = {"memory": "nodes.host.model.memory", "weights": "nodes.host.model.weights_on_gpu"}
    return SimpleNamespace(**{k: import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


class SmallGpu:
    """A GPU with memory for so many equal layers."""

    def __init__(self, layers):
        self.layers, self.modules = layers, []
        comfy.model_management.current_loaded_models.clear()

    def free(self, device=None, torch_free_too=False):
        left = (self.layers * LAYER_BYTES) - sum(module.model_loaded_weight_memory for module in self.modules)
        return (left, 0) if torch_free_too else left

    def patcher(self, name, layers):
        """A model of so many layers."""
        linear = comfy.ops.manual_cast.Linear
        module = type(name, (torch.nn.Sequential,), {})(*(linear(64, 64, bias=False) for _ in range(layers)))
        for layer in module:
            layer.weight = torch.nn.Parameter(torch.zeros(64, 64), requires_grad=False)  # 0.33 makes none
        module.memory_required = lambda input_shape: 1.0
        self.modules.append(module)
        return comfy.model_patcher.ModelPatcher(module, torch.device("meta"), torch.device("cpu"))


@pytest.fixture
def small_gpu(more, monkeypatch):
    """`small_gpu(layers)` returns a new `SmallGpu`; a chunk asks for the memory of one layer."""
    management, made = comfy.model_management, []

    def make(layers):
        made.append(SmallGpu(layers))
        return made[-1]

    monkeypatch.setattr(management, "current_loaded_models", [])
    monkeypatch.setattr(management, "get_free_memory", lambda *args, **kwargs: made[-1].free(*args, **kwargs))
    for name in ("minimum_inference_memory", "extra_reserved_memory"):
        monkeypatch.setattr(management, name, lambda: 0)
    monkeypatch.setattr(management, "soft_empty_cache", lambda force=False: None)
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
    monkeypatch.setattr(management, "MIN_WEIGHT_MEMORY_RATIO", 0)
    monkeypatch.setattr(more.memory, "needed_bytes", lambda model, shape, branches: LAYER_BYTES)
    return make


def load(more, model):
    """Prepare sampling as ComfyUI does inside the MODEL's wrapper."""

    def prepare_sampling(model, noise_shape, conds):
        comfy.model_management.load_models_gpu(
            [model, *model.get_nested_additional_models()],
            memory_required=2 * LAYER_BYTES,
            minimum_memory_required=LAYER_BYTES,
        )

    more.memory.request_memory(prepare_sampling, model, (1, 16, 3, 8, 12), {})


def test_chance_does_not_decide_which_model_is_whole(more, small_gpu):
    kept, found = [], set()
    for _ in range(16):  # at other addresses, by which a set is ordered
        gpu = small_gpu(20)
        model, adapter, camera = (gpu.patcher(*args) for args in (("Wan", 16), ("Adapter", 8), ("Camera", 4)))
        model.set_additional_models("speech", [adapter])
        model.set_additional_models("camera", [camera])
        load(more, model)
        kept.append((model, adapter, camera))
        whole, *others = more.weights.weights_on_gpu(model)
        assert [(other.model, other.layers) for other in others] == [("Adapter", "all"), ("Camera", "all")]
        assert 0 < whole.on_gpu < whole.bytes == 16 * LAYER_BYTES
        found.add((whole.on_gpu, whole.layers))
    assert len(found) == 1


def test_loading_again_changes_nothing_and_asks_once(more, monkeypatch, small_gpu):
    gpu = small_gpu(20)
    model, adapter = gpu.patcher("Wan", 16), gpu.patcher("Adapter", 8)
    model.set_additional_models("speech", [adapter])
    load(more, model)
    before = more.weights.weights_on_gpu(model)
    requests = []
    plain = comfy.model_management.load_models_gpu
    monkeypatch.setattr(
        comfy.model_management,
        "load_models_gpu",
        lambda models, *args, **kwargs: (requests.append(len(models)), plain(models, *args, **kwargs)),
    )
    load(more, model)
    assert more.weights.weights_on_gpu(model) == before and requests == [2]


def test_copies_on_other_gpus_are_left_to_comfyui(more, monkeypatch, small_gpu):
    gpu = small_gpu(99)
    model = gpu.patcher("Wan", 2)
    model.set_additional_models("multigpu", [gpu.patcher("Wan", 2)])
    requests = []
    monkeypatch.setattr(
        comfy.model_management, "load_models_gpu", lambda models, **kwargs: requests.append(len(models))
    )
    load(more, model)
    assert requests == [2]


@torch.inference_mode()
def test_the_backend_notes_the_weights_of_each_chunk(core, files, own):
    """On the CPU all of them are where they are used."""
    made = make_backend(core, load_model(core, files), core.guidance.Guidance(1, 1), steps=1)
    c = make_conditioning(core, own)
    made.denoise(c, lambda s, x: None)
    noted = made.weights_of(c.chunk.index)
    assert [weights.model for weights in noted] == ["WAN21", "AudioAdapter"]
    assert all(weights.layers == "all" and weights.on_gpu == weights.bytes > 0 for weights in noted)
    assert made.weights_of(c.chunk.index) == (), "told once"


def test_dynamic_vram_is_noted_as_such(more, monkeypatch, small_gpu):
    gpu = small_gpu(20)
    model = gpu.patcher("Wan", 2)
    monkeypatch.setattr(model, "is_dynamic", lambda: True, raising=False)
    (noted,) = more.weights.weights_on_gpu(model)
    assert (noted.layers, noted.on_gpu) == ("dynamic", 0)

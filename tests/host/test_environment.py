"""The versions, devices and types that a run's key contains."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.ldm.modules.attention
import torch

REPO = Path(__file__).resolve().parents[2]
START = """
import sys
sys.path.append("tools")
import in_process
in_process.enter_comfyui(in_process.comfyui_folder())
import comfy.samplers, comfy.sd
for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
    del sys.modules[name]  # ComfyUI has imported its tokenizers
in_process.load_pack()
found = [name for name in ("transformers", "scipy.signal") if name in sys.modules]
assert not found, found
"""


def test_the_start_of_comfyui_does_not_wait_for_what_only_speech_needs(comfyui):
    done = subprocess.run(
        [sys.executable, "-c", START],
        cwd=REPO,
        env={**os.environ, "COMFYUI_DIR": str(comfyui)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_types_that_comfyui_was_started_with_are_part_of_it(pack):
    from comfy.cli_args import args

    precision = import_module(f"{pack.__name__}.nodes.host.model.environment").precision

    def of(model: Any = torch.float16, cast: Any = None, vae: Any = torch.float32) -> dict[str, Any]:
        inner = SimpleNamespace(get_dtype=lambda: model)
        patcher = SimpleNamespace(model=inner, get_model_object={"manual_cast_dtype": cast}.get)
        return precision(patcher, SimpleNamespace(vae_dtype=vae, device=torch.device("cpu")))

    found = [of(), of(model=torch.float8_e4m3fn), of(cast=torch.float32), of(vae=torch.bfloat16)]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert args.fast is not None and found[0]["fast"] == []


def test_what_changes_bits_between_two_versions_of_the_pack_is_part_of_them(pack, monkeypatch):
    environment = import_module(f"{pack.__name__}.nodes.host.model.environment")
    before = environment.versions()
    assert before["method"] >= 2, "1, where it was not named, encoded every reference whole"
    monkeypatch.setattr(environment, "METHOD", environment.METHOD + 1)
    assert environment.versions() != before


def test_packages_of_attention_count_where_they_are_used(pack, core, monkeypatch):
    environment = import_module(f"{pack.__name__}.nodes.host.model.environment")
    attention = import_module(f"{pack.__name__}.nodes.host.model.attention")
    installed = {"sageattention": ["sageattention"], "triton": ["triton-windows"], "flash_attn": ["flash-attn"]}
    monkeypatch.setattr(environment.importlib.metadata, "packages_distributions", lambda: installed)
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda name: f"1 of {name}")

    def of(override: Any) -> dict[str, str]:
        options = {} if override is None else {"transformer_options": {attention.OVERRIDE: override}}
        found = environment.attention_versions(SimpleNamespace(model_options=options))
        assert found["attention"]
        return found["attention_packages"]

    kernels = import_module(f"{pack.__name__}.infinitetalk_core.model.kernels")
    sage = attention.ChosenAttention(kernels.AttentionBackend.SAGE, kernels.SAGE)
    assert of(attention.ChosenAttention(kernels.AttentionBackend.SDPA)) == {}
    assert of(sage) == {"sageattention": "1 of sageattention", "triton-windows": "1 of triton-windows"}
    monkeypatch.setitem(attention.sys.modules, "flash_attn", SimpleNamespace())
    monkeypatch.delitem(attention.sys.modules, "sageattention", raising=False)
    assert "flash-attn" in of(lambda *a: None), "another node does not say by what"
    assert "sageattention" not in of(lambda *a: None), "but what is not loaded is not used"
    assert of(None) == {}, "ComfyUI's own on a CPU"
    chosen = SimpleNamespace(__name__="attention_flash")
    monkeypatch.setattr(comfy.ldm.modules.attention, "optimized_attention", chosen)
    assert of(None) == {"flash-attn": "1 of flash-attn"}


def test_cudnn_and_the_driver_count_on_a_gpu(pack, monkeypatch, tmp_path):
    environment = import_module(f"{pack.__name__}.nodes.host.model.environment")
    assert not {"cudnn", "driver"} & set(environment.versions())
    monkeypatch.setattr(environment.comfy.model_management, "get_torch_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(environment.comfy.model_management, "get_torch_device_name", lambda device: "cuda:0 card")
    note = tmp_path / "version"
    note.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\nGCC version: 12.2.0\n")
    monkeypatch.setattr(environment, "NVIDIA_DRIVER", note)
    found = environment.versions()
    assert found["driver"] == "550.54.14" and "cudnn" in found
    note.unlink()
    assert environment.versions()["driver"] != "550.54.14"


# -- graphs of other packs

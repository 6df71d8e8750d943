"""The random weights in the released shapes have the tensors that ComfyUI's own networks of these files have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sentencepiece")
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import make_released_shapes as released
import released_shapes as bench

LAYERS = 2
ADDED = ("scaled_fp8", ".scale_weight", "spiece_model", ".position_ids")  # what the files hold beside the networks'


def network(comfyui: Path, folder: str) -> torch.nn.Module:
    import comfy.clip_model
    import comfy.ldm.wan.model
    import comfy.ldm.wan.vae
    import comfy.ops
    import comfy.text_encoders.t5

    def config(path: str) -> dict[str, Any]:
        return json.loads((comfyui / "comfy" / path).read_text(encoding="utf-8"))

    operations = comfy.ops.disable_weight_init
    if folder == "text_encoders":
        return comfy.text_encoders.t5.T5(
            config("text_encoders/umt5_config_xxl.json"), torch.float16, "meta", operations
        )
    if folder == "clip_vision":
        return comfy.clip_model.CLIPVisionModelProjection(
            config("clip_vision_config_h.json"), torch.float16, "meta", operations
        )
    if folder == "vae":
        return comfy.ldm.wan.vae.WanVAE(
            dim=96,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
        )
    return comfy.ldm.wan.model.WanModel(
        model_type="i2v",
        dim=5120,
        ffn_dim=13824,
        num_heads=40,
        num_layers=LAYERS,
        in_dim=36,
        device="meta",
        dtype=torch.float16,
        operations=operations,
    )


@pytest.mark.parametrize("folder", ["text_encoders", "clip_vision", "vae", "diffusion_models"])
def test_they_are_the_tensors_of_comfyuis_network(comfyui: Path, folder: str) -> None:
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in network(comfyui, folder).state_dict().items()}
    assert {name: shape for name, shape in shapes_of(folder).items() if not name.endswith(ADDED)} == wanted


def test_the_lora_changes_tensors_that_the_model_has(comfyui: Path) -> None:
    changes = {name.removeprefix("diffusion_model."): shape for name, shape in shapes_of("loras").items()}
    model = shapes_of("diffusion_models")
    for name, shape in changes.items():
        layer, _, kind = name.removesuffix(".weight").rpartition(".")
        tensor = f"{layer}.bias" if kind == "diff_b" else f"{layer}.weight"
        if kind in ("diff", "diff_b"):
            assert model[tensor] == shape, name
        else:
            assert model[tensor][1 if kind == "lora_down" else 0] == shape[1 if kind == "lora_down" else 0], name


def test_a_row_says_that_the_workflow_finished_or_why_not(server: Any, small: Callable, short_voice: str) -> None:
    graph = small(bench.workflow_of("talking_portrait"))
    for node in graph.values():
        if node["class_type"] == "LoadAudio":
            node["inputs"]["audio"] = short_voice
        if node["class_type"] == bench.SAMPLER:
            node["inputs"] |= {"chunk_frames": 81, "context_frames": 9, "start_over": True}
    row = bench.run(server, "talking_portrait", graph, 300)
    assert row["outcome"] == "finished" and row["frames"] > 25, row
    assert 0 < row["s in the sampler"] <= row["s"] and 0.2 < row["peak GiB"] < 8 and row["CPU s"] > 0, row
    graph["11"]["inputs"].pop("audio")
    with pytest.raises(bench.RefusedError):
        bench.run(server, "talking_portrait", graph, 300)


def shapes_of(folder: str) -> dict[str, tuple[int, ...]]:
    file = next(file for file in released.FILES if file.startswith(f"{folder}/"))
    return {tensor.name: tensor.shape for tensor in released.FILES[file](released.with_layers(LAYERS))}

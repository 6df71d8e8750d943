"""The random weights in the released shapes: the files that the workflows name, and the published sizes in bytes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from infinitetalk_core.checkpoints.kinds import CheckpointKind, kind_of
from infinitetalk_core.model.audio_adapter import AdapterConfig
from infinitetalk_core.model.uni3c import Uni3CConfig
from infinitetalk_core.model.wan import WanConfig

REPO = Path(__file__).resolve().parents[2]
sys.path += [str(REPO / "tools"), str(REPO / "benchmarks")]

pytest.importorskip("sentencepiece")
import make_released_shapes as released  # noqa: E402
import released_shapes as bench  # noqa: E402

# folder → the kind, and the bytes of the file on Hugging Face
PUBLISHED = {
    "diffusion_models": (CheckpointKind.WAN_I2V, 16_401_356_938),
    "loras": (CheckpointKind.LORA, 739_472_104),
    "model_patches": (CheckpointKind.INFINITETALK, 5_125_258_232),
    "controlnet": (CheckpointKind.UNI3C, 1_997_314_376),
    "vae": (CheckpointKind.VAE, 253_815_318),
    "audio_encoders": (CheckpointKind.WAV2VEC, 190_115_368),
    "clip_vision": (CheckpointKind.CLIP_VISION, 1_264_219_396),
    "text_encoders": (CheckpointKind.TEXT_ENCODER, 6_735_906_897 - 4_548_313),  # without its tokenizer
}
LAYERS = 2


def tensors_of(file: str, layers: int = LAYERS) -> list[released.Stored]:
    return list(released.FILES[file](released.with_layers(layers)))


def shapes_of(file: str) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in tensors_of(file)}


def test_every_file_of_every_workflow_is_written_under_its_name() -> None:
    named = set()
    for path in (REPO / "workflows").glob("*.json"):
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            named |= {f"{model['directory']}/{model['name']}" for model in node["properties"].get("models", [])}
    assert named == set(released.FILES)


@pytest.mark.parametrize("file", released.FILES)
def test_with_all_layers_it_has_the_published_size(file: str) -> None:
    tensors = [tensor for tensor in tensors_of(file, released.RELEASED_LAYERS) if tensor.name != "spiece_model"]
    assert released.size_of(tensors) == pytest.approx(PUBLISHED[file.split("/")[0]][1], rel=1e-4)


@pytest.mark.parametrize("file", released.FILES)
def test_it_is_detected(file: str) -> None:
    shapes = shapes_of(file)
    assert kind_of(shapes) is PUBLISHED[file.split("/")[0]][0]


def test_the_sizes_read_from_the_shapes_are_the_defaults() -> None:
    files = {file.split("/")[0]: file for file in released.FILES}
    assert WanConfig.from_shapes(shapes_of(files["diffusion_models"]), 40) == WanConfig(layers=LAYERS)
    assert AdapterConfig.from_shapes(shapes_of(files["model_patches"]), 40) == AdapterConfig(
        5120, 40, LAYERS, audio_width=12 * 768
    )
    assert Uni3CConfig.from_shapes(shapes_of(files["controlnet"])) == replace(Uni3CConfig(), blocks=LAYERS)


def test_a_written_file_is_what_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both layouts, with more numbers than are drawn at once."""
    small = replace(released.RELEASED, wan_dim=128, wan_layers=1, wan_ffn=64, text_width=64, clip_width=64)
    monkeypatch.setattr(released, "BLOCK", 1009)
    chosen = [file for file in released.FILES if file.startswith(("diffusion_models/", "model_patches/"))]
    monkeypatch.setattr(released, "FILES", {file: released.FILES[file] for file in chosen})
    monkeypatch.setattr(released, "RELEASED_LAYERS", 1)
    narrow = replace(small, speech_layers=2, speech_channels=32, audio_hidden=16, audio_width=16)
    for path in released.write_released(tmp_path, narrow):
        wanted = list(released.FILES[f"{path.parent.name}/{path.name}"](narrow))
        with safe_open(path, "pt") as file:
            for tensor in wanted:
                value = file.get_tensor(tensor.name)
                assert (tuple(value.shape), value.dtype) == (tensor.shape, tensor.dtype), tensor.name
                assert torch.isfinite(value.float()).all(), tensor.name
            if "scaled_fp8" in file.keys():  # noqa: SIM118  (safe_open is no dict)
                name = "blocks.0.ffn.0"
                numbers = file.get_tensor(f"{name}.weight").float() * file.get_tensor(f"{name}.scale_weight")
                assert float(numbers.std()) == pytest.approx(128**-0.5, rel=0.05)


def test_the_tokenizer_knows_the_texts_of_the_workflows() -> None:
    import sentencepiece

    file = bytes(released.tokenizer_file(released.prompts()))
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=file, add_bos=False, add_eos=True)
    ids = tokenizer.encode(released.prompts()[0])
    assert ids[-1] == 1 and 2 not in ids and max(ids) < released.VOCABULARY


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPO / "workflows" / "api").glob("*.json")))
def test_only_widgets_are_changed_and_every_workflow_is_run(name: str) -> None:
    assert name in bench.ORDER
    shipped = json.loads((REPO / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    changed = bench.workflow_of(name)
    differing = {
        (node["class_type"], widget)
        for i, node in shipped.items()
        for widget, value in node["inputs"].items()
        if changed[i]["inputs"][widget] != value
    }
    assert differing <= {(node, widget) for node, widgets in bench.OVERRIDES.items() for widget in widgets}
    assert {i: node["inputs"].keys() for i, node in shipped.items()} == {
        i: node["inputs"].keys() for i, node in changed.items()
    }

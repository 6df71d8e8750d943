"""What makes a run another run, and what does not: a run that is not found again costs hours, a mixed one a video."""

from __future__ import annotations

import copy
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

MODEL, LOADER, TALK, SAMPLER = "model", "UNETLoader", "InfiniteTalkModelLoader", "InfiniteTalkChunkSampler"
INPUTS = ("model", "vae", "clip_vision", "positive", "negative", "speech", "sampler", "camera")


@pytest.fixture
def key(core, pack, tmp_path, monkeypatch):
    """`key(workflow)`: what the sampler's run is known by, of all that comes from other nodes."""
    import folder_paths

    identity = import_module(f"{pack.__name__}.nodes.host.identity")
    known = import_module(f"{pack.__name__}.infinitetalk_core.identity")
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))

    def of(workflow: dict[str, Any]) -> str:
        nodes = SimpleNamespace(get_node=workflow.__getitem__, has_node=workflow.__contains__)
        (sampler,) = [i for i, node in workflow.items() if node["class_type"] == SAMPLER]
        hidden = SimpleNamespace(dynprompt=nodes, unique_id=sampler)
        return known.run_key(identity.Graph(hidden, known.FileIdentities()).behind(*INPUTS))

    return of


def changed(workflow: dict[str, Any], kind: str, **inputs: Any) -> dict[str, Any]:
    found = copy.deepcopy(workflow)
    nodes = [node for node in found.values() if node["class_type"] == kind]
    assert nodes and set(inputs) <= set(nodes[0]["inputs"])
    for node in nodes:
        node["inputs"].update(inputs)
    return found


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (TALK, {"attention": "sdpa"}),
        (TALK, {"strength": 0.9}),
        (LOADER, {"weight_dtype": "fp8_e4m3fn"}),
        (LOADER, {"unet_name": "another.safetensors"}),
        ("LoraLoaderModelOnly", {"strength_model": 0.5}),
        ("LoadAudio", {"audio": "another.wav"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_another_attention_precision_or_file_is_another_run(key, small, kind, inputs):
    workflow = small("video_dubbing")
    assert key(changed(workflow, kind, **inputs)) != key(workflow)


def test_names_titles_ids_and_places_are_not(key, small, tmp_path):
    workflow = small("video_dubbing")
    (tmp_path / "voice.wav").write_bytes(b"sound")
    (tmp_path / "copy.wav").write_bytes(b"sound")
    plain = key(workflow)
    assert key(changed(workflow, "LoadAudio", audio="copy.wav")) == plain, "a file is known by its content"
    assert key(changed(workflow, SAMPLER, filename_prefix="elsewhere/name")) == plain
    other = {f"9{i}": copy.deepcopy(node) for i, node in workflow.items()}
    for node in other.values():
        node["_meta"] = {"title": "mine"}
        links = {n: [f"9{v[0]}", v[1]] for n, v in node["inputs"].items() if isinstance(v, list)}
        node["inputs"].update(links)
    assert key(other) == plain
    (tmp_path / "voice.wav").write_bytes(b"sound of another day")
    assert key(workflow) != plain, "the same name with other content"


def test_the_types_that_comfyui_was_started_with_are_part_of_it(pack):
    import torch
    from comfy.cli_args import args

    precision = import_module(f"{pack.__name__}.nodes.host.identity").precision

    def of(model: Any = torch.float16, cast: Any = None, vae: Any = torch.float32) -> dict[str, Any]:
        inner = SimpleNamespace(get_dtype=lambda: model, manual_cast_dtype=cast)
        return precision(SimpleNamespace(model=inner), SimpleNamespace(vae_dtype=vae, device=torch.device("cpu")))

    found = [of(), of(model=torch.float8_e4m3fn), of(cast=torch.float32), of(vae=torch.bfloat16)]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert args.fast is not None and found[0]["fast"] == []

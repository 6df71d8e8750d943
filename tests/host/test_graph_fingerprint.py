"""What makes a run another run, and what does not: a run that is not found again costs hours, a mixed one a video."""

from __future__ import annotations

import copy
import math
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

LOADER, TALK, SAMPLER = "UNETLoader", "InfiniteTalkModelLoader", "InfiniteTalkChunkSampler"
WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，"
    "倒着走"
)


@pytest.fixture
def host(pack):
    return import_module(f"{pack.__name__}.nodes.host.sampling.graph_fingerprint")


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """A models folder and an input folder of the test's own."""
    import folder_paths

    folders = {}
    for kind in ("diffusion_models", "loras", "vae"):
        (tmp_path / kind).mkdir()
        folders[kind] = ([str(tmp_path / kind)], {".safetensors"})
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    (tmp_path / "loras" / "tiny_lora.safetensors").write_bytes(b"lora")
    (tmp_path / "loras" / "copy.safetensors").write_bytes(b"lora")
    return tmp_path


@pytest.fixture
def graph(core, host):
    """`graph(workflow)`: what is known of the graph behind the sampler."""

    def of(workflow: dict[str, Any]) -> Any:
        nodes = SimpleNamespace(get_node=workflow.__getitem__, has_node=workflow.__contains__)
        (sampler,) = [i for i, node in workflow.items() if node["class_type"] == SAMPLER]
        return host.Graph(SimpleNamespace(dynprompt=nodes, unique_id=sampler), core.fingerprint.FileFingerprints())

    return of


@pytest.fixture
def key(core, graph):
    """`key(workflow)`: what the MODEL of a workflow is known by."""
    return lambda workflow, name="model": core.fingerprint.key_of(graph(workflow).upstream_of(name).fingerprint)


def changed(workflow: dict[str, Any], kind: str, **inputs: Any) -> dict[str, Any]:
    found = copy.deepcopy(workflow)
    nodes = [node for node in found.values() if node["class_type"] == kind]
    assert nodes and set(inputs) <= set(nodes[0]["inputs"])
    for node in nodes:
        node["inputs"].update(inputs)
    return found


def with_node(workflow: dict[str, Any], kind: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """`workflow` with one more node between its MODEL and the sampler."""
    found = copy.deepcopy(workflow)
    (sampler,) = [node for node in found.values() if node["class_type"] == SAMPLER]
    found["more"] = {"class_type": kind, "inputs": {"model": sampler["inputs"]["model"], **inputs}, **more}
    sampler["inputs"]["model"] = ["more", 0]
    return found


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (TALK, {"attention": "sdpa"}),
        (TALK, {"strength": 0.9}),
        (LOADER, {"weight_dtype": "fp8_e4m3fn"}),
        (LOADER, {"unet_name": "another.safetensors"}),
        ("LoraLoaderModelOnly", {"strength_model": 0.5}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_another_attention_precision_or_file_is_another_model(key, small, kind, inputs):
    workflow = small("video_dubbing")
    assert key(changed(workflow, kind, **inputs)) != key(workflow)


def test_names_titles_ids_and_places_are_not(key, small, models):
    workflow = small("video_dubbing")
    plain = key(workflow)
    copied = changed(workflow, "LoraLoaderModelOnly", lora_name="copy.safetensors")
    assert key(copied) == plain, "a file is known by its content"
    assert key(changed(workflow, SAMPLER, filename_prefix="elsewhere/name")) == plain
    other = {f"9{i}": copy.deepcopy(node) for i, node in workflow.items()}
    for node in other.values():
        node["_meta"] = {"title": "mine"}
        links = {n: [f"9{v[0]}", v[1]] for n, v in node["inputs"].items() if isinstance(v, list)}
        node["inputs"].update(links)
    assert key(other) == plain
    (models / "loras" / "tiny_lora.safetensors").write_bytes(b"lora of another day")
    assert key(workflow) != plain, "the same name with other content"
    assert key(copied) == plain


def test_a_file_of_ours_is_known_by_what_was_loaded(key, small, models):
    """Its name says nothing: the loaded weights carry their fingerprint."""
    (models / "diffusion_models" / "a.safetensors").write_bytes(b"one")
    (models / "diffusion_models" / "b.safetensors").write_bytes(b"another")
    with_a, with_b = (
        with_node(small("talking_portrait"), "InfiniteTalkModelLoader", {"infinitetalk": f"{name}.safetensors"})
        for name in "ab"
    )
    import nodes

    own = SimpleNamespace(tracks_its_files=True, INPUT_TYPES=lambda: {"required": {"infinitetalk": (["a", "b"],)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(nodes.NODE_CLASS_MAPPINGS, "InfiniteTalkModelLoader", own)
        assert key(with_a) == key(with_b)
    assert key(with_a) != key(with_b), "of any other pack's loader the file counts"


def test_a_walk_asks_a_node_for_its_inputs_once(graph, small):
    """INPUT_TYPES of a loader lists the files of its folders, which takes long on a network drive."""
    import nodes

    asked = []
    cls = SimpleNamespace(INPUT_TYPES=lambda: asked.append(1) or {"required": {"unet_name": (["a"],)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(nodes.NODE_CLASS_MAPPINGS, LOADER, cls)
        graph(small("talking_portrait")).upstream_of("model")
    assert len(asked) == 1


@pytest.mark.parametrize("link", [False, True])
def test_a_name_may_come_over_a_link(key, small, models, link):
    """Of a text node, as graphs have it whose loader's choice was turned into an input."""
    workflow = small("video_dubbing")
    name: Any = "copy.safetensors"
    if link:
        workflow["text"] = {"class_type": "PrimitiveString", "inputs": {"value": name}}
        name = ["text", 0]
    workflow = changed(workflow, "LoraLoaderModelOnly", lora_name=name)
    plain = key(workflow)
    (models / "loras" / "copy.safetensors").write_bytes(b"lora of another day")
    assert key(workflow) != plain


def test_the_files_of_a_model_that_is_a_folder_count(key, graph, small, models):
    folder = models / "diffusion_models" / "wan"
    (folder / "transformer").mkdir(parents=True)
    part = folder / "transformer" / "part.safetensors"
    part.write_bytes(b"1")
    workflow = changed(small("talking_portrait"), LOADER, unet_name="wan")
    assert part not in graph(workflow).upstream_of("model").files, "any other folder may be a shelf of models"
    (folder / "model_index.json").write_text("{}")
    plain = key(workflow)
    part.write_bytes(b"2")
    assert key(workflow) != plain


@pytest.mark.parametrize("changes", [float("nan"), [float("nan")], ["a", float("nan")], [object()], [[1, 2]]])
def test_a_node_that_is_another_one_each_time_makes_a_run_of_its_own(key, small, changes):
    workflow = with_node(small("talking_portrait"), "Random", {}, is_changed=changes)
    assert key(workflow) != key(workflow)


@pytest.mark.parametrize("changes", [["2 bytes"], [17], [0.5], [None], [True], "text"])
def test_what_a_node_says_of_its_changes_counts(key, small, changes):
    plain = with_node(small("talking_portrait"), "Folder", {})
    noted = with_node(small("talking_portrait"), "Folder", {}, is_changed=changes)
    other = with_node(small("talking_portrait"), "Folder", {}, is_changed=["another"])
    assert key(noted) == key(copy.deepcopy(noted))
    assert len({key(plain), key(noted), key(other)}) == 3


def test_the_place_in_a_list_counts_where_there_is_one(key, small):
    from comfy_execution.utils import CurrentNodeContext

    import nodes

    listing = SimpleNamespace(OUTPUT_IS_LIST=(True,), INPUT_TYPES=lambda: {})
    workflow = with_node(small("talking_portrait"), "Strengths", {})
    keys = {}
    for lists in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if lists:
                patch.setitem(nodes.NODE_CLASS_MAPPINGS, "Strengths", listing)
            for index in (0, 1):
                with CurrentNodeContext("prompt", "31", index):
                    keys[lists, index] = key(workflow)
    assert keys[False, 0] == keys[False, 1]
    assert len({keys[True, 0], keys[True, 1], keys[False, 0]}) == 3


def test_without_a_prompt_nothing_is_found_again(core, host):
    for hidden in (None, SimpleNamespace(dynprompt=None, unique_id=None)):
        graph = host.Graph(hidden, core.fingerprint.FileFingerprints())
        assert graph.upstream_of("model").fingerprint != graph.upstream_of("model").fingerprint


# -- which texts are looked for on the disk


def test_only_choices_are_looked_for(host):
    import nodes

    known = nodes.NODE_CLASS_MAPPINGS
    assert host.choices_of(known["CLIPTextEncode"], ["text", "clip"]) == set()
    assert host.choices_of(known["LoraLoaderModelOnly"], ["model", "lora_name", "strength_model"]) == {"lora_name"}
    assert host.choices_of(known["LoadImage"], ["image"]) == {"image"}
    assert host.choices_of(None, ["model"]) == {"model"}, "a node that is not known may name anything"
    kinds = {"a": ("COMBO", {"options": ["a"]}), "b": ("COMBO,STRING",), "c": ("COMFY_DYNAMICCOMBO_V3",), "n": ("INT",)}
    newer = SimpleNamespace(INPUT_TYPES=lambda: {"optional": kinds})
    assert host.choices_of(newer, kinds) == {"a", "b", "c"}
    assert host.choices_of(newer, ["c.file"]) == {"c.file"}, "parts of a dynamic input are not listed"


@pytest.mark.parametrize(
    "text",
    [
        WAN_NEGATIVE,
        "她" * 86,  # 258 bytes
        "她" * 5000,
        "a/" * 3000,
        "nul\0inside",
        "line\nbreak",
        "\ud83d half an emoji",
        "",
        " ",
        ".",
        "con",
        "*?<>|",
        "a person ../ who speaks",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_any_text_can_be_looked_for(host, models, text):
    assert list(host.files_named(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        r"\\server\share\model.safetensors",
        "//server/share/model.safetensors",
        r"\\?\C:\model.safetensors",
        r"C:\model.safetensors",
        "c:model.safetensors",
        "/etc/passwd",
        "../secret",
        r"..\secret",
        "a/../../secret",
        "../secret [output]",
    ],
)
def test_no_name_that_leads_elsewhere_is_looked_for(host, models, monkeypatch, text):
    """Another machine would be asked for its file, with this one's password, just to look."""
    (models / "secret").write_bytes(b"")

    def asked(path: Path, *_: Any) -> bool:
        raise AssertionError(f"{path} was looked for")

    monkeypatch.setattr(Path, "is_file", asked)
    monkeypatch.setattr(Path, "is_dir", asked)
    assert list(host.files_named(text)) == []


# -- content


class ControlNet:
    """Something that cannot be read."""


def test_conditioning_is_known_by_its_content(core, graph, small):
    import comfy.clip_vision

    workflow = small("talking_portrait")
    found = graph(workflow)
    text = torch.randn(1, 512, 64)
    seen = comfy.clip_vision.Output()
    seen["penultimate_hidden_states"] = torch.zeros(1, 257, 8)

    def key(conditioning: Any) -> str:
        return core.fingerprint.key_of(found.content("positive", conditioning).fingerprint)

    plain = [[text, {"pooled_output": None}]]
    assert key(plain) == key([[text.clone(), {"pooled_output": None}]])
    changed = text.clone()
    changed[0, 100, 3] += 1e-6
    others = [
        [[changed, {"pooled_output": None}]],
        [[text, {"pooled_output": torch.zeros(1, 4)}]],
        [[text, {"pooled_output": None, "start_percent": 0.5}]],
        [[text, {}], [text, {}]],
        [[text, {"clip_vision_output": seen}]],
    ]
    assert len({key(c) for c in [plain, *others]}) == 6
    with_vision = key(others[-1])
    seen["penultimate_hidden_states"] = torch.ones(1, 257, 8)
    assert key(others[-1]) != with_vision


def test_what_cannot_be_read_in_it_is_known_by_the_graph_as_well(core, graph, small):
    workflow = small("talking_portrait")
    (sampler,) = [node for node in workflow.values() if node["class_type"] == SAMPLER]
    workflow["prompt"] = {"class_type": "Prompt", "inputs": {"strength": 1.0}}
    sampler["inputs"]["positive"] = ["prompt", 0]
    conditioning = [[torch.zeros(1, 4, 4), {"control": ControlNet()}]]

    def key(workflow: dict[str, Any], conditioning: Any = conditioning) -> str:
        return core.fingerprint.key_of(graph(workflow).content("positive", conditioning).fingerprint)

    assert key(workflow) == key(copy.deepcopy(workflow))
    assert key(changed(workflow, "Prompt", strength=0.5)) != key(workflow)
    assert key(workflow, [[torch.ones(1, 4, 4), {"control": ControlNet()}]]) != key(workflow), "its content too"
    workflow["prompt"]["is_changed"] = [math.nan]
    assert key(workflow) != key(workflow)


# -- what is loaded


def test_a_long_chain_of_nodes(key, small):
    workflow = small("talking_portrait")
    (sampler,) = [node for node in workflow.values() if node["class_type"] == SAMPLER]
    for number in range(3000):
        workflow[f"x{number}"] = {"class_type": "LoraOf", "inputs": {"model": sampler["inputs"]["model"]}}
        sampler["inputs"]["model"] = [f"x{number}", 0]
    plain = key(workflow)
    assert key(workflow) == plain
    workflow["x0"]["inputs"]["strength"] = 0.5
    assert key(workflow) != plain


def test_without_a_cache_of_outputs_nobody_notes_changes(key, small, monkeypatch):
    """ComfyUI --cache-none never asks IS_CHANGED, so what it would say is not known."""
    import nodes

    workflow = with_node(small("talking_portrait"), "Random", {})
    assert key(workflow) == key(workflow)
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "Random", SimpleNamespace(IS_CHANGED=None, INPUT_TYPES=lambda: {}))
    assert key(workflow) != key(workflow)


def test_an_object_in_an_expansion_makes_a_run_of_its_own(key, graph, small):
    workflow = with_node(small("talking_portrait"), "Loop", {"initial": object()})
    assert key(workflow) != key(workflow)
    assert "Loop was handed a object" in graph(workflow).upstream_of("model").unknown


def test_what_a_node_was_expanded_to_counts(core, host, small):
    workflow = with_node(small("talking_portrait"), "Group", {})
    workflow["more.1"] = {"class_type": "Random", "inputs": {"model": ["more", 0]}, "is_changed": [math.nan]}
    (sampler,) = [i for i, node in workflow.items() if node["class_type"] == SAMPLER]
    nodes = SimpleNamespace(
        get_node=workflow.__getitem__, has_node=workflow.__contains__, ephemeral_parents={"more.1": "more"}
    )
    files = core.fingerprint.FileFingerprints()
    graph = host.Graph(SimpleNamespace(dynprompt=nodes, unique_id=sampler), files)
    assert "Random says that it is another one each time" in graph.upstream_of("model").unknown


def test_a_choice_outside_of_comfyuis_folders_or_one_that_cannot_be_read_is_not_known(key, graph, small, models):
    workflow = small("video_dubbing")
    outside = changed(workflow, "LoraLoaderModelOnly", lora_name="/elsewhere/style.safetensors")
    assert key(outside) != key(outside)
    files = graph(workflow)

    def denied(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    files._files.of = denied
    assert "cannot be read (Permission denied)" in files.upstream_of("model").unknown


def test_pictures_that_a_node_loads_again_are_not_files_of_the_model(graph, small, models):
    """It tells its changes, so ComfyUI runs it again."""
    (models / "input").mkdir()
    (models / "input" / "style.png").write_bytes(b"1")
    workflow = with_node(small("video_dubbing"), "StyledBy", {"picture": ["picture", 0]})
    workflow["picture"] = {"class_type": "LoadImage", "inputs": {"image": "style.png"}, "is_changed": ["abc"]}
    names = {path.name for path in graph(workflow).upstream_of("model").files}
    assert "style.png" not in names and "tiny_lora.safetensors" in names

"""Adapt workflows to small models: set their file names and settings, and remove nodes without a small model.

There are two sets. The trained one (small_models/, made by training) animates drawn characters; the random one
(make_tiny_models.py) has only the formats, for tests that do not depend on the picture.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Workflow = dict[str, dict[str, Any]]
Settings = Mapping[str, Mapping[str, Any]]

TRAINED_MODELS = Path(__file__).resolve().parent.parent / "small_models"
WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
MEDIA_SUFFIXES = (".png", ".jpg", ".wav", ".flac", ".mp4")
PICKER, GUIDANCE, SAMPLER = "InfiniteTalkReferencePicker", "InfiniteTalkGuidance", "InfiniteTalkChunkSampler"
# ComfyUI's loaders of these accept the real sizes only, so there are no small versions.
WITHOUT_SMALL_FILE = ("CLIPLoader", "CLIPVisionLoader")
LORA_LOADER, QUALITY = "LoraLoaderModelOnly", "InfiniteTalkQuality"


@dataclass(frozen=True)
class SmallModels:
    """File names that replace the real ones, and the settings that the models need, by node type."""

    prefix: str  # of the file names
    has_lora: bool  # if False, LoRA loaders are removed, and Guidance takes the place of Quality
    settings: Settings

    @property
    def files(self) -> dict[str, str | dict[str, str]]:
        """Return by node type the input that names a file and its value, or the value alone for the pack's loaders."""
        name = f"{self.prefix}_{{}}.safetensors".format
        return {
            "UNETLoader": {"unet_name": name("wan2.1_i2v"), "weight_dtype": "default"},
            "VAELoader": {"vae_name": name("wan_vae")},
            "ModelPatchLoader": {"name": name("infinitetalk_single")},
            LORA_LOADER: {"lora_name": name("lora")},
            QUALITY: {"lora": name("lora")},
            "InfiniteTalkAudioEncoderLoader": name("wav2vec2"),
            "InfiniteTalkModelLoader": name("infinitetalk_single"),
            "InfiniteTalkUni3CLoader": name("uni3c"),
        }


TRAINED = SmallModels(
    prefix="small",
    has_lora=False,
    # The settings that they were trained for; see small_models/README.md.
    settings={
        PICKER: {"size": "custom", "width": 96, "height": 96},
        GUIDANCE: {"preset": "custom", "steps": 8, "text_scale": 1.0, "audio_scale": 2.0, "shift": 3.0, "apg": False},
        SAMPLER: {"chunk_frames": 33, "context_frames": 9},
    },
)
RANDOM = SmallModels(
    prefix="tiny",
    has_lora=True,
    # Few steps and small pictures; speech guidance stays on.
    settings={
        PICKER: {"size": "custom", "width": 128, "height": 128},
        GUIDANCE: {"preset": "custom", "steps": 4, "text_scale": 1.0, "audio_scale": 3.0, "shift": 7.0},
    },
)


def with_small_models(workflow: Workflow, models: SmallModels = TRAINED) -> Workflow:
    """Return a copy of an API workflow that runs on small models.

    File names and settings are replaced; loaders without a small file are removed, together with every node that
    requires their output. Links from other nodes to a removed node are removed too: the pack's nodes have optional
    inputs.
    """
    small = copy.deepcopy(workflow)
    if not models.has_lora:
        _guide_instead(small)
    for node in small.values():
        _rename(node, models.files.get(node["class_type"], {}))
        node["inputs"].update(models.settings.get(node["class_type"], {}))
    if not models.has_lora:
        _bypass_loras(small)
    if any(node["class_type"] == "InfiniteTalkSpeakers" for node in small.values()):
        _make_room_for_two(small)
    gone = {i for i, node in small.items() if node["class_type"] in WITHOUT_SMALL_FILE}
    while found := {i for i in small.keys() - gone if _cannot_do_without(small[i], gone)}:
        gone |= found
    kept = {i: node for i, node in small.items() if i not in gone}
    for node in kept.values():
        node["inputs"] = {name: value for name, value in node["inputs"].items() if not _links_to(value, gone)}
    return kept


def _rename(node: dict[str, Any], files: str | dict[str, str]) -> None:
    if isinstance(files, str):
        # The input that names a weight file.
        names = [k for k, v in node["inputs"].items() if isinstance(v, str) and Path(v).suffix in WEIGHT_SUFFIXES]
        files = dict.fromkeys(names, files)
    node["inputs"].update(files)


def _bypass_loras(workflow: Workflow) -> None:
    """Connect the inputs of a LoRA loader's users to the model before it."""
    for loader in [i for i, node in workflow.items() if node["class_type"] == LORA_LOADER]:
        before = workflow.pop(loader)["inputs"]["model"]
        for node in workflow.values():
            node["inputs"] = {k: before if _links_to(v, {loader}) else v for k, v in node["inputs"].items()}


def _guide_instead(workflow: Workflow) -> None:
    """Turn each Quality node into Guidance, and connect its model's users to the model before it."""
    for number, node in workflow.items():
        if node["class_type"] != QUALITY:
            continue
        before = node["inputs"]["model"]
        node.update(class_type=GUIDANCE, inputs={})
        moved = {0: before, 1: [number, 0]}
        for user in workflow.values():
            user["inputs"] = {k: moved[v[1]] if _links_to(v, {number}) else v for k, v in user["inputs"].items()}


def _make_room_for_two(workflow: Workflow) -> None:
    """Change the size from square to wide, since a square crop would show the gap between two people."""
    for node in workflow.values():
        if node["class_type"] == PICKER:
            node["inputs"]["width"] = 2 * node["inputs"]["height"]


def _cannot_do_without(node: dict[str, Any], gone: set[str]) -> bool:
    """Return whether the node requires an input from `gone`: ComfyUI's nodes do, the pack's nodes do not."""
    if node["class_type"].startswith("InfiniteTalk"):
        return False
    return any(_links_to(value, gone) for value in node["inputs"].values())


def _links_to(value: object, nodes: set[str]) -> bool:
    return isinstance(value, list) and len(value) == 2 and str(value[0]) in nodes


def place_trained_models(folder: Path, trained: Path = TRAINED_MODELS) -> list[Path]:
    """Copy the trained small models into ComfyUI's models folder; return their paths."""
    placed = []
    for file in sorted(trained.glob("*/*.safetensors")):
        placed.append(folder / file.relative_to(trained))
        placed[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, placed[-1])
    return placed


def place_samples(samples: Path, folder: Path) -> list[str]:
    """Copy the sample media into ComfyUI's input folder; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    media = [path for path in sorted(samples.iterdir()) if path.suffix in MEDIA_SUFFIXES]
    for path in media:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in media]

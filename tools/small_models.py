"""Workflows on the small models: put their file names in, take out what no small model exists for."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

Workflow = dict[str, dict[str, Any]]

# The input that names a file, by node type, and the small file's name (see make_tiny_models.py).
SMALL_FILES = {
    "UNETLoader": {"unet_name": "tiny_wan2.1_i2v.safetensors", "weight_dtype": "default"},
    "VAELoader": {"vae_name": "tiny_wan_vae.safetensors"},
    "LoraLoaderModelOnly": {"lora_name": "tiny_lora.safetensors"},
    "ModelPatchLoader": {"name": "tiny_infinitetalk_single.safetensors"},
    "InfiniteTalkAudioEncoderLoader": "tiny_wav2vec2.safetensors",
    "InfiniteTalkModelLoader": "tiny_infinitetalk_single.safetensors",
    "InfiniteTalkUni3CLoader": "tiny_uni3c.safetensors",
}
WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
MEDIA_SUFFIXES = (".png", ".jpg", ".wav", ".flac", ".mp4")
# ComfyUI's loaders of these accept the real sizes only, so there are no small ones: gigabytes or nothing.
WITHOUT_SMALL_FILE = ("CLIPLoader", "CLIPVisionLoader")
# What a machine without a graphics card does in half a minute: few steps, small pictures. Speech guidance stays on.
QUICK_SETTINGS: dict[str, dict[str, Any]] = {
    "InfiniteTalkReferencePicker": {"size": "custom", "width": 128, "height": 128},
    "InfiniteTalkGuidance": {"preset": "custom", "steps": 4, "text_scale": 1.0, "audio_scale": 3.0, "shift": 7.0},
}


def with_small_models(workflow: Workflow, *, quick: bool = True) -> Workflow:
    """A copy of an API workflow that runs on the small models.

    File names are replaced; loaders without a small file go, and with them every node that cannot work
    without what they gave. An input that was linked to a removed node goes too: the pack's nodes take it as
    optional. With `quick` (see QUICK_SETTINGS) also few steps and a small size.
    """
    small = copy.deepcopy(workflow)
    for node in small.values():
        _rename(node)
        if quick:
            node["inputs"].update(QUICK_SETTINGS.get(node["class_type"], {}))
    gone = {i for i, node in small.items() if node["class_type"] in WITHOUT_SMALL_FILE}
    while found := {i for i in small.keys() - gone if _cannot_do_without(small[i], gone)}:
        gone |= found
    kept = {i: node for i, node in small.items() if i not in gone}
    for node in kept.values():
        node["inputs"] = {name: value for name, value in node["inputs"].items() if not _links_to(value, gone)}
    return kept


def _rename(node: dict[str, Any]) -> None:
    files = SMALL_FILES.get(node["class_type"])
    if isinstance(files, str):
        # The pack's own loaders: the one input that names a weight file.
        names = [k for k, v in node["inputs"].items() if isinstance(v, str) and Path(v).suffix in WEIGHT_SUFFIXES]
        files = dict.fromkeys(names, files)
    node["inputs"].update(files or {})


def _cannot_do_without(node: dict[str, Any], gone: set[str]) -> bool:
    """ComfyUI's own nodes need all that is linked to them; the pack's nodes have optional inputs."""
    if node["class_type"].startswith("InfiniteTalk"):
        return False
    return any(_links_to(value, gone) for value in node["inputs"].values())


def _links_to(value: object, nodes: set[str]) -> bool:
    return isinstance(value, list) and len(value) == 2 and str(value[0]) in nodes


def place_samples(samples: Path, folder: Path) -> list[str]:
    """Copy the sample media into ComfyUI's input folder; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    media = [path for path in sorted(samples.iterdir()) if path.suffix in MEDIA_SUFFIXES]
    for path in media:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in media]

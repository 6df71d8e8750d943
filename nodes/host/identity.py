"""What everything is that changes a video, so that a run is found again exactly when nothing of it changed.

MODEL, VAE and the like come from other nodes, in forms that change while ComfyUI loads, quantises and patches them.
What does not change is the graph that they come from: its nodes, their settings, and the content of the files that
these name. So a model is known by its graph, and pictures and sound by their content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

import av
import comfy.model_management
import comfyui_version
import folder_paths
import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import optimized_attention

from ...infinitetalk_core.identity import FileIdentities

FOLDER_MARK = "config.json"  # of a model that is a folder
LONGEST_NAME = 255


def versions() -> dict[str, Any]:
    """The programs that compute, and what they compute on."""
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    return {
        "pack": found[1] if found else None,
        "comfyui": comfyui_version.__version__,
        "torch": torch.__version__,
        "av": {"pyav": av.__version__, **{k: list(v) for k, v in av.library_versions.items()}},
        "device": comfy.model_management.get_torch_device_name(comfy.model_management.get_torch_device()),
        "attention": optimized_attention.__name__,
    }


def precision(model: Any, vae: Any) -> dict[str, Any]:
    """The types in which a MODEL and a VAE keep and compute their numbers, which ComfyUI's start may choose.

    Not part of the graph: `--fp32-unet`, `--bf16-vae`, `--cpu-vae`, `--fast` and the like, and the room on the GPU.
    """
    return {
        "model": [str(model.model.get_dtype()), str(model.model.manual_cast_dtype)],
        "vae": [str(vae.vae_dtype), str(vae.device)],
        "fast": sorted(feature.value for feature in args.fast),
    }


class Graph:
    """The prompt that a node runs in. hidden: the node's, with its id and the prompt. files: what is known of files."""

    def __init__(self, hidden: Any, files: FileIdentities) -> None:
        self._files = files
        self._nodes = getattr(hidden, "dynprompt", None)
        self._id = getattr(hidden, "unique_id", None)
        self._known: dict[str, str] = {}

    def behind(self, *inputs: str) -> dict[str, Any]:
        """For each of these inputs of the node: equal for the same graph over the same files; None if unconnected.

        Without a prompt (the node's code called by a program) nothing is known, so nothing is equal.
        """
        if self._nodes is None or self._id is None:
            return {"unknown": uuid.uuid4().hex}
        given = self._nodes.get_node(self._id)["inputs"]
        return {name: self._value(given.get(name)) for name in inputs}

    def _node(self, node_id: str) -> str:
        """Of a node and all before it; ids, titles and places do not count."""
        if node_id not in self._known:
            node = self._nodes.get_node(node_id)
            content = [node["class_type"], {name: self._value(value) for name, value in node["inputs"].items()}]
            self._known[node_id] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
        return self._known[node_id]

    def _value(self, value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int) and self._has(value[0]):
            return {"node": self._node(str(value[0])), "output": value[1]}
        if isinstance(value, (list, tuple)):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {str(name): self._value(item) for name, item in value.items()}
        if isinstance(value, str):
            return {"files": found} if (found := files_named(value, self._files)) else value
        return value

    def _has(self, node_id: Any) -> bool:
        return isinstance(node_id, (str, int)) and self._nodes.has_node(str(node_id))


def files_named(text: str, files: FileIdentities) -> list[str]:
    """What the files are that a text in a node names: in any of ComfyUI's model folders, or among the inputs."""
    if not text.strip() or len(text) > LONGEST_NAME or any(c in text for c in "\n\r\0"):
        return []
    places = [Path(root) / text for name in folder_paths.folder_names_and_paths for root in _roots(name)]
    with contextlib.suppress(ValueError):  # newer ComfyUI refuses what leads out of its folders, as any text may
        places.append(Path(folder_paths.get_annotated_filepath(text)))
    found = {identity for place in dict.fromkeys(places) if (identity := model_identity(place, files))}
    return sorted(found)


def _roots(name: str) -> list[str]:
    return folder_paths.folder_names_and_paths[name][0]


def model_identity(place: Path, files: FileIdentities) -> str | None:
    """Of a file, or of the files of a model that is a folder; None for what is neither."""
    if place.is_file():
        return files.of(place)
    if (place / FOLDER_MARK).is_file():
        parts = sorted(f"{file.name} {files.of(file)}" for file in place.iterdir() if file.is_file())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return None

"""Store ComfyUI's description of the nodes that our workflows use in a file.

    python tools/object_info.py http://127.0.0.1:8188      update tests/host/object_info.json

Needs a running ComfyUI 0.3.75 with the pack, for instance that of `python3 tools/demo.py --ui`. The file gives
tools/make_workflows.py the widgets of the nodes, and tests/host/test_schema.py compares it with the pack to detect
accidental changes of node ids, inputs and outputs.
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

STORED = Path(__file__).resolve().parents[1] / "tests" / "host" / "object_info.json"
PACK_PREFIX = "InfiniteTalk"
CORE_NODES = (
    "CLIPLoader",
    "CLIPTextEncode",
    "CLIPVisionLoader",
    "LoadAudio",
    "LoadImage",
    "LoadImageMask",
    "LoadVideo",
    "LoraLoaderModelOnly",
    "PreviewImage",
    "UNETLoader",
    "VAELoader",
)
KEPT = (
    "name",
    "display_name",
    "category",
    "description",
    "input",
    "input_order",
    "output",
    "output_name",
    "output_node",
)
# Inputs whose choices are files on the server's machine.
FILE_CHOICES = {
    "CLIPLoader": "clip_name",
    "CLIPVisionLoader": "clip_name",
    "LoadAudio": "audio",
    "LoadImage": "image",
    "LoadImageMask": "image",
    "LoadVideo": "file",
    "LoraLoaderModelOnly": "lora_name",
    "UNETLoader": "unet_name",
    "VAELoader": "vae_name",
    "InfiniteTalkAudioEncoderLoader": "audio_encoder",
    "InfiniteTalkModelLoader": "infinitetalk",
    "InfiniteTalkQuality": "lora",
    "InfiniteTalkUni3CLoader": "uni3c",
}
# Keys that newer versions of ComfyUI add or change; they do not affect a workflow.
HOST_SPECIFIC_OPTIONS = ("multiselect",)


def normalized(info: dict[str, Any]) -> dict[str, Any]:
    """Return the pack's nodes and the core nodes of our workflows, without machine-dependent values."""
    names = sorted(name for name in info if name.startswith(PACK_PREFIX) or name in CORE_NODES)
    return {name: _node(name, info[name]) for name in names}


def _node(name: str, node: dict[str, Any]) -> dict[str, Any]:
    kept = {key: node[key] for key in KEPT if key in node}
    kept["input"] = {
        group: {key: _input(spec, FILE_CHOICES.get(name) == key) for key, spec in inputs.items()}
        for group, inputs in node["input"].items()
        if group != "hidden"
    }
    kept["input_order"] = {group: order for group, order in node["input_order"].items() if group != "hidden"}
    return kept


def _input(spec: list[Any], is_file: bool) -> list[Any]:
    """Return [type, options]. An old-style choice, whose type is the list itself, is converted to the new style."""
    kind, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
    if isinstance(kind, list):
        kind, options["options"] = "COMBO", kind
    if is_file:
        options["options"] = []
    return [kind, {key: value for key, value in options.items() if key not in HOST_SPECIFIC_OPTIONS}]


def stored() -> dict[str, Any]:
    """Return the content of the file."""
    info: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return info


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("url", help="address of a running ComfyUI with the pack")
    with urllib.request.urlopen(f"{parser.parse_args().url.rstrip('/')}/object_info", timeout=60) as answer:
        info = normalized(json.load(answer))
    STORED.write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{STORED}: {len(info)} nodes")


if __name__ == "__main__":
    main()

"""Write the blueprint *Talking Portrait (InfiniteTalk)*: the graph of the app Talking picture as one node.

    python tools/make_blueprint.py

A picture and a voice go in, a video comes out; what decides the result is on the node, and the sampler's progress and
player are shown on it. Written to subgraphs/, where ComfyUI finds blueprints.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import object_info
from make_workflows import COMFYUI, FRONTEND, PACK_ID, Ends, ui_group, ui_node, value_of
from workflow_designs import TALKING_APP
from workflow_layout import Node
from workflow_parts import (
    CLIP,
    CLIP_VISION,
    ENCODER,
    MODEL,
    PATCH,
    PICKER,
    POSITIVE,
    QUALITY,
    SAMPLER,
    SOURCE,
    SPEECH,
    VAE,
    VOICE,
)

Target = tuple[int, str]  # node and input
NAME = "Talking Portrait (InfiniteTalk)"
FILE = Path(__file__).resolve().parents[1] / "subgraphs" / f"{NAME}.json"
DESCRIPTION = "A picture and a voice become a talking video of the voice's length: lip sync with InfiniteTalk."
WORDS = ("lip sync", "lipsync", "talking head", "talking avatar", "dub", "wav2vec")  # as USERS_WORDS of nodes/types.py
INPUT_NODE, OUTPUT_NODE, HOST = -10, -20, 1  # ids of the subgraph's ends, and of the node outside
SOCKETS = ("IMAGE", "AUDIO")
PREVIEW = "$$canvas-image-preview"  # the frontend's name of a node's previews
# The blueprint's inputs: name, label, and the input inside.
INPUTS = (
    ("image", "picture", (PICKER, "image")),
    ("audio", "voice", (SPEECH, "audio")),
    ("text", "what the scene is", (POSITIVE, "text")),
    ("quality", "quality", (QUALITY, "quality")),
    ("size", "size", (PICKER, "size")),
    ("seed", "seed", (SAMPLER, "seed")),
    ("unet_name", "Wan 2.1 I2V", (MODEL, "unet_name")),
    ("lora", "LoRA", (QUALITY, "lora")),
    ("infinitetalk", "InfiniteTalk", (PATCH, "infinitetalk")),
    ("audio_encoder", "wav2vec 2.0", (ENCODER, "audio_encoder")),
    ("vae_name", "VAE", (VAE, "vae_name")),
    ("clip_vision", "CLIP vision", (CLIP_VISION, "clip_name")),
    ("clip_name", "text encoder", (CLIP, "clip_name")),
)


def identity(name: str) -> str:
    """Return an id that stays the same each time the file is written."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"infinitetalk/subgraphs/{name}"))


def blueprint(info: dict[str, Any]) -> dict[str, Any]:
    """Return the file's content."""
    groups = [group for group in TALKING_APP.groups if all(n.id not in (SOURCE, VOICE) for n in group.nodes)]
    nodes = [node for node in TALKING_APP.nodes if node.id not in (SOURCE, VOICE)]
    outside = {target: (INPUT_NODE, slot) for slot, (_, _, target) in enumerate(INPUTS)}
    ends: Ends = {}
    for node in nodes:
        for name in (name for group in info[node.type]["input"].values() for name in group):
            origin = outside.get((node.id, name)) or node.links.get(name)
            if origin:
                ends[len(ends) + 1] = (*origin, node.id, name)
    last = len(ends) + 1
    ends[last] = (SAMPLER, 0, OUTPUT_NODE, "video")
    inside = [ui_node(node, order, info[node.type], ends) for order, node in enumerate(nodes)]
    kinds = [str(_spec(info, nodes, target)[0]) for _, _, target in INPUTS]
    subgraph = {
        "id": identity("graph"),
        "version": 1,
        "state": {"lastGroupId": len(groups), "lastNodeId": SAMPLER, "lastLinkId": last, "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": NAME,
        "inputNode": {"id": INPUT_NODE, "bounding": [0, 60, 160, 300]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [1930, 60, 120, 60]},
        "inputs": [
            {
                "id": identity(name),
                "name": name,
                "type": kind,
                "label": label,
                "linkIds": [n for n, end in ends.items() if end[:2] == (INPUT_NODE, slot)],
            }
            for slot, ((name, label, _), kind) in enumerate(zip(INPUTS, kinds, strict=True))
        ],
        "outputs": [{"id": identity("video"), "name": "video", "type": "VIDEO", "linkIds": [last]}],
        "widgets": [],
        "nodes": inside,
        "groups": [ui_group(number, group) for number, group in enumerate(groups, start=1)],
        "links": [_link(number, end, inside, kinds) for number, end in ends.items()],
        "extra": {},
        "category": "Video generation and editing/Lip sync",
        "description": DESCRIPTION,
    }
    return {
        "id": identity("file"),
        "revision": 0,
        "last_node_id": HOST,
        "last_link_id": 0,
        "nodes": [_host(info, nodes, kinds)],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [subgraph]},
        "config": {},
        "extra": {
            "frontendVersion": FRONTEND,
            "BlueprintDescription": DESCRIPTION,
            "BlueprintSearchAliases": list(WORDS),
        },
        "version": 0.4,
    }


def _spec(info: dict[str, Any], nodes: list[Node], target: Target) -> list[Any]:
    """Return [type, options] of an input inside."""
    (node,) = (node for node in nodes if node.id == target[0])
    groups = info[node.type]["input"].values()
    return next(group[target[1]] for group in groups if target[1] in group)


def _link(number: int, end: tuple[int, int, int, str], inside: list[Any], kinds: list[str]) -> dict[str, Any]:
    origin, output, target, name = end
    by_id = {node["id"]: node for node in inside}
    kind = kinds[output] if origin == INPUT_NODE else by_id[origin]["outputs"][output]["type"]
    slot = 0 if target == OUTPUT_NODE else [each["name"] for each in by_id[target]["inputs"]].index(name)
    return {
        "id": number,
        "origin_id": origin,
        "origin_slot": output,
        "target_id": target,
        "target_slot": slot,
        "type": kind,
    }


def _host(info: dict[str, Any], nodes: list[Node], kinds: list[str]) -> dict[str, Any]:
    """Return the node outside, with its values and what it shows of the sampler."""
    by_id = {node.id: node for node in nodes}
    widgets = [(name, target) for (name, _, target), kind in zip(INPUTS, kinds, strict=True) if kind not in SOCKETS]
    return {
        "id": HOST,
        "type": identity("graph"),
        "pos": [0, 0],
        "size": [420, 720],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {
                "name": name,
                "label": label,
                "type": kind,
                "link": None,
                **({} if kind in SOCKETS else {"widget": {"name": name}}),
            }
            for (name, label, _), kind in zip(INPUTS, kinds, strict=True)
        ],
        "outputs": [{"name": "video", "type": "VIDEO", "links": None}],
        "title": NAME,
        "properties": {
            "proxyWidgets": [*(["-1", name] for name, _ in widgets), [str(SAMPLER), PREVIEW]],
            "previewExposures": [{"name": PREVIEW, "sourceNodeId": str(SAMPLER), "sourcePreviewName": PREVIEW}],
            "cnr_id": PACK_ID,
            "ver": COMFYUI,
        },
        "widgets_values": [value_of(by_id[i], name, _spec(info, nodes, (i, name))) for _, (i, name) in widgets],
    }


def main() -> None:
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(object_info.stored()), encoding="utf-8")
    print(FILE.relative_to(FILE.parents[1]))


def text(info: dict[str, Any]) -> str:
    """Return the file as text."""
    return json.dumps(blueprint(info), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()

"""Write the pack's workflow files from tools/workflow_designs.py.

    python tools/make_workflows.py

Makes workflows/<title>.json (the format of ComfyUI's frontend) and for graphs that are stored for programs too
workflows/api/<name>.json (for POST /prompt) from one description, so that they are the same graph. Widget orders and
defaults come from tests/host/object_info.json (tools/object_info.py).
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import object_info
from workflow_designs import APPS, GRAPHS, HEADLESS, PARTS
from workflow_layout import BOTTOM, THREE, TITLE, TOP, TWO, Design, Group, Node
from workflow_parts import FILES, NOTE
from workflow_texts import CHINESE

FOLDER = Path(__file__).resolve().parents[1] / "workflows"
SAMPLES = FOLDER.parent / "samples"
# The host versions that the files were checked with, in the frontend's format.
COMFYUI, FRONTEND = "0.3.75", "1.32.9"
PACK_ID = "infinitetalk"
WIDGET_KINDS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
# Inputs that the frontend adds to a node that can upload a file: (name, type, label, value in a saved graph).
UPLOAD = "choose file to upload"
UPLOAD_INPUTS = {
    "image_upload": (("upload", "IMAGEUPLOAD", UPLOAD, "image"),),
    "video_upload": (("upload", "IMAGEUPLOAD", UPLOAD, "image"),),
    "audio_upload": (("audioUI", "AUDIO_UI", "audioUI", None), ("upload", "AUDIOUPLOAD", UPLOAD, None)),
}
OPTIONAL_SHAPE = 7  # LiteGraph draws an optional input as a ring
Info = dict[str, Any]
Ends = dict[int, tuple[int, int, int, str]]  # by link: node and output it comes from, node and input it goes to


def api_workflow(design: Design, info: Info) -> dict[str, Any]:
    """Return the graph in API format."""
    return {str(node.id): _api_node(node, info[node.type]) for node in design.nodes}


def _api_node(node: Node, info: Info) -> dict[str, Any]:
    values = _values(node, info)
    links = {name: [str(origin), output] for name, (origin, output) in node.links.items()}
    unknown = (node.links.keys() | node.widgets.keys()) - {name for name, _, _ in _inputs(info)}
    if unknown:
        raise ValueError(f"{node.type} has no inputs {sorted(unknown)}")
    title = node.title or info["display_name"]
    return {"inputs": {**values, **links}, "class_type": node.type, "_meta": {"title": title}}


def ui_workflow(design: Design, info: Info) -> dict[str, Any]:
    """Return the graph in the frontend's format."""
    ends = [
        (origin, output, node.id, name)
        for node in design.nodes
        for name, _, _ in _inputs(info[node.type])
        if name in node.links
        for origin, output in [node.links[name]]
    ]
    links = {number: end for number, end in enumerate(ends, start=1)}
    nodes = [ui_node(node, order, info[node.type], links) for order, node in enumerate(design.nodes)]
    nodes.append(_note(design, len(nodes)))
    slots = {node["id"]: [slot["name"] for slot in node["inputs"]] for node in nodes}
    types = {(node["id"], i): slot["type"] for node in nodes for i, slot in enumerate(node["outputs"])}
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"infinitetalk/workflows/{design.name}")),
        "revision": 0,
        "last_node_id": max(node["id"] for node in nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": [
            [number, origin, output, target, slots[target].index(name), types[origin, output]]
            for number, (origin, output, target, name) in links.items()
        ],
        "groups": [ui_group(number, group) for number, group in enumerate(design.groups, start=1)],
        "config": {},
        "extra": _extra(design),
        "version": 0.4,
    }


def _extra(design: Design) -> dict[str, Any]:
    """Return what the frontend and our scripts read besides the graph.

    ds: where 0.3.75 opens it; 0.33 fits a template into the window. favoritedWidgets: what the panel beside the graph
    shows. linearMode, linearData: app mode. infinitetalk: the samples that it asks for
    (js/template_samples.js), and its texts in other languages (js/template_language.js).
    """
    favorites = [{"nodeLocatorId": str(number), "widgetName": name} for number, name in design.favorites]
    form: dict[str, Any] = {}
    if design.form:
        inputs = [[str(i), name, *([{"height": height}] if height else [])] for i, name, height in design.form.inputs]
        outputs = [str(number) for number in design.form.outputs]
        form = {"linearMode": True, "linearData": {"inputs": inputs, "outputs": outputs}}
    named = {
        *(group.title for group in design.groups),
        *(text for node in design.nodes for text in (node.title, *node.label_of.values())),
        "Read me",
    }
    return {
        "ds": {"scale": 0.6, "offset": [120, 100]},
        "frontendVersion": FRONTEND,
        "favoritedWidgets": {"favorites": favorites},
        **form,
        "infinitetalk": {
            "samples": samples(design),
            "zh": {"texts": {k: v for k, v in CHINESE.items() if k in named}, "note": design.note_zh},
        },
    }


def samples(design: Design) -> list[str]:
    """Return the sample files that the nodes name."""
    values = [value for node in design.nodes for value in node.widgets.values()]
    return [value for value in dict.fromkeys(values) if (SAMPLES / str(value)).is_file()]


def ui_node(node: Node, order: int, info: Info, links: Ends) -> dict[str, Any]:
    """Return a node in the frontend's format."""
    incoming = {name: number for number, (_, _, target, name) in links.items() if target == node.id}
    sockets, widgets, values, chosen = [], [], [], _values(node, info)
    for name, spec, optional in _inputs(info):
        slot = {"localized_name": name, "name": name, "type": spec[0], "link": incoming.get(name)}
        if optional:
            slot["shape"] = OPTIONAL_SHAPE
        if not _is_widget(spec):
            sockets.append(slot)
            continue
        label = {"label": node.label_of[name]} if name in node.label_of else {}
        widgets.append({**slot, **label, "widget": {"name": name}})
        values += [chosen[name], *(["fixed"] if spec[1].get("control_after_generate") else [])]
    for name, kind, label, value in _uploads(info):
        slot = {"localized_name": label, "name": name, "type": kind, "widget": {"name": name}, "link": None}
        widgets.append(slot)
        values.append(value)
    outputs = [
        {
            "localized_name": name,
            "name": name,
            "type": kind,
            "links": [n for n, (origin, out, _, _) in links.items() if (origin, out) == (node.id, i)] or None,
        }
        for i, (name, kind) in enumerate(zip(info["output_name"], info["output"], strict=True))
    ]
    saved: dict[str, Any] = {
        "id": node.id,
        "type": node.type,
        "pos": [node.x, node.y],
        "size": [node.width, node.height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": sockets + widgets,
        "outputs": outputs,
        **({"title": node.title} if node.title else {}),
        "properties": _properties(node),
        "widgets_values": values,
    }
    if node.color:
        saved["color"], saved["bgcolor"] = node.color
    return saved


def _properties(node: Node) -> dict[str, Any]:
    """Return the properties that the frontend stores in a node; `models` are download addresses of missing files."""
    files = [value for value in node.widgets.values() if value in FILES]
    found = [{"name": name, "url": f"{FILES[name][1]}/{name}", "directory": FILES[name][0]} for name in files]
    core = not node.type.startswith(object_info.PACK_PREFIX)
    return {
        **({"cnr_id": "comfy-core", "ver": COMFYUI} if core else {"cnr_id": PACK_ID}),
        "Node name for S&R": node.type,
        **({"models": found} if found else {}),
    }


def _note(design: Design, order: int) -> dict[str, Any]:
    columns = TWO if design.nodes[0].width == TWO.models else THREE
    return {
        "id": NOTE,
        "type": "MarkdownNote",
        "pos": [0, TOP + TITLE],
        "size": [columns.note, BOTTOM - TOP - TITLE],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "Read me",
        "properties": {},
        "widgets_values": [design.note],
        "color": "#432",
        "bgcolor": "#653",
    }


def ui_group(number: int, group: Group) -> dict[str, Any]:
    """Return a group in the frontend's format."""
    return {
        "id": number,
        "title": group.title,
        "bounding": list(group.bounding),
        "color": group.color,
        "font_size": 24,
        "flags": {},
    }


def _inputs(info: Info) -> list[tuple[str, list[Any], bool]]:
    """Return (name, [type, options], optional) in the order of the node's inputs and widgets."""
    groups = ((info["input"].get(group, {}), group == "optional") for group in ("required", "optional"))
    return [(name, spec, optional) for inputs, optional in groups for name, spec in inputs.items()]


def _is_widget(spec: list[Any]) -> bool:
    return spec[0] in WIDGET_KINDS


def _uploads(info: Info) -> list[tuple[str, str, str, Any]]:
    options = [spec[1] for _, spec, _ in _inputs(info)]
    return [extra for key, extras in UPLOAD_INPUTS.items() if any(o.get(key) for o in options) for extra in extras]


def _values(node: Node, info: Info) -> dict[str, Any]:
    """Return the values of a node's widgets, with the numbers that its choices stand for where the design has none."""
    widgets = {name: spec for name, spec, _ in _inputs(info) if _is_widget(spec)}
    values = {name: value_of(node, name, spec) for name, spec in widgets.items()}
    for name, spec in widgets.items():
        numbers = spec[1].get("numbers_of_options", {}).get(values[name], {})
        values.update({key: number for key, number in numbers.items() if key not in node.widgets})
    return values


def value_of(node: Node, name: str, spec: list[Any]) -> Any:
    """Return the widget's value: the design's, else the node's default."""
    options = spec[1]
    if name in node.widgets:
        value = node.widgets[name]
        if options.get("options") and value not in options["options"]:
            raise ValueError(f"{node.type}.{name} cannot be {value!r}; choose one of {options['options']}")
        return value
    if "default" in options:
        return options["default"]
    return options["options"][0] if options.get("options") else ""


def files(design: Design, info: Info) -> dict[Path, str]:
    """Return the paths and contents of a workflow's files."""
    made = {}
    if design in (*GRAPHS, HEADLESS):
        made[FOLDER / "api" / f"{design.name}.json"] = api_workflow(design, info)
    if design is not HEADLESS:
        made[FOLDER / f"{design.title}.json"] = ui_workflow(design, info)
    return {path: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for path, content in made.items()}


def main() -> None:
    info = object_info.stored()
    for design in (*APPS, *GRAPHS, PARTS, HEADLESS):
        for path, text in files(design, info).items():
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(FOLDER.parent))


if __name__ == "__main__":
    main()

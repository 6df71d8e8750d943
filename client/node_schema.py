"""Settings of jobs, checked against what a server says of its nodes (/object_info)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from client_errors import one_line
from jobs import Job, Workflow, nodes_called
from refusals import did_you_mean

PACK = "InfiniteTalk"  # how the names of its nodes begin
FILE_CHOICES = ("image_upload", "video_upload", "audio_upload", "file_upload", "remote", "multiselect")


def unfit(info: Mapping[str, Any], workflow: Workflow, jobs: Iterable[Job]) -> str:
    """Say why a server with these nodes cannot carry out these jobs; empty if nothing speaks against it."""
    pack = sorted({kind for node in workflow.values() if (kind := node["class_type"]).startswith(PACK)})
    if info and pack and not any(kind in info for kind in pack):
        return f"it has no {', '.join(pack)}: install the pack there"
    checked: dict[tuple[str, str], str] = {}  # settings for all jobs are checked once
    for job in jobs:
        for name, value in job.settings.items():
            key = (name, repr(value))
            if key not in checked:
                checked[key] = _setting_problem(info, workflow, name, value)
            if checked[key]:
                return f"{job.called} sets {name}: {checked[key]}"
    return ""


def _setting_problem(info: Mapping[str, Any], workflow: Workflow, name: str, value: Any) -> str:
    kind, _, key = name.partition(".")
    for class_type in dict.fromkeys(node["class_type"] for node in nodes_called(workflow, kind)):
        inputs = _inputs(info.get(class_type))
        if not inputs:
            continue  # it is not there, which the server says itself, or of a form that we do not know
        if key in inputs:
            problem = _value_problem(inputs[key], workflow, value)
        elif "." in key and key.partition(".")[0] in inputs:
            problem = ""  # a part of an input that has parts
        else:
            problem = f"{class_type} has no input {key!r}{did_you_mean(key, list(inputs))}"
        if problem:
            return problem
    return ""


def _inputs(node: Any) -> dict[str, Any]:
    """By name, the type and the options of a node's inputs."""
    groups = node.get("input") if isinstance(node, dict) else None
    found = [groups.get(group) for group in ("required", "optional")] if isinstance(groups, dict) else []
    return {name: spec for group in found if isinstance(group, dict) for name, spec in group.items()}


def _value_problem(spec: Any, workflow: Workflow, value: Any) -> str:
    """Say why an input does not take a value; empty if it does, or if its type is unknown to us."""
    if not isinstance(spec, (list, tuple)) or not spec:
        return ""
    kind, options = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    if isinstance(value, list):
        return _link_problem(workflow, value)
    if kind == "COMBO" or isinstance(kind, list):
        return _choice_problem(kind if isinstance(kind, list) else options.get("options"), options, value)
    if kind == "BOOLEAN":
        return "" if isinstance(value, bool) or value in (0, 1) else f"{_shown(value)} is neither true nor false"
    if kind == "STRING":
        return "" if isinstance(value, (str, int, float)) else f"{_shown(value)} is no text"
    if kind in ("INT", "FLOAT"):
        return _number_problem(kind, options, value)
    if isinstance(kind, str) and kind.isupper() and not kind.startswith("COMFY_") and "," not in kind:
        return "this input is connected to another node and takes no value"
    return ""


def _link_problem(workflow: Workflow, value: list[Any]) -> str:
    if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return "" if value[0] in workflow else f"the workflow has no node {value[0]!r} to connect"
    return "a list is no setting; give one number, text, true or false"


def _choice_problem(choices: Any, options: Mapping[str, Any], value: Any) -> str:
    if not isinstance(choices, list) or any(options.get(name) for name in FILE_CHOICES) or value in choices:
        return ""
    shown = f" (it has {', '.join(map(_shown, choices))})" if len(choices) <= 8 else ""
    return f"{_shown(value)} is no choice{shown}{did_you_mean(str(value), choices)}"


def _number_problem(kind: str, options: Mapping[str, Any], value: Any) -> str:
    """ComfyUI takes a text of a number too."""
    what = "whole number" if kind == "INT" else "number"
    try:
        if isinstance(value, bool):
            raise ValueError
        number = int(value) if kind == "INT" and not isinstance(value, float) else float(value)
    except (ValueError, TypeError, OverflowError):
        return f"{_shown(value)} is no {what}"
    if not math.isfinite(number) or (kind == "INT" and number != int(number)):
        return f"{_shown(value)} is no {what}"
    least, most = options.get("min"), options.get("max")
    if isinstance(least, (int, float)) and number < least:
        return f"{_shown(value)} is less than {least}, the smallest that it takes"
    if isinstance(most, (int, float)) and number > most:
        return f"{_shown(value)} is more than {most}, the largest that it takes"
    return ""


def _shown(value: Any) -> str:
    """As it is written in a list of jobs."""
    return one_line(json.dumps(value, ensure_ascii=False), 100)

"""What a server finds wrong with a workflow, in the words of the person who made it."""

from __future__ import annotations

import json
from collections import Counter
from difflib import get_close_matches
from typing import Any

from client_errors import RefusedError, one_line, what_it_said

TOO_LARGE = (
    "the file is larger than the server takes: start ComfyUI with a larger --max-upload-size (in MB), or put the file "
    "into its input folder"
)


def refusal(path: str, status: int, text: str) -> RefusedError:
    """Return the error for an answer that refuses a job: ComfyUI's JSON in words, or what else it is."""
    if status == 413:
        return RefusedError(TOO_LARGE)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    answer = content if isinstance(content, dict) else {}
    said = f"{path} answered {status}: {what_it_said(text)}".removesuffix(": ")
    return RefusedError(_of_workflow(answer) or said, answer)


def _of_workflow(answer: dict[str, Any]) -> str:
    """What ComfyUI finds wrong with a workflow, in one line; empty if this is no such answer."""
    try:
        # node_errors is an empty list if the workflow as a whole is wrong.
        return node_sentences(answer.get("node_errors")) or one_line(_words(answer["error"]))
    except (KeyError, TypeError, AttributeError):
        return ""


def node_sentences(node_errors: Any) -> str:
    """Return one sentence for each node of ComfyUI's `node_errors`, in one line; empty if there are none."""
    if not isinstance(node_errors, dict):
        return ""
    found = [(node_id, node["class_type"], node["errors"]) for node_id, node in node_errors.items()]
    times = Counter(kind for _, kind, _ in found)
    sentences = (
        f"{kind if times[kind] == 1 else f'{kind} (node {node_id})'}: {', '.join(_words(error) for error in errors)}"
        for node_id, kind, errors in found
    )
    return one_line("; ".join(sentences), 2000)


def _words(error: dict[str, Any]) -> str:
    message, details = str(error["message"]), str(error.get("details") or "")
    if error.get("type") == "custom_validation_failed":
        return details  # the node's own sentence; the message is the same for all nodes
    extra = error.get("extra_info")
    extra = extra if isinstance(extra, dict) else {}
    name = extra.get("input_name")
    said = _about_input(str(error.get("type")), name, extra) if isinstance(name, str) else ""
    return said or (f"{message} ({details})" if details else message)


def _about_input(kind: str, name: str, extra: dict[str, Any]) -> str:
    """Say what is wrong with an input; empty for a kind of error without words of its own."""
    value, config = one_line(repr(extra.get("received_value")), 100), extra.get("input_config")
    choices, options = (config[0], config[1]) if isinstance(config, (list, tuple)) and len(config) == 2 else ([], {})
    limits = options if isinstance(options, dict) else {}
    if kind == "required_input_missing":
        return f"its input {name} is neither connected nor set"
    if kind == "return_type_mismatch":
        return f"its input {name} is connected to an output of another kind"
    if kind == "invalid_input_type":
        return f"{name} cannot be {value}"
    if kind == "value_smaller_than_min" and "min" in limits:
        return f"{name} is {value}, and {limits['min']} is the smallest that it takes"
    if kind == "value_bigger_than_max" and "max" in limits:
        return f"{name} is {value}, and {limits['max']} is the largest that it takes"
    if kind == "value_not_in_list":
        return f"this server has no {name} {value}{did_you_mean(str(extra.get('received_value')), choices)}"
    return ""


def did_you_mean(word: str, known: Any) -> str:
    """Return a question that ends a sentence, with the known word that is most alike; empty if none is."""
    words = (
        {str(other).casefold(): str(other) for other in known} if isinstance(known, (list, tuple, set, dict)) else {}
    )
    alike = get_close_matches(word.casefold()[:200], words, n=1)
    return f"; did you mean {words[alike[0]]!r}?" if alike else ""

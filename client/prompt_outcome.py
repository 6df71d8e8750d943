"""How a prompt ended, read from a server's history: whatever form that has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from client_errors import one_line

PromptStatus = Literal["unknown", "pending", "running", "success", "error", "interrupted"]


@dataclass(frozen=True)
class PromptOutcome:
    """What a server knows of a prompt.

    status: "unknown" if it has never heard of it, as after a restart. outputs: what nodes reported to the UI, by node
    id. error: ComfyUI's execution_error (`node_type`, `exception_type`, `exception_message` …) if status is "error".
    """

    status: PromptStatus
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: dict[str, Any] | None = None

    def files(self) -> list[dict[str, str]]:
        """Every file that a node reported: {"filename", "subfolder", "type"}; filename is a plain name."""
        lists = (found for ui in self.outputs.values() for found in ui.values() if isinstance(found, list))
        items = (item for found in lists for item in found if isinstance(item, dict))
        return [item for item in items if _is_plain_name(item.get("filename")) and _are_texts(item)]

    @property
    def reason(self) -> str:
        """Why there is no result, in one line; empty if nothing went wrong."""
        if self.status == "interrupted":
            return "interrupted on the server"
        if self.error is None:
            return ""
        message = one_line(str(self.error.get("exception_message", "failed")))
        return f"{one_line(str(self.error.get('node_type', 'the server')), 100)}: {message}"

    @property
    def is_input_error(self) -> bool:
        """Whether a node refused its inputs (an exception named …InputError), so that trying again does not help."""
        return str((self.error or {}).get("exception_type", "")).endswith("InputError")


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip(". ")) and not any(c in name for c in "/\\\0")


def _are_texts(file: dict[str, Any]) -> bool:
    return all(isinstance(file.get(key, ""), str) for key in ("subfolder", "type"))


def read_history(entry: Any) -> PromptOutcome:
    """Return what an entry of /history says. What has another form than ComfyUI's counts as not there."""
    known = entry if isinstance(entry, dict) else {}
    found, status = known.get("outputs"), known.get("status")
    outputs = {i: ui for i, ui in found.items() if isinstance(ui, dict)} if isinstance(found, dict) else {}
    status = status if isinstance(status, dict) else {"status_str": "success" if outputs else "error"}
    messages = _messages(status.get("messages"))
    if status.get("status_str") == "success":
        return PromptOutcome("success", outputs)
    if "execution_interrupted" in messages:
        return PromptOutcome("interrupted", outputs)
    return PromptOutcome("error", outputs, messages.get("execution_error", {}))


def _messages(found: Any) -> dict[str, dict[str, Any]]:
    """By kind, what the server said: [kind, data] each."""
    pairs = [item for item in found if isinstance(item, (list, tuple)) and len(item) == 2] if _is_list(found) else []
    return {kind: data for kind, data in pairs if isinstance(kind, str) and isinstance(data, dict)}


def _is_list(found: Any) -> bool:
    return isinstance(found, (list, tuple))

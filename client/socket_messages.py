"""Messages of ComfyUI's websocket, whatever form they have."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass, field
from typing import Any

PROGRESS_TEXT = 3  # BinaryEventTypes.TEXT of ComfyUI's protocol.py


@dataclass(frozen=True)
class Message:
    """One message of the websocket.

    type: ComfyUI's name ("executing", "progress", "executed" …). Of binary messages it is "progress_text", with
    data = {"node": node id, "text": …}, or "preview" for any other. binary: a binary message as it came.
    time: when it came (time.monotonic).
    """

    type: str
    data: dict[str, Any]
    binary: bytes = b""
    time: float = field(default_factory=time.monotonic)


def read_text(content: str) -> Message | None:
    """Return a text message of the websocket; None if it has not the form of ComfyUI's."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        return None
    data = found.get("data")
    return Message(found["type"], data if isinstance(data, dict) else {})


def read_binary(content: bytes) -> Message:
    """Return a binary message of the websocket as a Message: see there."""
    kind, length = struct.unpack_from(">II", content) if len(content) >= 8 else (None, 0)
    if kind != PROGRESS_TEXT:
        return Message("preview", {}, content)
    node, text = content[8 : 8 + length], content[8 + length :]
    return Message(
        "progress_text", {"node": node.decode(errors="replace"), "text": text.decode(errors="replace")}, content
    )

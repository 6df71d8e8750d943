"""Messages to the user: the log, and the text on the running node."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...infinitetalk_core.log import log


def say(text: str) -> None:
    """Write a message to the log and to the node that is running."""
    log.info("%s", text)
    write_on_node(text)


def warn(text: str) -> None:
    """Write a warning to the log and to the node that is running."""
    log.warning("%s", text)
    write_on_node(text)


def write_on_node(text: str) -> None:
    """Write a message to the node that is running."""
    context = get_executing_context()
    if context is not None and PromptServer.instance is not None:
        PromptServer.instance.send_progress_text(text, context.node_id)

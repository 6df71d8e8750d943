"""Messages to the user: the log, and the text on the running node."""

from __future__ import annotations

from typing import Any

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


def show_on_node(output: dict[str, Any], dynprompt: Any) -> None:
    """Show a UI output on the node that is running, as ComfyUI does when a node ends: also on one that will fail.

    dynprompt: the node's hidden input, which knows where a node that another one made is shown.
    """
    context, server = get_executing_context(), PromptServer.instance
    if context is None or server is None or server.client_id is None:
        return
    shown_at = context.node_id if dynprompt is None else dynprompt.get_display_node_id(context.node_id)
    message = {"node": context.node_id, "display_node": shown_at, "output": output, "prompt_id": context.prompt_id}
    server.send_sync("executed", message, server.client_id)

"""The search words of the pack's blueprints, which ComfyUI lists without any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "subgraphs"


async def add_search_words(words: tuple[str, ...]) -> None:
    """Add `words` to the entries of the pack's blueprints in ComfyUI's list, if it runs as a server that has one."""
    from server import PromptServer

    manager: Any = getattr(getattr(PromptServer, "instance", None), "subgraph_manager", None)
    listed = getattr(manager, "get_custom_node_subgraphs", None)
    if listed is None:
        return
    for entry in (await listed([])).values():
        if Path(entry["path"]).resolve().is_relative_to(FOLDER):
            entry["info"]["search_aliases"] = list(words)

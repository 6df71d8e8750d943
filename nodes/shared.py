"""Nodes that share what is loaded and known in this process."""

from __future__ import annotations

from typing import ClassVar

from comfy_api.latest import io

from .host.shared_models import SharedModels


class ModelNode(io.ComfyNode):
    """A node with models. shared: what all such nodes share; the extension puts its own here when ComfyUI loads it."""

    shared: ClassVar[SharedModels | None] = None

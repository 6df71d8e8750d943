"""Nodes that share what is loaded and known in this process."""

from __future__ import annotations

from typing import ClassVar

from comfy_api.latest import io

from .host.shared_models import SharedModels


class ModelNode(io.ComfyNode):
    """A node with models. shared: what all such nodes share; the extension puts its own here when ComfyUI loads it.

    knows_its_files: what it loads carries its fingerprint, so the files that it names say nothing more
    (host/fingerprint.py).
    """

    shared: ClassVar[SharedModels | None] = None
    knows_its_files: ClassVar[bool] = True

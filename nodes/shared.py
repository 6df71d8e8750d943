"""Base class of nodes that share loaded models and file fingerprints within the process."""

from __future__ import annotations

from typing import ClassVar

from comfy_api.latest import io

from .host.model.shared_models import SharedModels


class ModelNode(io.ComfyNode):
    """A node that uses the shared models. shared: set by the extension when ComfyUI loads the pack.

    tracks_its_files: the loaded object carries the fingerprint of its weights, so host/fingerprint.py leaves out the
    files that the node's inputs name.
    """

    shared: ClassVar[SharedModels | None] = None
    tracks_its_files: ClassVar[bool] = True

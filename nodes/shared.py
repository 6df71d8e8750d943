"""Base class of nodes that share loaded models and file fingerprints within the process."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from comfy_api.latest import io

from .host.model.model_files import file_stamp
from .host.model.shared_models import SharedModels


class ModelNode(io.ComfyNode):
    """A node that uses the shared models. shared: set by the extension when ComfyUI loads the pack.

    tracks_its_files: the loaded object carries the fingerprint of its weights, so host/fingerprint.py leaves out the
    files that the node's inputs name.
    """

    shared: ClassVar[SharedModels | None] = None
    tracks_its_files: ClassVar[bool] = True


def stamp_of_choice(path_of: Callable[[str], Path], name: str | None) -> str | float:
    """Return the stamp of the file that is chosen, so that ComfyUI loads a file replaced on disk again.

    path_of: returns the file of a choice. NaN, which loads it each time, where the choice comes over a link, since
    ComfyUI asks before it knows it.
    """
    return math.nan if name is None else file_stamp(path_of(name))

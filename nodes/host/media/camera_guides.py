"""Builds camera guides from ComfyUI's VIDEO or a rendered path."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ....infinitetalk_core.camera.guide import PathGuide
from ....infinitetalk_core.camera.path import Move, Swing
from ....infinitetalk_core.chunks.camera_control import FilmedGuide
from ....infinitetalk_core.chunks.plan import Chunk
from ....infinitetalk_core.rate import FRAMES_PER_SECOND
from .video import source_of

PREVIEW_FRAMES, PREVIEW_SIDE = 8, 256


def filmed_guide(video: Any) -> FilmedGuide:
    """Return a guide that follows the camera of a VIDEO."""
    return FilmedGuide(source_of(None, video, name="guidance_video"))


def path_guide(image: Tensor, depth: Tensor, path: Move | Swing, seconds: float, field_of_view: float) -> PathGuide:
    """Return a guide along a path around the first picture of an IMAGE, rendered on the GPU if there is one."""
    frames = max(round(seconds * FRAMES_PER_SECOND), 1)
    device = comfy.model_management.get_torch_device()
    return PathGuide(image[0, ..., :3].float().cpu(), depth.cpu(), path, frames, field_of_view, device=device)


def preview_frames(guide: PathGuide) -> Tensor:
    """Render up to 8 frames (N, h, w, 3), evenly spread over the path.

    h and w are multiples of 16, the longer side is 256.
    """
    height, width = guide.picture.shape[:2]
    scale = PREVIEW_SIDE / max(height, width)
    size = (max(round(height * scale / 16), 1) * 16, max(round(width * scale / 16), 1) * 16)
    indices = sorted({round(i * (guide.frames - 1) / (PREVIEW_FRAMES - 1)) for i in range(PREVIEW_FRAMES)})
    return torch.cat([guide.view(Chunk(0, index, 1, 0, 1), *size).frames for index in indices])

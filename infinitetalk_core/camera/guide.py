"""A `CameraGuide` for Uni3C from a camera path around one picture, rendered chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..chunks.camera_control import View
from ..chunks.plan import Chunk
from ..chunks.sizes import fit_mask_to, fit_to
from ..errors import InputError
from ..fingerprint import excluded
from .embedding import camera_embedding
from .path import START_ELEVATION, Move, Swing, camera_path, orbit_radius, picture_intrinsics
from .render import PathRenderer


@dataclass(frozen=True)
class PathGuide:
    """A `CameraGuide` that renders the view of a camera moving around a picture.

    picture: (H, W, 3); depth: (h, w), larger is farther; frames: length of the path at 25 fps, after which the camera
    stays at its last pose; field_of_view: degrees across the picture's longer side; start_elevation: degrees, see
    `camera_path`; device: where to render, by default the picture's. Raises InputError where depth and picture differ
    in aspect ratio by more than 2 %.
    """

    picture: Tensor
    depth: Tensor
    path: Move | Swing
    frames: int
    field_of_view: float = 55.0
    start_elevation: float = START_ELEVATION
    device: torch.device | None = field(
        default=None, metadata=excluded("where it is rendered; the machine counts by itself")
    )

    def __post_init__(self) -> None:
        shape, size = self.depth.shape, self.picture.shape[:2]
        if len(shape) != 2 or abs(shape[0] / shape[1] - size[0] / size[1]) > 0.02 * size[0] / size[1]:
            raise InputError(
                f"the depth map is {shape[-1]} x {shape[0]}, but the picture is {size[1]} x {size[0]}: "
                "make it from this picture"
            )

    def view(self, chunk: Chunk, height: int, width: int) -> View:
        """Render the chunk's frames, render mask and camera embedding at the video's size in pixels."""
        window = slice(chunk.start, chunk.start + chunk.length)
        picture = fit_to(self.picture, height, width)
        same_size = F.interpolate(self.depth[None, None], self.picture.shape[:2], mode="nearest")[0]
        depth = fit_mask_to(same_size, height, width)[0]
        lens = picture_intrinsics(height, width, self.field_of_view)
        cameras = camera_path(self.path, self.frames, orbit_radius(depth), lens, self.start_elevation)
        warped = PathRenderer(picture, depth, cameras, self.device).render(window)
        rays = camera_embedding(cameras, window, (height, width), (height, width))
        return View(warped.frames, warped.holes[None, None], rays.transpose(0, 1)[None])

"""The camera embedding of Uni3C: the ray of each pixel, an input of the ControlNet beside video and render mask.

Source: ewrfcas/Uni3C, src/camera.py (rays), src/dataset.py (sizes) and src/models/pcd_controller.py (model inputs).
The ControlNet takes 7 channels at full resolution, all frames: 1 render mask, then 3 ray directions, then 3 moments.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .path import Cameras

FIRST_CAMERA_DISTANCE = 2.0  # from the mean position of all cameras, after scaling
_OUTLIER = 10.0  # times the 97 % quantile of the distances to the median camera
_STANDS_STILL = 1e-5  # distance below which the camera counts as static
# The original's rays go through x - 0.5 and y + 0.5. Only y is a pixel center, but the weights were trained with both.
_RAY_AT = (-0.5, 0.5)


def normalize_cameras(world_to_camera: Tensor) -> Tensor:
    """Normalize camera poses (F, 4, 4): relative to the first camera's pose, centered and scaled. Returns (F, 4, 4).

    The mean position, without outliers, becomes the origin and the first camera gets a distance of 2 from it, so the
    unit of the depth map does not matter. Cameras that do not move keep position 0. As in the original (src/camera.py,
    after SEVA) the first camera's pose is multiplied from the left.
    """
    camera_to_world = torch.linalg.inv(torch.linalg.inv(world_to_camera[:1]) @ world_to_camera)
    position = camera_to_world[:, :3, 3].clone()
    from_median = (position - position.median(0).values).norm(dim=-1)
    usual = from_median <= (from_median.quantile(0.97) * _OUTLIER).clamp_max(1e6)
    position = position - position[usual].mean(0)
    distance = float(position[0].norm())
    scale = FIRST_CAMERA_DISTANCE if distance <= _STANDS_STILL else FIRST_CAMERA_DISTANCE / distance
    camera_to_world[:, :3, 3] = position * scale
    return torch.linalg.inv(camera_to_world)


def camera_rays(world_to_camera: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Return the ray of each pixel, (F, 6, H, W) float32: its unit direction d and its moment o × d, o the camera.

    world_to_camera: (F, 4, 4); intrinsics: (3, 3) in pixels, for this height and width. Computed on the CPU.
    """
    y, x = torch.meshgrid(torch.arange(height) + _RAY_AT[1], torch.arange(width) + _RAY_AT[0], indexing="ij")
    pixels = torch.stack((x, y, torch.ones_like(x))).flatten(1)
    rays = torch.empty(len(world_to_camera), 6, height, width)
    for index, pose in enumerate(torch.linalg.inv(world_to_camera)):
        turned = (pose[:3, :3] @ torch.linalg.inv(intrinsics)).to(pixels) @ pixels
        direction = F.normalize(turned, dim=0)  # (3, H·W)
        moment = torch.linalg.cross(pose[:3, 3:].to(pixels).expand_as(direction), direction, dim=0)
        rays[index] = torch.cat((direction, moment)).unflatten(1, (height, width))
    return rays


def camera_embedding(cameras: Cameras, window: slice, picture: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return the camera embedding (F, 6, H, W) float32 of frames start … stop-1 of the path.

    The window is normalized as a clip of its own. picture: (height, width) for which the cameras' intrinsics hold;
    size: (height, width) of the video, both in pixels. All frames use the intrinsics of the picture, also when the path
    zooms, as in the original, which stores one lens (cam_render.py). Raises InputError for an invalid window or size.
    """
    if min(*picture, *size) < 1:
        raise InputError(f"picture and video must have at least one pixel, got {picture} and {size}")
    lens = cameras.intrinsics[0].clone()
    lens[0] *= size[1] / picture[1]
    lens[1] *= size[0] / picture[0]
    return camera_rays(normalize_cameras(cameras.window(window).world_to_camera), lens, *size)

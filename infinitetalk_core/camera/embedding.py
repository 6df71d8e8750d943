"""What Uni3C's controlnet is told beside the rendered video: the render mask and each pixel's ray.

Source: ewrfcas/Uni3C, src/camera.py (rays), src/dataset.py (sizes) and src/models/pcd_controller.py (who gets what).
The controlnet takes 7 channels at full resolution, all frames: 1 render mask, then 3 ray directions, then 3 moments.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .path import Cameras

FIRST_CAMERA_DISTANCE = 2.0  # from the middle of all cameras, after scaling
_OUTLIER = 10.0  # times the 97 % quantile of the distances to the median camera
_STANDS_STILL = 1e-5
# The original's rays go through x − 0.5 and y + 0.5; only y is a pixel's centre, but so the weights learned it.
_RAY_AT = (-0.5, 0.5)


def normalise_cameras(world_to_camera: Tensor) -> Tensor:
    """(F, 4, 4) → (F, 4, 4): the first camera turned straight, all centred and scaled.

    The mean position goes to the origin and the first camera to a distance of 2, so the depth map's unit does not
    matter. Cameras that stand still keep position 0. As in the original (src/camera.py, after SEVA) the first
    camera's pose is multiplied from the left.
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
    """(F, 6, H, W) float32: per pixel the ray's direction d, of length 1, and its moment o × d, o the camera.

    world_to_camera: (F, 4, 4); intrinsics: (3, 3) for this height and width, pixels. Computed on the CPU.
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
    """(F, 6, H, W) float32 for frames start … stop−1 of the path, as one clip of its own.

    picture: (height, width) the cameras were made for; size: (height, width) of the video, in pixels. The lens is
    the picture's in all frames, also when the path zooms, as in the original, which stores one lens (cam_render.py).
    Raises InputError for an impossible window or size.
    """
    if min(*picture, *size) < 1:
        raise InputError(f"picture and video must have at least one pixel, got {picture} and {size}")
    lens = cameras.intrinsics[0].clone()
    lens[0] *= size[1] / picture[1]
    lens[1] *= size[0] / picture[0]
    return camera_rays(normalise_cameras(cameras.window(window).world_to_camera), lens, *size)

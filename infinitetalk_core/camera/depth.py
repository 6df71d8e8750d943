"""Depth from a picture of it, and what is done to it before points are made of it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

FAR_BEYOND_MEDIANS = 8.0  # depth beyond this many medians is drawn in
EDGE_LEFT = 0.35  # exp(−10 · slope of the disparity) below this is an edge
EDGE_SHARPNESS = 10.0
EDGE_SIDE = 480  # shorter side of the original's pictures; in a smaller one the same slope takes fewer pixels


def depth_from_picture(image: Tensor, near: float, far: float, inverse: bool) -> Tensor:
    """(H, W) float32 depth from a depth node's picture (H, W, 3), (H, W) or (1, H, W, 3).

    inverse: brighter is nearer and even in 1/depth, as relative depth nodes give it: white lies at `near`, black at
    `far`. Otherwise the values are depth: black lies at `near`, white at `far`, brighter values behind it. A
    picture of one shade is a flat wall. Raises InputError for another shape, NaN, or not 0 < near <= far.
    """
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim == 3 and image.shape[-1] in (1, 3, 4):
        image = image[..., :3].mean(-1)
    if image.ndim != 2 or 0 in image.shape:
        raise InputError(
            f"depth must be one picture (height, width, colors), got {tuple(image.shape)}; take one frame of it"
        )
    if not (0 < near <= far and math.isfinite(far)):
        raise InputError(f"nearest and farthest depth must be above 0 and in this order, got {near} and {far}")
    shade = image.float()
    if not torch.isfinite(shade).all():
        raise InputError("the depth picture has values that are no numbers (NaN or infinite); make it again")
    if inverse:
        return 1 / torch.lerp(torch.full_like(shade, 1 / far), torch.full_like(shade, 1 / near), shade.clamp(0, 1))
    return near + shade.clamp_min(0) * (far - near)


def draw_in(depth: Tensor) -> Tensor:
    """(H, W) with what lies beyond 8 medians, m, drawn in to less than 2m, smoothly, so that the sky stays in reach.

    Source: ewrfcas/Uni3C src/pointcloud.py, point_rendering.
    """
    edge = depth.median() * FAR_BEYOND_MEDIANS
    return torch.where(depth > edge, 2 * edge - edge**2 / depth, depth)


def edges(depth: Tensor) -> Tensor:
    """(H, W), true where depth jumps: such pixels mix near and far, their points would float in the air.

    Source: ewrfcas/Uni3C src/pointcloud.py, get_boundaries_mask: Sobel slope of the disparity scaled to 0 … 1.
    There the threshold is the same at any size; here small pictures may be steeper, or all of a slope were an edge.
    """
    disparity = 1 / depth
    low, high = disparity.min(), disparity.max()
    framed = F.pad(((disparity - low) / (high - low + 1e-6))[None, None], (1, 1, 1, 1), mode="replicate")
    sobel = framed.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    slope = F.conv2d(framed, torch.stack((sobel, sobel.T))[:, None])[0].square().sum(0).sqrt()
    return slope * min(1, min(depth.shape) / EDGE_SIDE) > -math.log(EDGE_LEFT) / EDGE_SHARPNESS

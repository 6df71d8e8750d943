"""Convert a depth picture to depth, and prepare depth for the point cloud."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

FAR_BEYOND_MEDIANS = 8.0  # depth beyond this many medians is compressed
EDGE_LEFT = 0.35  # a pixel is an edge where exp(-10 · slope of the disparity) is below this
EDGE_SHARPNESS = 10.0
EDGE_SIDE = 480  # pixels, shorter side of the original's pictures; the same edge is steeper per pixel in a smaller one


def depth_from_picture(image: Tensor, near: float, far: float, inverse: bool) -> Tensor:
    """Return depth (H, W) float32 from the picture of a depth node: (H, W, 3), (H, W) or (1, H, W, 3).

    inverse: brighter is nearer and the values are linear in 1/depth, as relative depth nodes output them: 1 (white)
    becomes `near`, 0 (black) `far`. Otherwise the values are linear in depth: 0 becomes `near`, 1 `far`, and values
    above 1 lie behind `far`. A picture of one shade gives constant depth. Raises InputError for another shape, for NaN,
    for an inverse depth far above 1, and unless 0 < near <= far.
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
    if inverse and shade.max() > 1.5:
        raise InputError(
            f"the depth goes up to {shade.max():g}, and where brighter is nearer it ends at 1 (white); turn "
            "inverse_depth off if these are distances, or normalize them"
        )
    if inverse:
        return 1 / torch.lerp(torch.full_like(shade, 1 / far), torch.full_like(shade, 1 / near), shade.clamp(0, 1))
    return near + shade.clamp_min(0) * (far - near)


def draw_in(depth: Tensor) -> Tensor:
    """Compress depth (H, W) beyond m = 8 medians smoothly to less than 2m, so that the sky is not too far away.

    Source: ewrfcas/Uni3C src/pointcloud.py, point_rendering.
    """
    edge = depth.median() * FAR_BEYOND_MEDIANS
    return torch.where(depth > edge, 2 * edge - edge**2 / depth, depth)


def edges(depth: Tensor) -> Tensor:
    """Return a mask (H, W), true at depth edges: pixels there mix near and far, so their points belong to no surface.

    Source: ewrfcas/Uni3C src/pointcloud.py, get_boundaries_mask: Sobel slope of the disparity scaled to 0 … 1.
    There the threshold is the same at any size; here it is higher for small pictures, in which it would otherwise
    mark every slope as an edge.
    """
    disparity = 1 / depth
    low, high = disparity.min(), disparity.max()
    framed = F.pad(((disparity - low) / (high - low + 1e-6))[None, None], (1, 1, 1, 1), mode="replicate")
    sobel = framed.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    slope = F.conv2d(framed, torch.stack((sobel, sobel.T))[:, None])[0].square().sum(0).sqrt()
    return slope * min(1, min(depth.shape) / EDGE_SIDE) > -math.log(EDGE_LEFT) / EDGE_SHARPNESS

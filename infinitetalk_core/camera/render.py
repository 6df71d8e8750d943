"""Render a still picture with depth from a moving camera: point splatting with a z-buffer, in plain torch.

Source of the method: ewrfcas/Uni3C src/pointcloud.py, point_rendering (there with pytorch3d: discs of 0.008 of half the
shorter side). Here each pixel of the picture is a cell as large as the distance to its projected neighbors, so a flat
surface is resampled bilinearly, without cracks and without growing over its border.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..model.exact_float32 import exact_float32
from .depth import draw_in, edges
from .path import Cameras

EMPTY = 0.5  # gray in holes: the original's background 0 in [-1, 1]
FRAMES_AT_ONCE = 4  # on a GPU; rendering takes about 50 MB per frame at 832 x 480
WIDEST_CELL = 4.0  # pixels; a surface that is stretched more gets holes
CRACK = 0.004  # of the shorter side: holes up to twice this width are filled, as by the original's discs
_SAME_SURFACE = 1.02  # depths within 2 % are blended
_SLACK = 0.01  # of a pixel: rounding must not open a crack
_CLOSEST = 0.01  # near plane, as a share of the picture's median depth


@dataclass(frozen=True)
class Warped:
    """Frames rendered from the moving camera, float32."""

    frames: Tensor  # (F, H, W, 3) in [0, 1], gray in holes
    seen: Tensor  # (F, H, W): 1 where the picture is visible, 0 in holes

    @property
    def holes(self) -> Tensor:
        """The render mask of Uni3C's ControlNet (F, H, W): 1 in holes."""
        return 1 - self.seen


@dataclass(frozen=True)
class _Points:
    """Points projected to the frames of one batch, one entry per point and frame."""

    x: Tensor  # (N,) pixels; pixel centers are whole numbers
    y: Tensor
    depth: Tensor
    reach_x: Tensor  # (N,) pixels from a point to its neighbors; at least 1
    reach_y: Tensor
    color: Tensor  # (N,) index into the picture's pixels
    frame: Tensor  # (N,) index of the frame in the batch

    def where(self, keep: Tensor) -> _Points:
        """Return the points at which `keep` (N,) is true."""
        chosen = keep.nonzero()[:, 0]
        return _Points(*(value[chosen] for value in vars(self).values()))


class PathRenderer:
    """Renders windows of a camera path from one picture, so that memory does not grow with the path's length.

    picture: (H, W, 3) in [0, 1]; depth: (H, W) above 0, larger is farther, in the unit of the path's radius;
    cameras: the whole path; device: where to compute, by default the picture's.
    Raises InputError for sizes that do not fit and for depth that is not above 0.
    """

    @exact_float32()
    def __init__(self, picture: Tensor, depth: Tensor, cameras: Cameras, device: torch.device | None = None) -> None:
        if picture.ndim != 3 or picture.shape[-1] != 3 or 0 in picture.shape:
            raise InputError(f"the picture must be (height, width, 3 colors), got {tuple(picture.shape)}")
        if depth.shape != picture.shape[:2]:
            raise InputError(
                f"the depth map must have the picture's size {tuple(picture.shape[:2])}, got {tuple(depth.shape)}; "
                "scale it to the picture first"
            )
        if not (torch.isfinite(depth).all() and (depth > 0).all()):
            raise InputError("depth must be above 0 and finite everywhere; relative depth must be converted first")
        self._device = device or picture.device
        self._picture = picture.to(self._device, torch.float32)
        depth = draw_in(depth.to(self._device, torch.float32))
        self._closest = _CLOSEST * float(depth.median())
        self._solid = ~edges(depth)
        self._cameras = cameras
        self._points = _unproject(depth, cameras.intrinsics[0])

    @exact_float32()
    def render(self, window: slice) -> Warped:
        """Render frames start … stop-1 of the path, on the CPU; past its end the last camera is repeated.

        A frame whose camera is that of the picture is the picture itself.
        """
        cameras = self._cameras.window(window)
        height, width = self._solid.shape
        frames = torch.empty(cameras.frames, height, width, 3)
        seen = torch.empty(cameras.frames, height, width)
        for start, drawn in self._draw(cameras):
            frames[start : start + len(drawn.seen)] = drawn.frames
            seen[start : start + len(drawn.seen)] = drawn.seen
        for index in range(cameras.frames):
            if self._cameras.at_source(window.start + index if window.start else index):
                frames[index], seen[index] = self._picture, 1
        return Warped(frames, seen)

    def _draw(self, cameras: Cameras) -> Iterator[tuple[int, Warped]]:
        """Yield the index of the first frame of each batch, and the batch's frames."""
        at_once = 1 if self._device.type == "cpu" else FRAMES_AT_ONCE  # one frame fits a CPU's cache
        to_source = torch.linalg.inv(self._cameras.world_to_camera[0])
        view = cameras.intrinsics @ (cameras.world_to_camera @ to_source)[:, :3]
        for start in range(0, cameras.frames, at_once):
            part = view[start : start + at_once].to(self._device, torch.float32)
            points = _project(self._points, part, self._solid, self._closest)
            yield start, _splat(points, self._picture, len(part))


def _unproject(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Return the points (4, H·W) of the pixel centers, homogeneous, in the source camera's axes. depth: (H, W)."""
    height, width = depth.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack((x, y, torch.ones_like(x))).flatten(1).double()
    rays = (torch.linalg.inv(intrinsics) @ pixels).to(depth)
    return torch.cat((rays * depth.flatten(), torch.ones_like(rays[:1])))


def _project(points: Tensor, view: Tensor, solid: Tensor, closest: float) -> _Points:
    """Project points (4, H·W) with view matrices (B, 3, 4); keep those in front of the camera, in or near the frame.

    solid: (H, W), false at depth edges, whose points are dropped; closest: depth of the near plane.
    """
    height, width = solid.shape
    u, v, depth = (view @ points).view(-1, 3, height, width).unbind(1)
    front = depth > closest
    depth = depth.clamp_min(closest)
    x, y = u / depth - 0.5, v / depth - 0.5
    near_frame = (
        (x > -WIDEST_CELL) & (x < width - 1 + WIDEST_CELL) & (y > -WIDEST_CELL) & (y < height - 1 + WIDEST_CELL)
    )
    frame, pixel = (front & near_frame & solid).flatten(1).nonzero().unbind(1)
    kept = frame * height * width + pixel
    at_x, at_y, at_depth, reach_x, reach_y = (value.flatten()[kept] for value in (x, y, depth, _reach(x), _reach(y)))
    return _Points(at_x, at_y, at_depth, reach_x, reach_y, color=pixel, frame=frame)


def _reach(position: Tensor) -> Tensor:
    """Return the distance (B, H, W) in pixels to the neighbors' `position` (B, H, W), one projected coordinate.

    The distances along rows and columns are added, so that no crack opens when the camera rolls.
    """
    across = (position[:, :, 1:] - position[:, :, :-1]).abs()
    down = (position[:, 1:] - position[:, :-1]).abs()
    reach = F.pad(across, (0, 1)).maximum(F.pad(across, (1, 0)))
    reach = reach + F.pad(down, (0, 0, 0, 1)).maximum(F.pad(down, (0, 0, 1, 0)))
    return reach.clamp(1, WIDEST_CELL)


def _splat(points: _Points, picture: Tensor, count: int) -> Warped:
    """Draw `points` into `count` frames. First pass: the smallest depth of the points that cover each pixel; second
    pass: the weighted mean color of all points that are not behind it. picture: (H, W, 3)."""
    height, width, _ = picture.shape
    nearest = picture.new_full((count * height * width,), torch.inf)
    for reached, pixel, _ in _cells(points, height, width, cover=True):
        nearest.scatter_reduce_(0, pixel, points.depth[reached], "amin")
    colors = picture.reshape(-1, 3)
    total = picture.new_zeros(count * height * width, 4)
    for reached, pixel, weight in _cells(points, height, width, cover=False):
        visible = (points.depth[reached] <= nearest[pixel] * _SAME_SURFACE).nonzero()[:, 0]
        weight = weight[visible, None]
        weighted = torch.cat((colors[points.color[reached[visible]]] * weight, weight), dim=1)
        total.index_add_(0, pixel[visible], weighted)
    total = total.view(count, height, width, 4)
    seen = (torch.isfinite(nearest).view(count, height, width) & (total[..., 3] > 0)).float()
    frames = total[..., :3] / total[..., 3:].clamp_min(1e-6)
    return _fill_cracks(frames, seen)


def _cells(points: _Points, height: int, width: int, cover: bool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (point indices, pixel indices, weights) of the points that reach a pixel, for one pixel offset at a time.

    cover: only pixels whose center is inside the point's cell; otherwise all pixels inside its bilinear kernel, which
    is twice as wide. Few points reach farther than one pixel: the outer rings of offsets are computed for these only.
    """
    share = 0.5 if cover else 1.0
    widest = points.reach_x.maximum(points.reach_y) * share
    for ring in range(1, round(WIDEST_CELL * share) + 1):
        far = torch.arange(len(widest), device=widest.device)
        if ring > 1:
            far = (widest > ring - 1 + _SLACK).nonzero()[:, 0]
        x, y, frame = points.x[far], points.y[far], points.frame[far] * height * width
        reach_x, reach_y = points.reach_x[far] * share, points.reach_y[far] * share
        left, top = x.floor(), y.floor()
        for down, right in itertools.product(range(1 - ring, ring + 1), repeat=2):
            if max(down, right, 1 - down, 1 - right) < ring:
                continue
            at_x, at_y = left + right, top + down
            beside, below = (at_x - x).abs() / reach_x, (at_y - y).abs() / reach_y
            reached = (beside.maximum(below) < 1 + (_SLACK if cover else 0)) & (at_x >= 0) & (at_y >= 0)
            hit = (reached & (at_x < width) & (at_y < height)).nonzero()[:, 0]
            pixel = frame[hit] + (at_y[hit] * width + at_x[hit]).long()
            yield far[hit], pixel, (1 - beside[hit]) * (1 - below[hit])


def _fill_cracks(frames: Tensor, seen: Tensor) -> Warped:
    """Fill holes that are too narrow to be disocclusions with the mean of their neighbors; set the others to gray.

    frames: (F, H, W, 3); seen: (F, H, W), 1 where a frame was drawn.
    """
    _, height, width = seen.shape
    reach = max(round(CRACK * min(height, width)), 1)
    size = 2 * reach + 1
    grown = F.max_pool2d(seen, size, stride=1, padding=reach)
    closed = 1 - F.max_pool2d(F.pad(1 - grown, (reach,) * 4, value=1.0), size, stride=1)
    frames = torch.where(seen[..., None] > 0, frames, 0.0)
    # Outside the frame counts as open, so a crack is at least `reach` away from the border: no neighbor is outside.
    crack, y, x = ((closed > 0) & (seen == 0)).nonzero().unbind(1)
    steps = torch.arange(-reach, reach + 1, device=seen.device)
    around_y, around_x = (y[:, None] + steps)[:, :, None], (x[:, None] + steps)[:, None]
    colors = frames[crack[:, None, None], around_y, around_x].sum((1, 2))
    count = seen[crack[:, None, None], around_y, around_x].sum((1, 2))
    frames = torch.where(seen[..., None] > 0, frames, EMPTY)
    frames[crack, y, x] = colors / count[:, None]
    seen = seen.clone()
    seen[crack, y, x] = 1
    return Warped(frames, seen)

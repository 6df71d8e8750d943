"""Camera paths as data: the pose and intrinsics of the camera for each frame.

Axes as in OpenCV: x right, y down, z into the picture. The world's origin is the center of the orbit: it lies `radius`
in front of the picture's own camera, which is frame 0 of every path.
Source: ewrfcas/Uni3C, src/utils.py (traj_map, set_initial_camera, build_cameras) and cam_render.py. Differences: here
offsets and zoom reach their full value in the last frame (there they stop 1/F short), and a swing does not lag by one
frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np
import torch
from scipy.interpolate import UnivariateSpline
from torch import Tensor

from ..errors import InputError

START_ELEVATION = 5.0  # degrees; the original advises against changing it
LEAST_FOREGROUND = 0.05  # share of the picture; with less foreground the whole picture is used
_SAME_CAMERA = 1e-9  # largest difference of matrix entries of equal cameras


@dataclass(frozen=True)
class Cameras:
    """A pinhole camera per frame, float64 on the CPU. Frame 0 is the camera of the source picture."""

    world_to_camera: Tensor  # (F, 4, 4)
    intrinsics: Tensor  # (F, 3, 3), pixels; the center of the top left pixel is (0.5, 0.5)

    def __post_init__(self) -> None:
        frames = len(self.world_to_camera)
        if self.world_to_camera.shape != (frames, 4, 4) or self.intrinsics.shape != (frames, 3, 3) or frames < 1:
            raise InputError(
                "cameras need world_to_camera (F, 4, 4) and intrinsics (F, 3, 3) of the same F, "
                f"got {tuple(self.world_to_camera.shape)} and {tuple(self.intrinsics.shape)}"
            )

    @property
    def frames(self) -> int:
        """F, the number of frames of the path."""
        return len(self.world_to_camera)

    def window(self, frames: slice) -> Cameras:
        """Return the cameras of frames start … stop-1; past the end of the path the last camera is repeated.

        Raises InputError for a window that is empty, has no end, has a step or begins before 0.
        """
        start, stop = frames.start or 0, frames.stop
        if stop is None or frames.step not in (None, 1) or not 0 <= start < stop:
            raise InputError(f"a window of the camera path must be frames start to stop, counted from 0, got {frames}")
        index = torch.arange(start, stop).clamp_max(self.frames - 1)
        return Cameras(self.world_to_camera[index], self.intrinsics[index])

    def at_source(self, frame: int) -> bool:
        """Whether the camera of this frame is that of the source picture."""
        here = self.window(slice(frame, frame + 1))
        moved = (here.world_to_camera[0] - self.world_to_camera[0]).abs().max()
        zoomed = (here.intrinsics[0] - self.intrinsics[0]).abs().max()
        return bool(moved <= _SAME_CAMERA and zoomed <= _SAME_CAMERA)


@dataclass(frozen=True)
class Move:
    """A path given by its end, in the original's parameters; the camera moves there linearly."""

    d_r: float = 1.0  # distance to the center as a multiple of the first one; 0.25 to 2.5
    d_theta: float = 0.0  # degrees up (< 0) or down (> 0); -90 to 30
    d_phi: float = 0.0  # degrees around to the right (< 0) or to the left (> 0); -360 to 360
    x_offset: float = 0.0  # right (> 0), in radii; -0.5 to 0.5
    y_offset: float = 0.0  # down (> 0), in radii
    z_offset: float = 0.0  # forward (> 0), in radii
    focal_length: float = 1.0  # as a multiple of the first focal length; 0.25 to 2.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value):
                raise InputError(f"{field.name} of the camera path must be a number, got {value}")
        for name in ("d_r", "focal_length"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} of the camera path must be above 0, got {getattr(self, name)}; 1 keeps it")


@dataclass(frozen=True)
class Swing:
    """A path given by values at equal distances in time, which a smooth curve is fitted to."""

    d_theta: tuple[float, ...]  # degrees
    d_phi: tuple[float, ...]  # degrees
    farther: tuple[float, ...]  # added to a distance of 1
    focal_length: float = 1.0


def orbit(d_phi: float = -360.0, d_theta: float = 0.0) -> Move:
    """Return a rotation around the center, with the camera directed at it. Angles in degrees, see `Move`."""
    return Move(d_phi=d_phi, d_theta=d_theta)


def pan(x_offset: float = 0.0, y_offset: float = 0.0) -> Move:
    """Return a translation to the side and up or down, in radii, along the world's axes (tilted by start_elevation)."""
    return Move(x_offset=x_offset, y_offset=y_offset)


def dolly(d_r: float) -> Move:
    """Return a move to `d_r` times the distance to the center: near objects change size faster than far ones."""
    return Move(d_r=d_r)


def zoom(focal_length: float) -> Move:
    """Return a zoom to `focal_length` times the first focal length: all objects change size by the same factor."""
    return Move(focal_length=focal_length)


PRESETS: Mapping[str, Move | Swing] = MappingProxyType(
    {
        "free1": Move(d_theta=-15.0, d_phi=45.0, d_r=1.6),
        "free2": Move(x_offset=-0.05, d_phi=-60.0),
        "free3": Move(x_offset=-0.25, d_r=1.7),
        "free4": Move(d_theta=-15.0, d_phi=-60.0, d_r=0.75),
        "free5": Move(d_theta=-15.0, d_phi=-120.0, d_r=1.6),
        "swing1": Swing((0, -8, -12, -20, -17, -12, -5, -2, 1, 5, 3, 1, 0), (0, -5, -25, -30, -20, -8, 0), (0, 0.2)),
        "swing2": Swing(
            (0, -5, -14, -11, 0, 1, 5, 3, 0), (0, 5, 25, 30, 20, 10, 0), (0, -0.03, -0.1, -0.2, -0.17, -0.1, 0)
        ),
        "orbit": orbit(),
    }
)


def picture_intrinsics(height: int, width: int, field_of_view: float) -> Tensor:
    """Return intrinsics (3, 3) float64, in pixels, for a field of view in degrees across the picture's longer side.

    Raises InputError for a picture without pixels and for a field of view outside 0 … 180.
    """
    if height < 1 or width < 1:
        raise InputError(f"the picture must have at least one pixel, got {width} x {height}")
    if not 0 < field_of_view < 180:
        raise InputError(f"the field of view must be between 0 and 180 degrees, got {field_of_view}; 55 is usual")
    focal = max(height, width) / 2 / math.tan(math.radians(field_of_view) / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)


def orbit_radius(depth: Tensor, foreground: Tensor | None = None) -> float:
    """Return the distance of the orbit's center: the median of depth (H, W) in the foreground (H, W, 1 inside).

    Without a foreground, or if it covers less than 5 % of the picture, the median is taken over the whole picture, as
    in the original. Raises InputError for sizes that differ.
    """
    inside = torch.ones_like(depth, dtype=torch.bool) if foreground is None else foreground > 0.5
    if inside.shape != depth.shape:
        raise InputError(
            f"the foreground mask must have the depth map's size, got {tuple(inside.shape)} and {tuple(depth.shape)}"
        )
    if inside.float().mean() < LEAST_FOREGROUND:
        inside = torch.ones_like(inside)
    return float(depth[inside].median())


def camera_path(
    path: Move | Swing, frames: int, radius: float, intrinsics: Tensor, start_elevation: float = START_ELEVATION
) -> Cameras:
    """Return the cameras of `frames` frames: the first is that of the picture, the last is the end of the path.

    radius: distance from the camera to the center, in the depth map's unit; intrinsics: (3, 3) of the picture, in
    pixels; start_elevation: degrees by which the picture's camera is tilted down towards the center: it only tilts the
    world, and with it the axes of rotations and offsets. Raises InputError for no frames, a radius not above 0, and
    intrinsics of another shape.
    """
    if frames < 1:
        raise InputError(f"a camera path must have at least one frame, got {frames}")
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"the distance to the center of the camera path must be above 0, got {radius}")
    if intrinsics.shape != (3, 3):
        raise InputError(f"the picture's camera must be a 3 x 3 matrix, got {tuple(intrinsics.shape)}")
    share = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    theta, phi, distance, offset = _swing(path, share) if isinstance(path, Swing) else _move(path, share)

    source = np.eye(4)
    source[2, 3] = -radius
    source = _turn(0, np.array([-start_elevation])) @ source
    camera_to_world = _turn(1, phi) @ _turn(0, theta) @ source
    camera_to_world[:, :3, 3] = (camera_to_world[:, :3, 3] + radius * offset) * distance[:, None]
    world_to_camera = torch.linalg.inv(torch.from_numpy(camera_to_world))

    lens = intrinsics.double().cpu().repeat(frames, 1, 1)
    lens[:, :2, :2] *= torch.from_numpy(1 + (path.focal_length - 1) * share)[:, None, None]
    return Cameras(world_to_camera, lens)


def _move(path: Move, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return angles theta, phi (F,) in degrees, distance (F,) and offset (F, 3) in radii, linear in `share` (F,)."""
    offset = share[:, None] * np.array([path.x_offset, path.y_offset, path.z_offset])
    return share * path.d_theta, share * path.d_phi, 1 + share * (path.d_r - 1), offset


def _swing(path: Swing, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the values of `_move` for the curves of a swing."""
    offset = np.zeros((len(share), 3))
    return _curve(path.d_theta, share), _curve(path.d_phi, share), 1 + _curve(path.farther, share), offset


def _curve(values: Sequence[float], share: np.ndarray) -> np.ndarray:
    """Return (F,) values of a smoothing cubic through equally spaced values (up to 3: linear). The ends are exact."""
    knots = np.linspace(0, 1, len(values))
    curve = UnivariateSpline(knots, values, k=3)(share) if len(values) > 3 else np.interp(share, knots, values)
    curve[-1] = values[-1]
    curve[0] = values[0]
    return curve


def _turn(axis: int, degrees: np.ndarray) -> np.ndarray:
    """Return (F, 4, 4) rotations by `degrees` (F,) about x (axis 0) or y (axis 1)."""
    a, b = ((1, 2), (2, 0))[axis]
    turn = np.tile(np.eye(4), (len(degrees), 1, 1))
    turn[:, a, a] = turn[:, b, b] = np.cos(np.deg2rad(degrees))
    turn[:, b, a] = np.sin(np.deg2rad(degrees))
    turn[:, a, b] = -turn[:, b, a]
    return turn

"""Camera paths as data: where the camera is and how far it is zoomed in, frame by frame.

Axes as in OpenCV: x right, y down, z into the picture. The world's origin is the point the camera circles: it lies
`radius` in front of the picture's own camera, which is frame 0 of every path.
Source: ewrfcas/Uni3C, src/utils.py (traj_map, set_initial_camera, build_cameras) and cam_render.py. Unlike there,
offsets and zoom are whole in the last frame (there they stop 1/F short), and a swing does not lag by one frame.
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
LEAST_FOREGROUND = 0.05  # of the picture; below it the whole picture counts
_SAME_CAMERA = 1e-9


@dataclass(frozen=True)
class Cameras:
    """One pinhole camera a frame, float64 on the CPU. Frame 0 is the camera that took the picture."""

    world_to_camera: Tensor  # (F, 4, 4)
    intrinsics: Tensor  # (F, 3, 3), pixels; the centre of the top left pixel is (0.5, 0.5)

    def __post_init__(self) -> None:
        frames = len(self.world_to_camera)
        if self.world_to_camera.shape != (frames, 4, 4) or self.intrinsics.shape != (frames, 3, 3) or frames < 1:
            raise InputError(
                "cameras need world_to_camera (F, 4, 4) and intrinsics (F, 3, 3) of the same F, "
                f"got {tuple(self.world_to_camera.shape)} and {tuple(self.intrinsics.shape)}"
            )

    @property
    def frames(self) -> int:
        """F, the frames of the path."""
        return len(self.world_to_camera)

    def window(self, frames: slice) -> Cameras:
        """The cameras of frames start … stop−1; after the path's end its last camera stays.

        Raises InputError for a window that is empty, open, stepped or begins before 0.
        """
        start, stop = frames.start or 0, frames.stop
        if stop is None or frames.step not in (None, 1) or not 0 <= start < stop:
            raise InputError(f"a window of the camera path must be frames start to stop, counted from 0, got {frames}")
        index = torch.arange(start, stop).clamp_max(self.frames - 1)
        return Cameras(self.world_to_camera[index], self.intrinsics[index])

    def at_source(self, frame: int) -> bool:
        """Whether this frame's camera is the one that took the picture."""
        here = self.window(slice(frame, frame + 1))
        moved = (here.world_to_camera[0] - self.world_to_camera[0]).abs().max()
        zoomed = (here.intrinsics[0] - self.intrinsics[0]).abs().max()
        return bool(moved <= _SAME_CAMERA and zoomed <= _SAME_CAMERA)


@dataclass(frozen=True)
class Move:
    """Where the camera is at the end of the path, with the original's parameters; it goes there evenly."""

    d_r: float = 1.0  # distance to the centre as a multiple of the first one; 0.25 to 2.5
    d_theta: float = 0.0  # degrees up (< 0) or down (> 0); −90 to 30
    d_phi: float = 0.0  # degrees around to the right (< 0) or to the left (> 0); −360 to 360
    x_offset: float = 0.0  # right (> 0), in radii; −0.5 to 0.5
    y_offset: float = 0.0  # down (> 0), in radii
    z_offset: float = 0.0  # forward (> 0), in radii
    focal_length: float = 1.0  # zoom as a multiple of the first focal length; 0.25 to 2.5

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
    """A ready-made swing: values spread evenly over the path and drawn as one smooth curve."""

    d_theta: tuple[float, ...]  # degrees
    d_phi: tuple[float, ...]  # degrees
    farther: tuple[float, ...]  # added to a distance of 1
    focal_length: float = 1.0


def orbit(d_phi: float = -360.0, d_theta: float = 0.0) -> Move:
    """Around the centre, always looking at it."""
    return Move(d_phi=d_phi, d_theta=d_theta)


def pan(x_offset: float = 0.0, y_offset: float = 0.0) -> Move:
    """Sideways and up or down without turning; along the world's axes, tilted by the start elevation."""
    return Move(x_offset=x_offset, y_offset=y_offset)


def dolly(d_r: float) -> Move:
    """Nearer to the centre (below 1) or farther from it (above 1): near things change size faster than far ones."""
    return Move(d_r=d_r)


def zoom(focal_length: float) -> Move:
    """A longer (above 1) or shorter lens: everything changes size alike."""
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
    """(3, 3) float64 of a lens that sees `field_of_view` degrees across the picture's longer side."""
    if height < 1 or width < 1:
        raise InputError(f"the picture must have at least one pixel, got {width} x {height}")
    if not 0 < field_of_view < 180:
        raise InputError(f"the field of view must be between 0 and 180 degrees, got {field_of_view}; 55 is usual")
    focal = max(height, width) / 2 / math.tan(math.radians(field_of_view) / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)


def orbit_radius(depth: Tensor, foreground: Tensor | None = None) -> float:
    """How far in front of the camera the centre lies: the median depth (H, W) of the foreground (H, W, true inside).

    Without a foreground, or where it is under 5 % of the picture, the whole picture counts, as in the original.
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
    """The cameras of `frames` frames; the first is the picture's own, the last has reached the path's end.

    radius: distance from the camera to the centre, in the depth map's unit; intrinsics: (3, 3) of the picture,
    pixels; start_elevation: degrees by which the picture's camera looks down on the centre: it only tilts the
    world, and with it the axes of turns and offsets. Raises InputError for no frames or a radius not above 0.
    """
    if frames < 1:
        raise InputError(f"a camera path must have at least one frame, got {frames}")
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"the distance to the centre of the camera path must be above 0, got {radius}")
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
    """Angles (F,) in degrees, distance (F,) and offset (F, 3) in radii, growing evenly with `share`."""
    offset = share[:, None] * np.array([path.x_offset, path.y_offset, path.z_offset])
    return share * path.d_theta, share * path.d_phi, 1 + share * (path.d_r - 1), offset


def _swing(path: Swing, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `_move`, for the curves of a swing."""
    offset = np.zeros((len(share), 3))
    return _curve(path.d_theta, share), _curve(path.d_phi, share), 1 + _curve(path.farther, share), offset


def _curve(values: Sequence[float], share: np.ndarray) -> np.ndarray:
    """(F,): a smoothing cubic through evenly spread values, a straight line for two; the ends are exact."""
    knots = np.linspace(0, 1, len(values))
    curve = UnivariateSpline(knots, values, k=3)(share) if len(values) > 3 else np.interp(share, knots, values)
    curve[-1] = values[-1]
    curve[0] = values[0]
    return curve


def _turn(axis: int, degrees: np.ndarray) -> np.ndarray:
    """(F, 4, 4) rotations about x (0) or y (1)."""
    a, b = ((1, 2), (2, 0))[axis]
    turn = np.tile(np.eye(4), (len(degrees), 1, 1))
    turn[:, a, a] = turn[:, b, b] = np.cos(np.deg2rad(degrees))
    turn[:, b, a] = np.sin(np.deg2rad(degrees))
    turn[:, a, b] = -turn[:, b, a]
    return turn

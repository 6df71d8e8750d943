"""Measure the camera motion of a video from its pixels, and the difference between two videos' cameras.

Each frame is registered to the first one: shift, scale and rotation are found by least squares on the pixel values
(Gauss-Newton with the gradients of the first frame; Baker and Matthews 2004, the inverse compositional method), from
coarse to fine. A grid search over every few frames, for the path of least cost, gives the start of the search, so that
large movements are found too. To exclude the person in the middle, pixels at the left and right of the picture have the
largest weight, and pixels that do not fit a small one (Tukey's weights).

camera error: the root mean square over frames of the difference between two cameras' shifts, in percent of the width,
and of their scales, in percent. 0 is the same movement; a shift error of 1 is one pixel in a hundred.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk_core.errors import InputError

Track = NDArray[np.float64]
_FINEST = 64  # pixels of the longer side: a finer resolution does not improve the result
_KEY = 5  # the grid search uses every 5th frame; movements between them are interpolated
_ROUNDS = 5  # Gauss-Newton iterations
_SAMPLED = 4  # the usual residual is estimated from every 4th pixel
_SEARCH = (5, 3)  # range of the grid search in coarse pixels, horizontally and vertically
_SCALES = (0.88, 0.94, 1.0, 1.06, 1.13)
_TRUNCATED = 0.1  # largest residual of a pixel: one that fits worse is not background
_UNSEEN = 0.03  # cost of a pixel that has left the picture
_AWAY, _JUMP = 0.03, 0.15  # cost of a movement, and of its change from one searched frame to the next
_FIT = 4.685  # Tukey's constant: residuals above this many standard deviations have weight 0
_NOISE = 0.03  # standard deviation of a pixel value in 0 … 1; larger than real noise, since neighbors are correlated
# Prior standard deviations (scale, rotation, shifts in widths) of a movement around the start of its search: where
# there is little texture the result stays near the start.
_NEAR = (0.03, 0.015, 0.02, 0.02)


@dataclass(frozen=True)
class CameraTrack:
    """The movement of the scene in the picture since the first frame; all fields (F,) float64.

    A point at (x, y) from the middle of the picture in frame 0, in widths, is at
    scale · turn(roll) · (x, y) + (shift_x, shift_y) in frame t.
    """

    shift_x: Track  # widths, positive to the right
    shift_y: Track  # widths, positive down
    scale: Track  # 1 = as in frame 0, above it nearer
    roll: Track  # radians, positive clockwise

    def __len__(self) -> int:
        return len(self.scale)


@dataclass(frozen=True)
class CameraError:
    """The difference between two cameras."""

    shift: float  # percent of the width, root mean square
    scale: float  # percent, root mean square


def camera_error(made: CameraTrack, wanted: CameraTrack) -> CameraError:
    """Return the difference of two cameras over the frames that both have. Raises InputError if there are none."""
    frames = min(len(made), len(wanted))
    if frames == 0:
        raise InputError("the camera error needs at least one frame of both videos")
    x, y = (getattr(made, n)[:frames] - getattr(wanted, n)[:frames] for n in ("shift_x", "shift_y"))
    scale = made.scale[:frames] / wanted.scale[:frames] - 1
    return CameraError(100 * float(np.sqrt((x**2 + y**2).mean())), 100 * float(np.sqrt((scale**2).mean())))


def measure_camera(frames: Tensor) -> CameraTrack:
    """Measure the camera of `frames` (F, H, W, 3) relative to the first frame. Without any texture it is static.

    Raises InputError for another shape and for no frames.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise InputError(f"the camera is measured in frames (F, H, W, 3), got {tuple(frames.shape)}")
    fine = _as_bright(_small(frames, _FINEST))
    coarse = F.avg_pool2d(fine, 2, ceil_mode=True, count_include_pad=False)
    keys = _register(fine[:1], fine[::_KEY], _search(coarse[:1], coarse[::_KEY]), _NEAR)
    track = _register(fine[:1], fine, _between(keys, len(frames)), _NEAR)
    scale, turn, x, y = track.double().unbind(1)
    one = 1 + scale
    return CameraTrack(
        shift_x=x.numpy(), shift_y=y.numpy(), scale=torch.hypot(one, turn).numpy(), roll=torch.atan2(turn, one).numpy()
    )


def _small(frames: Tensor, longest: int) -> Tensor:
    """Resize `frames` (F, H, W, 3) to (F, 3, h, w) with a longer side of at most `longest` pixels."""
    pictures = frames.detach().cpu().float().permute(0, 3, 1, 2)
    longer = max(pictures.shape[-2:])
    if longer <= longest:
        return pictures.contiguous()
    size = [max(round(side * longest / longer), 8) for side in pictures.shape[-2:]]
    return F.interpolate(pictures, size=size, mode="area")


def _as_bright(frames: Tensor) -> Tensor:
    """Match the color of `frames` (F, 3, h, w) at the picture's sides to the first frame.

    Without this a color drift would be measured as a movement.
    """
    sides = frames.flatten(2)[..., _background(frames[:1])[1] > 0]
    if sides.shape[-1] == 0:
        return frames
    return frames - (sides - sides[:1]).median(dim=-1).values[..., None, None]


def _search(first: Tensor, frames: Tensor) -> Tensor:
    """Return the movements (F, 4) of least total cost for `frames` (F, 3, h, w), on a grid of shifts and scales.

    first: (1, 3, h, w), the frame that they are registered to.
    """
    height, width = first.shape[-2:]
    coordinates, border = _background(first)
    still = first.flatten(2)[..., border > 0]
    used = border > 0
    (x, y), border = coordinates[:, used], border[used] / border.sum().clamp(min=1e-6)
    across, down = _SEARCH
    grid, costs = [], []
    for scale in _SCALES:
        scaled = _scaled(frames, scale)
        for right, below in itertools.product(range(-across, across + 1), range(-down, down + 1)):
            shift = torch.tensor((right, below)) * (scale / width)
            seen = scaled[..., down + below :, across + right :][..., :height, :width].flatten(2)[..., used]
            outside = ((scale * x + shift[0]).abs() > 0.5) | ((scale * y + shift[1]).abs() > 0.5 * height / width)
            misfit = (seen - still).abs().amax(1).clamp(max=_TRUNCATED).masked_fill(outside, _UNSEEN)
            grid.append(torch.tensor((scale - 1, 0, shift[0], shift[1])))
            costs.append(misfit @ border)
    states = torch.stack(grid)
    cost = torch.stack(costs, dim=1) + _AWAY * states.norm(dim=1)
    return states[_likeliest(cost, _JUMP * torch.cdist(states, states))]


def _scaled(frames: Tensor, scale: float) -> Tensor:
    """Enlarge `frames` (F, 3, h, w) by 1 / scale around the center, with margins for the grid search."""
    height, width = frames.shape[-2:]
    y, x = (
        (torch.arange(side + 2 * reach) + 0.5 - reach - side / 2) * (2 * scale / side)
        for side, reach in ((height, _SEARCH[1]), (width, _SEARCH[0]))
    )
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    return F.grid_sample(frames, grid.expand(len(frames), -1, -1, -1), align_corners=False, padding_mode="border")


def _likeliest(costs: Tensor, jumps: Tensor) -> Tensor:
    """Return the state sequence (F,) of least total cost (Viterbi).

    costs: (F, n), of each state in each frame; jumps: (n, n), of the transitions.
    """
    total, came = costs[0], []
    for cost in costs[1:]:
        least, where = (total[:, None] + jumps).min(dim=0)
        total = least + cost
        came.append(where)
    path = [total.argmin()]
    for where in reversed(came):
        path.append(where[path[-1]])
    return torch.stack(path[::-1])


def _between(keys: Tensor, frames: int) -> Tensor:
    """Interpolate movements (frames, 4) linearly from those of every `_KEY`th frame (k, 4)."""
    position = torch.arange(frames) / _KEY
    low = position.long()
    return torch.lerp(keys[low], keys[(low + 1).clamp(max=len(keys) - 1)], (position - low)[:, None])


def _register(first: Tensor, frames: Tensor, start: Tensor, usual: tuple[float, ...]) -> Tensor:
    """Find the movements (F, 4) that register `frames` (F, 3, h, w) to `first` (F or 1, 3, h, w), from `start` (F, 4).

    A movement is (a, b, x, y): the point z of `first`, as a complex number in widths from the center, is at
    (1 + a + ib) z + x + iy in the frame. usual: the prior standard deviation of each number around `start`.
    """
    height_by_width = first.shape[-2] / first.shape[-1]
    coordinates, border = _background(first)
    x, y = coordinates
    slopes = _slopes(first, coordinates, border > 0).expand(len(frames), -1, -1)  # (F, 4, 3n)
    seen_before = first.flatten(2)[..., border > 0]
    x, y, border = x[border > 0], y[border > 0], border[border > 0]
    prior = torch.tensor(usual) ** -2
    movement = start.clone()
    for _ in range(_ROUNDS):
        seen, valid = _look(frames, x, y, movement, height_by_width)
        weight = (valid * border)[:, None].expand_as(seen)
        error = _unbiased(seen - seen_before, weight)
        weight = (weight * _fit_weight(error, weight)).flatten(1) / _NOISE**2
        system = slopes @ (slopes * weight[:, None]).mT + prior.diag()
        side = (slopes @ (weight * error.flatten(1))[..., None])[..., 0] + prior * (movement - start)
        movement = _undo(movement, torch.linalg.solve(system, side))
    return movement


def _background(first: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' coordinates (2, n) in widths from the center, and their weights (n,). first: (1, 3, h, w).

    The weight is 1 at the left and right of the picture, and 0 where the speaker and the shoulders are and for colors
    that do not occur at the picture's edges, such as hair near them.
    """
    height, width = first.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = (x.flatten() - width / 2) / width, (y.flatten() - height / 2) / height
    border = ((x.abs() - 0.3) / 0.08).clamp(0, 1) * ((0.26 - y) / 0.08).clamp(0, 1)
    colors = first[0].flatten(1).T
    edge = colors[(x.abs() > 0.44) & (y < 0.2)]
    strange = torch.cdist(colors, edge).amin(dim=1)
    return torch.stack((x, y * height / width)), border * (1 - (strange - 0.05) / 0.05).clamp(0, 1)


def _slopes(first: Tensor, coordinates: Tensor, used: Tensor) -> Tensor:
    """Return the derivatives (F, 4, 3n) of the `used` pixels of `first` (F, 3, h, w) by the numbers of a movement."""
    padded = F.pad(first, (1, 1, 1, 1), mode="replicate")
    width = first.shape[-1]
    gx = ((padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * (width / 2)).flatten(2)[..., used]
    gy = ((padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) * (width / 2)).flatten(2)[..., used]
    x, y = coordinates[:, used]
    return torch.stack((gx * x + gy * y, gy * x - gx * y, gx, gy), dim=1).flatten(2)


def _look(frames: Tensor, x: Tensor, y: Tensor, movement: Tensor, height_by_width: float) -> tuple[Tensor, Tensor]:
    """Sample `frames` (F, 3, h, w) at the moved points (n,): values (F, 3, n), and 1 for points inside (F, n)."""
    a, b, dx, dy = (m[:, None] for m in movement.unbind(1))
    there = torch.stack(((1 + a) * x - b * y + dx, (b * x + (1 + a) * y + dy) / height_by_width), dim=-1) * 2
    seen = F.grid_sample(frames, there[:, None], align_corners=False, padding_mode="border")
    return seen[:, :, 0], (there.abs().amax(-1) <= 1).float()


def _unbiased(error: Tensor, weight: Tensor) -> Tensor:
    """Subtract the weighted mean over the pixels from `error` (F, 3, n), so that a color drift is no movement."""
    return error - (weight * error).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1e-6)


def _fit_weight(error: Tensor, weight: Tensor) -> Tensor:
    """Return Tukey's weights (F, 3, n) of residuals; their scale is the median over pixels with a weight above 0.5."""
    sample = error[..., ::_SAMPLED].abs()
    size = torch.where(weight[..., ::_SAMPLED] > 0.5, sample, torch.nan).flatten(1).nanmedian(dim=1).values
    deviation = 1.4826 * size.nan_to_num(1.0)[:, None, None]
    ratio = error / (_FIT * deviation.clamp(min=0.01))
    return (1 - ratio**2).clamp(min=0) ** 2


def _undo(movement: Tensor, step: Tensor) -> Tensor:
    """Compose `movement` with the inverse of the small movement `step`, both (F, 4)."""
    factor, shift = (torch.complex(movement[:, i], movement[:, i + 1]) for i in (0, 2))
    step_factor, step_shift = (torch.complex(step[:, i], step[:, i + 1]) for i in (0, 2))
    factor = factor + 1
    factor = factor / (1 + step_factor)
    shift = shift - factor * step_shift
    return torch.stack((factor.real - 1, factor.imag, shift.real, shift.imag), dim=1)

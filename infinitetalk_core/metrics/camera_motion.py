"""The camera's movement measured from pixels, and how far two videos' cameras differ.

Each frame is laid over the first one: shift, scale and turn are found by least squares on the grey values (Gauss-Newton
with the gradients of the first frame; Baker and Matthews 2004, the inverse compositional method), from coarse to fine.
Steps between neighbouring frames come first and give the start of the search, so that a long way is found too. The
person in the middle must not matter: the border of the picture counts most, and pixels that do not fit count little
(Tukey's weights).

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

from ..errors import InputError

Track = NDArray[np.float64]
_FINEST = 64  # pixels of the longer side: finer than this the answer does not get better
_KEY = 5  # every so many frames the movement is searched for; between them it is near the one between
_ROUNDS = 5
_SAMPLED = 4  # of so many pixels one tells the usual misfit
_SEARCH = (5, 3)  # how many steps of a coarse pixel to either side, and up and down
_SCALES = (0.88, 0.94, 1.0, 1.06, 1.13)
_TRUNCATED = 0.1  # a pixel that fits worse than this is not background
_UNSEEN = 0.03  # what a pixel costs that has left the picture
_AWAY, _JUMP = 0.03, 0.15  # what a movement costs, and a change of it from one searched frame to the next
_FIT = 4.685  # Tukey's constant: pixels further off than this many deviations count nothing
_NOISE = 0.03  # of a pixel, 0 … 1: what neighbouring pixels know together is counted as if each knew it
# How far (scale, turn, shifts in widths) a movement usually is from where its search begins: where there is little
# texture it stays near there.
_NEAR = (0.03, 0.015, 0.02, 0.02)


@dataclass(frozen=True)
class CameraTrack:
    """Where a point of the scene went since the first frame, all (F,) float64.

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
    """How far a camera is from another."""

    shift: float  # percent of the width, root mean square
    scale: float  # percent, root mean square


def camera_error(made: CameraTrack, wanted: CameraTrack) -> CameraError:
    """The difference of two cameras over the frames that both have. Raises InputError where there are none."""
    frames = min(len(made), len(wanted))
    if frames == 0:
        raise InputError("the camera error needs at least one frame of both videos")
    x, y = (getattr(made, n)[:frames] - getattr(wanted, n)[:frames] for n in ("shift_x", "shift_y"))
    scale = made.scale[:frames] / wanted.scale[:frames] - 1
    return CameraError(100 * float(np.sqrt((x**2 + y**2).mean())), 100 * float(np.sqrt((scale**2).mean())))


def measure_camera(frames: Tensor) -> CameraTrack:
    """The camera of `frames` (F, H, W, 3), relative to the first. A scene without any texture counts as still."""
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
    """`frames` (F, H, W, 3) as (F, 3, h, w), the longer side at most `longest` pixels."""
    pictures = frames.detach().cpu().float().permute(0, 3, 1, 2)
    longer = max(pictures.shape[-2:])
    if longer <= longest:
        return pictures.contiguous()
    size = [max(round(side * longest / longer), 8) for side in pictures.shape[-2:]]
    return F.interpolate(pictures, size=size, mode="area")


def _as_bright(frames: Tensor) -> Tensor:
    """`frames` (F, 3, h, w) as bright as the first at the picture's sides: a drift of color is no movement."""
    sides = frames.flatten(2)[..., _background(frames[:1])[1] > 0]
    if sides.shape[-1] == 0:
        return frames
    return frames - (sides - sides[:1]).median(dim=-1).values[..., None, None]


def _search(first: Tensor, frames: Tensor) -> Tensor:
    """The likeliest path of `frames` (F, 3, h, w) through a grid of shifts and scales: (F, 4)."""
    height, width = first.shape[-2:]
    places, border = _background(first)
    still = first.flatten(2)[..., border > 0]
    used = border > 0
    (x, y), border = places[:, used], border[used] / border.sum().clamp(min=1e-6)
    across, down = _SEARCH
    grid, costs = [], []
    for scale in _SCALES:
        wide = _scaled(frames, scale)
        for right, below in itertools.product(range(-across, across + 1), range(-down, down + 1)):
            shift = torch.tensor((right, below)) * (scale / width)
            seen = wide[..., down + below :, across + right :][..., :height, :width].flatten(2)[..., used]
            outside = ((scale * x + shift[0]).abs() > 0.5) | ((scale * y + shift[1]).abs() > 0.5 * height / width)
            misfit = (seen - still).abs().amax(1).clamp(max=_TRUNCATED).masked_fill(outside, _UNSEEN)
            grid.append(torch.tensor((scale - 1, 0, shift[0], shift[1])))
            costs.append(misfit @ border)
    states = torch.stack(grid)
    cost = torch.stack(costs, dim=1) + _AWAY * states.norm(dim=1)
    return states[_likeliest(cost, _JUMP * torch.cdist(states, states))]


def _scaled(frames: Tensor, scale: float) -> Tensor:
    """`frames` (F, 3, h, w) enlarged by 1 / scale about the middle, with a margin to either side for the search."""
    height, width = frames.shape[-2:]
    y, x = (
        (torch.arange(side + 2 * reach) + 0.5 - reach - side / 2) * (2 * scale / side)
        for side, reach in ((height, _SEARCH[1]), (width, _SEARCH[0]))
    )
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    return F.grid_sample(frames, places.expand(len(frames), -1, -1, -1), align_corners=False, padding_mode="border")


def _likeliest(costs: Tensor, jumps: Tensor) -> Tensor:
    """The cheapest path (F,) through states, costs (F, n) to be in one and jumps (n, n) to change (Viterbi)."""
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
    """Movements (frames, 4) from those of each `_KEY`th frame (k, 4), straight from one to the next."""
    place = torch.arange(frames) / _KEY
    low = place.long()
    return torch.lerp(keys[low], keys[(low + 1).clamp(max=len(keys) - 1)], (place - low)[:, None])


def _register(first: Tensor, frames: Tensor, start: Tensor, usual: tuple[float, ...]) -> Tensor:
    """Movements (F, 4) that lay `frames` (F, 3, h, w) over `first` (F or 1, 3, h, w), from `start` (F, 4).

    A movement is (a, b, x, y): the point z of `first`, as a complex number in widths from the middle, is at
    (1 + a + ib) z + x + iy in the frame. usual: how far each number is expected to be from `start`.
    """
    height_by_width = first.shape[-2] / first.shape[-1]
    places, border = _background(first)
    x, y = places
    slopes = _slopes(first, places, border > 0).expand(len(frames), -1, -1)  # (F, 4, 3n)
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
    """The pixels' places (2, n) in widths from the middle, and how much each counts (n,), in `first` (1, 3, h, w).

    1 at the left and right of the picture, 0 where a speaker and the shoulders are, and for colors that the picture's
    edges do not have: hair that comes near them.
    """
    height, width = first.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = (x.flatten() - width / 2) / width, (y.flatten() - height / 2) / height
    border = ((x.abs() - 0.3) / 0.08).clamp(0, 1) * ((0.26 - y) / 0.08).clamp(0, 1)
    colors = first[0].flatten(1).T
    edge = colors[(x.abs() > 0.44) & (y < 0.2)]
    strange = torch.cdist(colors, edge).amin(dim=1)
    return torch.stack((x, y * height / width)), border * (1 - (strange - 0.05) / 0.05).clamp(0, 1)


def _slopes(first: Tensor, places: Tensor, used: Tensor) -> Tensor:
    """How the `used` pixels (3n) of `first` (F, 3, h, w) change with each number of a movement: (F, 4, 3n)."""
    padded = F.pad(first, (1, 1, 1, 1), mode="replicate")
    width = first.shape[-1]
    gx = ((padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * (width / 2)).flatten(2)[..., used]
    gy = ((padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) * (width / 2)).flatten(2)[..., used]
    x, y = places[:, used]
    return torch.stack((gx * x + gy * y, gy * x - gx * y, gx, gy), dim=1).flatten(2)


def _look(frames: Tensor, x: Tensor, y: Tensor, movement: Tensor, height_by_width: float) -> tuple[Tensor, Tensor]:
    """What `frames` (F, 3, h, w) show where the points (n,) went: (F, 3, n), and 1 where that is inside (F, n)."""
    a, b, dx, dy = (m[:, None] for m in movement.unbind(1))
    there = torch.stack(((1 + a) * x - b * y + dx, (b * x + (1 + a) * y + dy) / height_by_width), dim=-1) * 2
    seen = F.grid_sample(frames, there[:, None], align_corners=False, padding_mode="border")
    return seen[:, :, 0], (there.abs().amax(-1) <= 1).float()


def _unbiased(error: Tensor, weight: Tensor) -> Tensor:
    """`error` (F, 3, n) without what all pixels share, so that a drift of color is no movement."""
    return error - (weight * error).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1e-6)


def _fit_weight(error: Tensor, weight: Tensor) -> Tensor:
    """Tukey's weights (F, 3, n) for residuals, whose usual size is that of the pixels that count."""
    sample = error[..., ::_SAMPLED].abs()
    size = torch.where(weight[..., ::_SAMPLED] > 0.5, sample, torch.nan).flatten(1).nanmedian(dim=1).values
    deviation = 1.4826 * size.nan_to_num(1.0)[:, None, None]
    ratio = error / (_FIT * deviation.clamp(min=0.01))
    return (1 - ratio**2).clamp(min=0) ** 2


def _undo(movement: Tensor, step: Tensor) -> Tensor:
    """`movement` after the inverse of the small movement `step`, both (F, 4)."""
    turned, moved = (torch.complex(movement[:, i], movement[:, i + 1]) for i in (0, 2))
    turn, move = (torch.complex(step[:, i], step[:, i + 1]) for i in (0, 2))
    turned = turned + 1
    whole = turned / (1 + turn)
    place = moved - whole * move
    return torch.stack((whole.real - 1, whole.imag, place.real, place.imag), dim=1)

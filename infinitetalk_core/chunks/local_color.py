"""Colors held to an anchor picture region by region: a jacket that has turned is turned back, and the wall stays.

The anchor is divided into nodes: patches of similar color and place. In each frame a node is found again where its
light and dark details have moved to, and its offset is measured: from the colors there to the anchor's, over the places
that agree about it. Averaged over a second, each pixel takes the offsets of the nodes that are like it in color and
place. So the correction has no borders but those of the picture itself, and moves with what it belongs to.

What has no counterpart in the anchor, such as the inside of an opening mouth, is no node and measures nothing; it
moves with what is around it. What changes within a second, as a movement does, is no drift. Offsets below what is just
visible are left as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.exact_float32 import exact_float32
from .color import Part, anchors_of, corrected, lab_to_rgb, moving_average
from .color_difference import ciede2000
from .regions import find_again, segments, small_lab

_COUNT = (4, 6)  # seeds of the nodes, down and across
_PLACE = 47.0  # Lab units: what a longer side counts as much as
_AGREE = 4.0  # Lab units: places of a node that differ more from its offset hardly count
_ROUNDS = 3  # in which the places are weighed anew
_SEEN = (0.3, 0.6)  # share of a node's places that must agree: below the first it is not seen, from the second on it is
_KNOWN = (0.1, 0.5)  # share of a second in which a node must be seen: below the first it is left as it is
_STEADY = 0.6  # Lab units: an offset whose deviation within a second is larger is more movement than drift
_STEADY_SHARE = 0.25  # of the offset, by which its deviation may be larger
_ANOTHER = (15.0, 22.0)  # CIEDE2000: so far off is no color that drifted, but another thing
_SMALLEST = 0.015  # share of the picture: smaller nodes are dropped, such as eyes and mouth
_VISIBLE = (0.75, 1.5)  # CIEDE2000: offsets below the first are left, from the second on corrected whole
_LIKE = 7.0  # Lab units: width of the nodes' weights
_UNLIKE = 24.0  # Lab units: what is farther from all nodes takes the offset of what is around it
_UNKNOWN = 45.0  # Lab units, places included: what is farther from all nodes takes none
_PIXELS_AT_ONCE = 1 << 18


@exact_float32()
def hold_local_color(
    frames: Tensor, anchor: Tensor, strength: float, device: torch.device | None = None, over: int = 1
) -> Tensor:
    """Hold the colors of each region of the frames to those of `anchor`, blended in by `strength`.

    Arguments, result and errors are those of `hold_color`.
    """
    anchors = anchors_of(frames, anchor, strength, over)
    if strength == 0:
        return frames
    return corrected(frames, device or frames.device, over, _ByNodes(anchors, strength, over))


class _ByNodes:
    """The correction of a piece of video by the offsets of its nodes."""

    def __init__(self, anchors: Tensor, strength: float, over: int) -> None:
        self.anchors, self.strength, self.over = anchors, strength, over
        self.nodes: _Nodes | None = None
        self.tracks: list[Tensor] = []  # of each frame (K, 10)

    def measure(self, part: Part) -> None:
        every = min(self.over, len(part.rgb))  # colors drift over seconds
        for start in range(0, len(part.rgb), every):
            stop = min(start + every, len(part.rgb))
            middle = (start + stop) // 2
            made = small_lab(part.rgb[middle : middle + 1].clamp(0, 1))[0]
            if self.nodes is None or len(self.anchors) > 1:
                anchor = self.anchors[(part.slice.start + middle) % len(self.anchors)].to(made)
                self.nodes = _Nodes.of(_of_size(anchor, made.shape[1:]), self.nodes)
            self.tracks += [self.nodes.measured(made)] * (stop - start)

    def matched(self, part: Part) -> Tensor:
        averaged = moving_average(torch.stack(self.tracks), self.over)[part.slice]
        return torch.stack(
            [self._frame(*frame) for frame in zip(part.rgb.clamp(0, 1), part.lab(), averaged, strict=True)]
        )

    def _frame(self, rgb: Tensor, lab: Tensor, averaged: Tensor) -> Tensor:
        offsets = _spread(lab, *_offsets(averaged)) * self.strength
        return torch.where((offsets.abs() < 1e-3).all(-1, keepdim=True), rgb, lab_to_rgb(lab + offsets))


def _of_size(picture: Tensor, size: torch.Size) -> Tensor:
    """Return a picture (h, w, 3) as Lab (3, *size)."""
    small = small_lab(picture[None], max(size))
    return (small if small.shape[2:] == size else F.interpolate(small, size=size, mode="bilinear"))[0]


@dataclass(frozen=True)
class _Nodes:
    """The nodes of an anchor: its Lab (3, h, w), masks (K, h, w), and the centers to go on from."""

    own: Tensor
    masks: Tensor
    centers: Tensor

    @classmethod
    def of(cls, own: Tensor, before: _Nodes | None) -> _Nodes:
        """Divide an anchor. before: the nodes of the anchor of the frame before, which keep their numbers."""
        masks, centers = segments(own, None if before is None else before.centers, _COUNT, _SMALLEST)
        return cls(own, masks, centers)

    def measured(self, made: Tensor) -> Tensor:
        """Return for each node its weight, and weighted by it: offset, its square, its color, its place: (K, 10).

        made: the frame (3, h, w) in Lab.
        """
        found = find_again(made, self.own, self.masks, (0, -1, 1))  # in the same place first
        away = (self.own - found.around).flatten(2)  # (9, 3, N)
        members = self.masks.flatten(1)
        seen = (members & found.inside.flatten()).to(made)  # (K, N)
        offset = torch.where(seen[:, None] > 0, away[0], torch.nan).nanmedian(-1).values.nan_to_num(0.0)  # (K, 3)
        for _ in range(_ROUNDS):
            expected = members.to(made).T @ offset  # (N, 3)
            misfit = (away - expected.T).square().sum(1)
            least = misfit.min(0)
            chosen = away.take_along_dim(least.indices[None, None], 0)[0]  # (3, N)
            agrees = seen * torch.exp(-least.values / (2 * _AGREE**2))
            total = agrees.sum(1, keepdim=True).clamp_min(1e-6)
            offset = agrees @ chosen.T / total
        share = agrees.sum(1) / members.sum(1).clamp_min(1)
        color = agrees @ (self.own.flatten(1) - chosen).T / total
        another = _rising(ciede2000(color, color + offset), *_ANOTHER)
        weight = _rising(share, *_SEEN) * (1 - another) * members.any(1)
        place = agrees @ found.place.to(made).flatten(1).T / total / max(made.shape[1:])
        values = torch.cat((offset, offset.square().sum(1, keepdim=True), color, place), dim=1)
        return torch.cat((weight[:, None], weight[:, None] * values), dim=1)


def _offsets(averaged: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return from (K, 10) the nodes' weights (K,), offsets (K, 3), colors (K, 3) and places (K, 2)."""
    weight = averaged[:, 0]
    values = averaged[:, 1:] / weight[:, None].clamp_min(1e-6)
    offset, square, color, place = values.split((3, 1, 3, 2), dim=1)
    size = offset.square().sum(1, keepdim=True)
    steady = (_STEADY + _STEADY_SHARE * size.sqrt()).square()
    drift = steady / (steady + (square - size).clamp_min(0))
    offset = offset * drift * _rising(weight, *_KNOWN)[:, None]
    visible = _rising(ciede2000(color, color + offset), *_VISIBLE)[:, None]
    return weight * drift[:, 0], offset * visible, color, place


def _spread(lab: Tensor, weight: Tensor, offset: Tensor, color: Tensor, place: Tensor) -> Tensor:
    """Return the offset of each pixel of lab (H, W, 3): of the nodes that are like it."""
    height, width = lab.shape[:2]
    sharpness = 1 / (2 * _LIKE**2)
    floor, nothing = math.exp(-(_UNLIKE**2) * sharpness), math.exp(-(_UNKNOWN**2) * sharpness)
    rows = max(_PIXELS_AT_ONCE // width, 1)
    across = (torch.arange(width, device=lab.device) + 0.5) / max(height, width)
    parts = []
    for start in range(0, height, rows):
        part = lab[start : start + rows]
        down = (torch.arange(start, start + len(part), device=lab.device) + 0.5) / max(height, width)
        rows_near, columns_near = (
            torch.exp(-((line[:, None] - at) * _PLACE).square() * sharpness)
            for line, at in zip((down, across), place.T, strict=True)
        )
        near = rows_near[:, None] * columns_near  # (rows, W, K)
        like = torch.cdist(part.reshape(-1, 3), color).square_().mul_(-sharpness).exp_().view_as(near)
        # What is like no node is near few: the cheeks around a mouth, but not the jacket below it.
        like = like.addcmul_(near, near, value=floor).mul_(near).mul_(weight)
        parts.append(like @ offset / (like.sum(-1, keepdim=True) + nothing))
    return torch.cat(parts)


def _rising(values: Tensor, low: float, high: float) -> Tensor:
    """Return 0 below `low`, 1 above `high`, and a smooth step between them."""
    share = ((values - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)

"""Color difference by region: how far the colors of each part of the picture are from the reference's.

regional color difference: CIEDE2000 between the video's colors and the reference's, for each region: the median over
its places, of colors averaged over a neighborhood inside the region. No unit; 1 is just visible between large areas
side by side, 3 is plainly visible in a video, 10 is another color. A region is found again where it has moved to, by
its light and dark details, whose pattern a change of color leaves as it is; what covers less than half of it, such as
a hand or an opening mouth inside a cheek, does not count. None (NaN in tensors) for a region that has left the picture.

Nothing sets this quantity: a correction that gives a picture or a region the right mean and deviation still differs
wherever its colors are wrong in one place and wrong the other way in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import rgb_to_lab
from .color_difference import ciede2000

SIDE = 64  # pixels of the longer side at which regions are found and compared
COUNT = (3, 4)  # seeds of the regions, down and across
_REACH = 0.08  # farthest movement of a region, in longer sides
_NEAR = 3.0  # lightness by which a movement of 1 longer side must fit better than none
_SPREAD = 0.6  # a longer side counts in a segmentation as much as this many times 100 Lab units
_ROUNDS = 8
_ALIKE = 12.0  # Lab units from a region's median color: what is farther from it, such as an eye in a face, is left out
_SMALLEST = 0.02  # share of the picture: smaller segments are dropped
_BORDER = 0.07  # width of the border that a region is found again with, in longer sides
_DETAIL = 0.2  # width of the neighborhood that details are lighter or darker than
_AROUND = 0.02  # how far around a place the nearest color is taken, in longer sides
_SEEN = 0.25  # share of a region that must be in the picture


def small_lab(frames: Tensor, side: int = SIDE) -> Tensor:
    """Return frames (F, H, W, 3) in [0, 1] as CIE Lab (F, 3, h, w), with a longer side of at most `side` pixels."""
    pictures = frames.permute(0, 3, 1, 2).float()
    longer = max(pictures.shape[-2:])
    if longer > side:
        size = [max(round(edge * side / longer), 1) for edge in pictures.shape[-2:]]
        pictures = F.interpolate(pictures, size=size, mode="area")
    return rgb_to_lab(pictures.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def segments(
    lab: Tensor, start: Tensor | None = None, count: tuple[int, int] = COUNT, smallest: float = _SMALLEST
) -> tuple[Tensor, Tensor]:
    """Divide a picture into regions of similar color, by k-means over color and place: masks (R, h, w), and centers.

    lab: (3, h, w); start: the centers of the picture before it in a video, so that regions keep their numbers; count:
    seeds along the shorter and the longer side; smallest: share of the picture, a region with less has an empty mask.
    The same picture gives the same regions on one device.
    """
    height, width = lab.shape[-2:]
    longer = max(height, width)
    y, x = torch.meshgrid(*(torch.arange(n, device=lab.device) + 0.5 for n in (height, width)), indexing="ij")
    place = torch.stack((x, y)).to(lab) * (100 * _SPREAD / longer)
    points = torch.cat((lab, place)).flatten(1).T  # (h * w, 5)
    if start is None:
        down, across = count if height <= width else count[::-1]
        rows = ((torch.arange(down) + 0.5) * height / down).long()
        columns = ((torch.arange(across) + 0.5) * width / across).long()
        centers = points.reshape(height, width, -1)[rows[:, None], columns].flatten(0, 1)
    else:
        centers = start
    numbers = torch.arange(len(centers), device=lab.device)
    for _ in range(_ROUNDS):
        member = (torch.cdist(points, centers).argmin(1)[:, None] == numbers).to(points)
        size = member.sum(0)[:, None]
        centers = torch.where(size > 0, member.T @ points / size.clamp_min(1), centers)
    member = (torch.cdist(points, centers).argmin(1)[:, None] == numbers).T
    colors = points[:, :3]
    usual = torch.where(member[..., None], colors, torch.nan).nanmedian(1).values
    masks = (member & (torch.cdist(usual, colors) < _ALIKE)).reshape(-1, height, width)
    return masks & (masks.flatten(1).float().mean(1) >= smallest)[:, None, None], centers


@dataclass(frozen=True)
class RegionalDrift:
    """The regional color difference of a piece of video, of each region the median over the frames.

    None where no region could be compared.
    """

    worst: float | None  # of the region that differs most
    mean: float | None  # of all regions, by their sizes


def regional_drift(pairs: Iterable[tuple[Tensor, Tensor]]) -> RegionalDrift:
    """Return the drift of frames from the reference's, given as pairs of small Lab pictures (3, h, w).

    A reference is one tensor again and again, or a video of one shot.
    """
    found, sizes = [], []
    before, centers, masks = None, None, torch.empty(0)
    for made, own in pairs:
        if own is not before:
            before = own
            masks, centers = segments(own, centers)
        found.append(regional_difference(made[None], own[None], masks)[0])
        sizes.append(masks.sum((1, 2)))
    return summarized(torch.stack(found), torch.stack(sizes)) if found else RegionalDrift(None, None)


def summarized(differences: Tensor, sizes: Tensor) -> RegionalDrift:
    """Return the drift from the regional color differences (F, R) and the regions' sizes, which broadcast to them."""
    usual = differences.nanmedian(0).values
    size = sizes.expand_as(differences).double().mean(0) * usual.isfinite()
    mean = (usual.nan_to_num(0.0) * size).sum() / size.sum()
    worst, mean = torch.stack((usual.nan_to_num(-1.0).max().double(), mean)).tolist()
    return RegionalDrift(None, None) if worst < 0 else RegionalDrift(worst, mean)


def regional_difference(made: Tensor, own: Tensor, masks: Tensor) -> Tensor:
    """Return the regional color difference (F, R) of each frame; NaN where a region is not in the picture.

    made: (F, 3, h, w), the video in Lab (`small_lab`); own: the reference in Lab, of the same size, one for each frame
    or one for all (1, 3, h, w); masks: the regions of the reference, (F or 1, R, h, w) or (R, h, w).
    """
    masks = (masks if masks.ndim == 4 else masks[None]).expand(len(made), -1, -1, -1)
    own = own.expand_as(made)
    return torch.stack([_of_frame(*frame) for frame in zip(made, own, masks, strict=True)])


def _of_frame(made: Tensor, own: Tensor, masks: Tensor) -> Tensor:
    """Return the regional difference (R,) of one frame: made and own (3, h, w), masks (R, h, w)."""
    found = find_again(made, own, masks)
    best = (found.around - own).square().sum(1).argmin(0)  # (h, w)
    nearest = found.around.take_along_dim(best[None, None], 0)[0]
    difference = ciede2000(nearest.movedim(0, -1), own.movedim(0, -1))
    seen = (masks & found.inside).flatten(1)
    usual = torch.where(seen, difference.flatten(), torch.nan).nanmedian(1).values
    return torch.where(seen.sum(1) >= _SEEN * masks.sum((1, 2)), usual, torch.nan)


@dataclass(frozen=True)
class FoundAgain:
    """Where the places of a reference (h, w) are in a frame, each moved with its region.

    place: down and right (2, h, w), in pixels; inside: whether that is in the frame (h, w); around: the frame's colors
    there and around it (9, 3, h, w), in the order that was asked for.
    """

    place: Tensor
    inside: Tensor
    around: Tensor


def find_again(made: Tensor, own: Tensor, masks: Tensor, steps: tuple[int, int, int] = (-1, 0, 1)) -> FoundAgain:
    """Find the places of the reference own (3, h, w) in a frame made (3, h, w) by its regions (R, h, w), all in Lab.

    steps: the order in which the colors around a place are taken, down and across.
    """
    height, width = made.shape[-2:]
    moved = torch.stack(movements(made[0], own[0], masks))  # (2, R)
    y, x = torch.meshgrid(*(torch.arange(n, device=made.device) for n in (height, width)), indexing="ij")
    down, right = ((n[:, None, None] * masks).sum(0) for n in moved)  # of each pixel, with its region
    y, x = y + down, x + right
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    far = round(_AROUND * max(height, width))
    offsets = itertools.product((step * far for step in steps), repeat=2)
    around = [made[:, (y + j).clamp(0, height - 1), (x + i).clamp(0, width - 1)] for j, i in offsets]
    return FoundAgain(torch.stack((y, x)), inside, torch.stack(around))


def movements(made: Tensor, own: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each region (R, h, w) how many pixels down and right its details have moved: (R,) each.

    made, own: lightness (h, w). The farthest movement is 8 % of the longer side. Where nothing tells, a region has not
    moved.
    """
    height, width = own.shape
    reach = max(round(_REACH * max(height, width)), 1)
    steps = 2 * reach + 1
    size = 2 * round(_BORDER * max(own.shape) / 2) + 1
    # The border of a region shows best where it is.
    wider = F.max_pool2d(masks[None].float(), size, stride=1, padding=size // 2)[0].flatten(1)
    padded = F.pad(_details(made)[None, None], (reach,) * 4, mode="replicate")[0, 0]
    windows = padded.unfold(0, height, 1).unfold(1, width, 1).reshape(steps**2, -1)
    misfit = (windows - _details(own).flatten()).abs_() @ (wider / wider.sum(1).clamp_min(1)[:, None]).T
    step = torch.arange(-reach, reach + 1, device=made.device) / max(own.shape)
    far = torch.hypot(step[:, None], step).reshape(-1, 1)
    best = (misfit + _NEAR * far).argmin(0)
    return best // steps - reach, best % steps - reach


def _details(lightness: Tensor) -> Tensor:
    """Return how much lighter each pixel of (h, w) is than what is around it."""
    size = max(round(_DETAIL * max(lightness.shape)), 1)
    around = F.avg_pool2d(lightness[None, None], size, ceil_mode=True, count_include_pad=False)
    return lightness - F.interpolate(around, size=lightness.shape, mode="bilinear")[0, 0]

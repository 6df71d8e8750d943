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
_SMALLEST = 0.02  # share of the picture: smaller segments are dropped
_BLOCK = 0.07  # width of the neighborhoods, in longer sides
_DETAIL = 0.2  # width of the neighborhood that details are lighter or darker than
_SEEN = 0.25  # share of a region that must be in the picture


def small_lab(frames: Tensor, side: int = SIDE) -> Tensor:
    """Return frames (F, H, W, 3) in [0, 1] as CIE Lab (F, 3, h, w), with a longer side of at most `side` pixels."""
    pictures = frames.permute(0, 3, 1, 2).float()
    longer = max(pictures.shape[-2:])
    if longer > side:
        size = [max(round(edge * side / longer), 1) for edge in pictures.shape[-2:]]
        pictures = F.interpolate(pictures, size=size, mode="area")
    return rgb_to_lab(pictures.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def segments(lab: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Divide a picture into regions of similar color, by k-means over color and place: masks (R, h, w), and centers.

    lab: (3, h, w); start: the centers of the picture before it in a video, so that regions keep their numbers. The
    same picture gives the same regions on one device. A region that is too small has an empty mask.
    """
    height, width = lab.shape[-2:]
    longer = max(height, width)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    place = torch.stack((x, y)).to(lab) * (100 * _SPREAD / longer)
    points = torch.cat((lab, place)).flatten(1).T  # (h * w, 5)
    if start is None:
        down, across = COUNT if height <= width else COUNT[::-1]
        rows = ((torch.arange(down) + 0.5) * height / down).long()
        columns = ((torch.arange(across) + 0.5) * width / across).long()
        centers = points.reshape(height, width, -1)[rows[:, None], columns].flatten(0, 1)
    else:
        centers = start
    for _ in range(_ROUNDS):
        member = F.one_hot(torch.cdist(points, centers).argmin(1), len(centers)).to(points)
        size = member.sum(0)[:, None]
        centers = torch.where(size > 0, member.T @ points / size.clamp_min(1), centers)
    masks = F.one_hot(torch.cdist(points, centers).argmin(1), len(centers)).T.reshape(-1, height, width) > 0
    return masks & (masks.flatten(1).float().mean(1) >= _SMALLEST)[:, None, None], centers


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
    height, width = made.shape[-2:]
    reach = max(round(_REACH * max(height, width)), 1)
    moves = _movements(made[:1], own[:1], masks, reach)
    padded = F.pad(made[None], (reach,) * 4, mode="replicate")[0]
    inside = F.pad(torch.ones_like(made[0], dtype=torch.bool), (reach,) * 4)
    found = []
    for mask, (down, right) in zip(masks, moves, strict=True):
        there = (..., slice(down, down + height), slice(right, right + width))
        seen = mask & inside[there]
        if not seen.any() or seen.sum() < _SEEN * mask.sum():
            found.append(made.new_tensor(torch.nan))
            continue
        colors = _local_means(torch.cat((padded[there], own)), seen)
        found.append(ciede2000(colors[:, :3], colors[:, 3:]).median())
    return torch.stack(found)


def _width(share: float, picture: Tensor) -> int:
    """Return an odd number of pixels that is about `share` of the picture's longer side."""
    return 2 * round(share * max(picture.shape[-2:]) / 2) + 1


def _local_means(values: Tensor, mask: Tensor) -> Tensor:
    """Return the means of values (C, h, w) over the part of `mask` around each of its pixels: (n, C)."""
    size = _width(_BLOCK, values)
    weighted = torch.cat((values * mask, mask[None].to(values)))
    means = F.avg_pool2d(weighted[None], size, stride=1, padding=size // 2)[0][:, mask]
    return (means[:-1] / means[-1]).T


def _movements(made: Tensor, own: Tensor, masks: Tensor, reach: int) -> list[tuple[int, int]]:
    """Return for each region (R, h, w) where its details are, as the start (down, right) of a window of `made` that is
    padded by `reach`. made, own: lightness (1, h, w)."""
    height, width = made.shape[-2:]
    wide = _width(_DETAIL, made)

    def details(lightness: Tensor) -> Tensor:
        around = F.avg_pool2d(lightness[None], wide, stride=1, padding=wide // 2, count_include_pad=False)[0]
        return (lightness - around)[0]

    size = _width(_BLOCK, made)
    # The border of a region shows best where it is.
    wider = F.max_pool2d(masks[None].float(), size, stride=1, padding=size // 2)[0].flatten(1)
    there = F.pad(details(made)[None, None], (reach,) * 4, mode="replicate")[0, 0]
    windows = there.unfold(0, height, 1).unfold(1, width, 1)  # (2 reach + 1, 2 reach + 1, h, w)
    misfit = (windows - details(own)).abs().flatten(0, 1).flatten(1) @ (wider / wider.sum(1).clamp_min(1)[:, None]).T
    step = torch.arange(-reach, reach + 1, device=made.device)
    far = torch.hypot(step[:, None].float(), step.float()).flatten() / max(height, width)
    best = (misfit + _NEAR * far[:, None]).argmin(0).tolist()
    return [divmod(index, 2 * reach + 1) for index in best]

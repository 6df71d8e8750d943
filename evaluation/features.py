"""Measure whether a face keeps its features: the contrast and the places of eyes, brows and mouth.

The features are given as masks of the reference picture, which a renderer knows exactly. Each is found again in a frame
by its details, within 8 % of the picture's longer side.

contrast: of each feature, 1 pixel wider on a picture of 96, the root mean square distance from the usual color of the
ring around it in CIE Lab, divided by the same in the reference; the median over the frames. No unit; 1 is as strong as
in the reference, 0.75 is just visible (faded brows). More than 1 is no fault.

displaced: how far a feature is from where the others say that it should be, the median over the frames, of the worst
feature, in percent of the picture's longer side; 2.5 is just visible as another face.

A mouth changes while it speaks, so the frame counts in which it is most as in the reference: its highest contrast and
its least displacement, in place of the medians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitetalk_core.chunks.regions import movements, small_lab

MOUTH = "mouth"
_SIDE = 96  # pixels of the longer side
_EDGE = 1  # pixels around a feature that are measured with it
_RING = 5  # pixels around a feature that belong to its surroundings
_FEWEST = 4  # pixels of a feature


@dataclass(frozen=True)
class Features:
    """How well the features of a face are kept; the module's docstring defines the fields."""

    contrast: dict[str, float]  # by feature
    displaced: float | None  # None with fewer than three features

    @property
    def weakest(self) -> float | None:
        """The contrast of the feature that has faded most."""
        return min(self.contrast.values(), default=None)


def features(frames: Tensor, reference: Tensor, masks: Mapping[str, Tensor]) -> Features | None:
    """Measure the features of frames (F, H, W, 3) against the picture `reference` (H, W, 3).

    masks: of each feature in the reference, (H, W); a mouth is called "mouth", the others are pairs. None if no feature
    is seen in the reference.
    """
    own = small_lab(reference[None], _SIDE)[0]
    small = _halves({name: _shrunk(mask, own) for name, mask in masks.items()})
    if not small or len(frames) == 0:
        return None
    stacked = torch.stack(list(small.values()))
    others = stacked.any(0) & ~stacked
    around = _wider(stacked, _EDGE) & ~others
    rings = _wider(stacked, _RING) & ~around & ~others
    there = torch.stack([_contrast(own, m, r) for m, r in zip(around, rings, strict=True)])
    contrast, places = [], []
    for frame in frames:
        made = small_lab(frame[None], _SIDE)[0]
        down, right = movements(made[0], own[0], stacked)
        moved = [torch.roll(made, (-int(y), -int(x)), (1, 2)) for y, x in zip(down, right, strict=True)]
        contrast.append(torch.stack([_contrast(*each) for each in zip(moved, around, rings, strict=True)]) / there)
        places.append(torch.stack((down, right), dim=1).float())
    share = torch.tensor([1.0 if name == MOUTH else 0.5 for name in small])
    kept = _quantiles(torch.stack(contrast), share).tolist()
    return Features(
        dict(zip(small, kept, strict=True)), _displaced(torch.stack(places), max(own.shape[-2:]), 1 - share)
    )


def _halves(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the left and the right part of each pair of features, and the mouth; without those that are not seen."""
    found: dict[str, Tensor] = {}
    for name, mask in masks.items():
        columns = torch.arange(mask.shape[1]).expand_as(mask)
        left = columns < columns[mask].float().mean() if mask.any() else mask
        parts = {name: mask} if name == MOUTH else {f"left {name}": mask & left, f"right {name}": mask & ~left}
        found |= {part: half for part, half in parts.items() if half.sum() >= _FEWEST}
    return found


def _quantiles(values: Tensor, shares: Tensor) -> Tensor:
    """Return of each column of values (F, n) the quantile that its share (n,) asks for."""
    return torch.stack([column.quantile(share) for column, share in zip(values.T, shares, strict=True)])


def _shrunk(mask: Tensor, picture: Tensor) -> Tensor:
    """Resize a mask (H, W) to the size of `picture` (3, h, w)."""
    if mask.shape == picture.shape[-2:]:
        return mask.cpu().bool()
    return F.interpolate(mask[None, None].cpu().float(), size=picture.shape[-2:], mode="area")[0, 0] >= 0.5


def _wider(masks: Tensor, pixels: int) -> Tensor:
    return F.max_pool2d(masks[None].float(), 2 * pixels + 1, stride=1, padding=pixels)[0] > 0


def _contrast(lab: Tensor, around: Tensor, ring: Tensor) -> Tensor:
    """Return the contrast of what is `around` (h, w) against the usual color of its `ring` in a picture (3, h, w)."""
    usual = lab[:, ring if ring.any() else around].median(1).values
    return (lab[:, around] - usual[:, None]).square().sum(0).mean().sqrt().clamp_min(1e-3)


def _displaced(places: Tensor, side: int, shares: Tensor) -> float | None:
    """Return how far a feature has moved from the others, of movements (F, n, 2) in pixels of a picture `side` long;
    shares: the quantile that counts for each feature (n,)."""
    if places.shape[1] < 3:
        return None
    apart = (places - places.median(1, keepdim=True).values).norm(dim=-1)
    return 100 * _quantiles(apart, shares).max().item() / side

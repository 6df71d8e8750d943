"""Measure whether a face keeps its features: the contrast and the places of eyes, brows and mouth.

The features are given as masks of the reference picture, which a renderer knows exactly. Each is found again in a frame
by its details, within 8 % of the picture's longer side.

contrast: of each feature and its surroundings, the root mean square distance from the surroundings' usual color in CIE
Lab, divided by the same in the reference; the median over the frames. No unit; 1 is as strong as in the reference, 0.8
is just visible (faded brows). An open mouth has more than a closed one, so more than 1 is no fault.

displaced: how far a feature is from where the others say that it should be, the median over the frames, of the worst
feature, in percent of the picture's longer side; 2 is just visible as another face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitetalk_core.chunks.regions import movements, small_lab

_SIDE = 96  # pixels of the longer side
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

    masks: of each feature in the reference, (H, W). None if no feature is seen in the reference.
    """
    own = small_lab(reference[None], _SIDE)[0]
    small = {name: _shrunk(mask, own) for name, mask in masks.items()}
    small = {name: mask for name, mask in small.items() if mask.sum() >= _FEWEST}
    if not small or len(frames) == 0:
        return None
    stacked = torch.stack(list(small.values()))
    around = F.max_pool2d(stacked[None].float(), 2 * _RING + 1, stride=1, padding=_RING)[0] > 0
    rings = around & ~stacked.any(0)
    there = torch.stack([_contrast(own, m, r) for m, r in zip(around, rings, strict=True)])
    contrast, places = [], []
    for frame in frames:
        made = small_lab(frame[None], _SIDE)[0]
        down, right = movements(made[0], own[0], stacked)
        moved = [torch.roll(made, (-int(y), -int(x)), (1, 2)) for y, x in zip(down, right, strict=True)]
        contrast.append(torch.stack([_contrast(*each) for each in zip(moved, around, rings, strict=True)]) / there)
        places.append(torch.stack((down, right), dim=1).float())
    usual = torch.stack(contrast).median(0).values.tolist()
    return Features(dict(zip(small, usual, strict=True)), _displaced(torch.stack(places), max(own.shape[-2:])))


def _shrunk(mask: Tensor, picture: Tensor) -> Tensor:
    """Resize a mask (H, W) to the size of `picture` (3, h, w)."""
    if mask.shape == picture.shape[-2:]:
        return mask.cpu().bool()
    return F.interpolate(mask[None, None].cpu().float(), size=picture.shape[-2:], mode="area")[0, 0] >= 0.5


def _contrast(lab: Tensor, around: Tensor, ring: Tensor) -> Tensor:
    """Return the contrast of what is `around` (h, w) against the usual color of its `ring` in a picture (3, h, w)."""
    usual = lab[:, ring if ring.any() else around].median(1).values
    return (lab[:, around] - usual[:, None]).square().sum(0).mean().sqrt().clamp_min(1e-3)


def _displaced(places: Tensor, side: int) -> float | None:
    """Return how far a feature has moved from the others, of movements (F, n, 2) in pixels of a picture `side` long."""
    if places.shape[1] < 3:
        return None
    apart = (places - places.median(1, keepdim=True).values).norm(dim=-1)
    return 100 * apart.median(0).values.max().item() / side

"""Colors are compared region by region: what turns is seen wherever it has moved, and what moves is not."""

from __future__ import annotations

import math

import pytest
import torch

from infinitetalk_core.chunks.color import lab_to_rgb, rgb_to_lab
from infinitetalk_core.chunks.regions import RegionalDrift, regional_drift, segments, small_lab


def room(shift: int = 0, jacket: tuple[float, float, float] = (0.8, 0.7, 0.2)) -> torch.Tensor:
    """A wall in two colors, a head and a jacket that have moved to the right."""
    picture = torch.full((96, 96, 3), 0.7)
    picture[:40, 60:] = torch.tensor([0.5, 0.6, 0.7])
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    picture[70:, 24 + shift : 72 + shift] = torch.tensor(jacket)
    picture[(x - 48 - shift) ** 2 + (y - 46) ** 2 < 18**2] = torch.tensor([0.9, 0.7, 0.6])
    return picture


def drift(made: torch.Tensor, own: torch.Tensor) -> RegionalDrift:
    return regional_drift([(small_lab(made[None])[0], small_lab(own[None])[0])])


def moved(picture: torch.Tensor, a: float, b: float) -> torch.Tensor:
    return lab_to_rgb(rgb_to_lab(picture) + torch.tensor([0.0, a, b]))


@pytest.mark.parametrize("shift", [0, 3, -6])
def test_a_movement_is_no_drift(shift):
    found = drift(room(shift), room())
    assert found.worst is not None and found.worst < 1.5


@pytest.mark.parametrize("shift", [0, 3, -6])
def test_a_jacket_that_turns_is_seen_where_it_is(shift):
    orange = moved(torch.tensor([0.8, 0.7, 0.2]), 12, 0)
    found = drift(room(shift, tuple(orange.tolist())), room())
    assert found.worst is not None and found.worst > 4
    assert found.mean is not None and found.mean < found.worst / 2


def test_a_hand_in_front_is_no_drift():
    hidden = room()
    hidden[50:80, 20:40] = torch.tensor([0.9, 0.7, 0.6])
    found = drift(hidden, room())
    assert found.worst is not None and found.worst < 1


def test_of_a_region_the_usual_frame_counts():
    own = small_lab(room()[None])[0]
    flash = small_lab((room() * 0.5)[None])[0]
    assert regional_drift([(own, own), (own, own), (flash, own)]).worst == pytest.approx(0, abs=1e-3)


def test_regions_are_few_the_same_again_and_do_not_overlap():
    lab = small_lab(room()[None])[0]
    masks, centers = segments(lab)
    again, _ = segments(lab)
    assert torch.equal(masks, again)
    assert 3 <= int(masks.flatten(1).any(1).sum()) <= 12
    assert masks.sum(0).max() == 1
    assert masks.any(0).float().mean() > 0.8
    followed, _ = segments(small_lab(room(2)[None])[0], centers)
    same = (followed & masks).sum((1, 2)) >= 0.5 * masks.sum((1, 2))
    assert same.all(), "a region keeps its number in the next picture"


@pytest.mark.parametrize("size", [(16, 128), (128, 16), (16, 16), (33, 47)])
@pytest.mark.parametrize("kind", ["black", "noise", "gray"])
def test_any_picture_gives_numbers_or_none(size, kind):
    torch.manual_seed(0)
    own = {"black": torch.zeros(*size, 3), "noise": torch.rand(*size, 3), "gray": torch.full((*size, 3), 0.5)}[kind]
    found = drift(own, own)
    if found.worst is None:
        assert found.mean is None and kind == "noise"
    else:
        assert found.worst == pytest.approx(0, abs=1e-3) and math.isfinite(found.mean)


def test_without_frames_there_is_no_number():
    assert regional_drift([]) == RegionalDrift(None, None)

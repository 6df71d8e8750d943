"""Scene cuts are found; motion, light and noise are not taken for cuts."""

from __future__ import annotations

import pytest
import torch

from infinitetalk_core.video.cuts import find_cuts
from infinitetalk_core.video.source import PictureBatch


def scene(seed: int, frames: int, motion: float = 1.0, light: float = 0.0, noise: float = 0.0) -> torch.Tensor:
    """A smooth picture that moves sideways, grows lighter and is noisy."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 9, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (72, 400), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
    shown = [wide[:, int(i * motion) : int(i * motion) + 128] + light * i for i in range(frames)]
    return (torch.stack(shown) + noise * torch.randn(frames, 72, 128, 3, generator=generator)).clamp(0, 1)


def cuts(*scenes: torch.Tensor) -> list[int]:
    source = PictureBatch(torch.cat(scenes))
    return find_cuts(source, source.length)


def test_cuts_between_scenes():
    assert cuts(scene(1, 40), scene(2, 30), scene(3, 50)) == [40, 70]


def test_two_cuts_close_to_each_other():
    assert cuts(scene(1, 40), scene(2, 5), scene(3, 40)) == [40, 45]


@pytest.mark.parametrize("options", [{"motion": 6.0}, {"light": 0.01}, {"noise": 0.1}, {"motion": 3.0, "noise": 0.05}])
def test_no_cuts_within_a_scene(options):
    assert cuts(scene(4, 40, **options)) == []


def test_a_cut_amid_motion():
    assert cuts(scene(1, 40, motion=4.0), scene(2, 40, motion=4.0)) == [40]


def test_a_still_picture_has_none():
    assert cuts(scene(1, 1)) == []


def test_only_as_far_as_asked_and_it_can_be_stopped():
    source = PictureBatch(torch.cat([scene(1, 40), scene(2, 40)]))
    assert find_cuts(source, 30) == []

    def stop(done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_cuts(source, 80, stop)

"""Drift is measured against the source, chunk by chunk."""

from __future__ import annotations

import pytest
import torch

from evaluation.drift import drift, drift_curve, slope, still_pixels, written_frames
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.errors import InputError


def scene(frames: int) -> torch.Tensor:
    """A gray wall and a red square that walks."""
    video = torch.full((frames, 16, 24, 3), 0.5)
    for time in range(frames):
        left = 8 + time % 4
        video[time, 6:12, left : left + 3] = torch.tensor([0.8, 0.2, 0.2])
    return video


def test_the_video_itself_does_not_drift():
    video = scene(60)
    curve = drift_curve(video, video, plan_chunks(60, 13, 5), still_pixels(video))
    assert len(curve.chunks) == len(plan_chunks(60, 13, 5))
    assert all(value == 0 for chunk in curve.to_json() for value in chunk.values())
    assert curve.slope("color") == 0


def test_what_stands_still_is_background():
    background = still_pixels(scene(30))
    assert background is not None
    assert background[:, :8].all()
    assert not background[6:12, 8:14].any()
    assert still_pixels(torch.rand(9, 8, 8, 3)) is None, "nothing stands still"
    assert still_pixels(scene(1)) is None, "of one picture nobody knows"


def test_a_wall_that_darkens_steadily_has_a_slope():
    video, plan = scene(101), plan_chunks(101, 13, 5)
    background = still_pixels(video)
    dark = video.clone()
    for chunk, written in zip(plan, written_frames(plan, 101), strict=True):
        dark[written.start : written.stop] -= 0.01 * chunk.index
    curve = drift_curve(dark, video, plan, background)
    assert curve.slope("background_difference") == pytest.approx(2.55, rel=0.01)
    assert curve.slope("color") == pytest.approx(curve.slope("background"), rel=0.1)
    assert curve.mean("background") > 3


def test_a_pose_is_no_drift_of_color_but_another_color_of_one_part_is():
    video = scene(8)
    background = still_pixels(scene(30))
    elsewhere = video[[2, 3, 0, 1, 2, 3, 0, 1]]
    assert drift(elsewhere, video, background).color < 0.1
    blue = torch.where(video == 0.8, 0.2, video)
    other = drift(blue, video, background)
    assert other.color > 10
    assert other.overall < 5
    assert other.background == 0


def test_a_color_that_a_correction_of_the_mean_hides_is_seen():
    """The fault of the former number: one part turns, another turns the other way, and the mean stays."""
    source = scene(8)
    source[:, :, :8] = torch.tensor([0.3, 0.5, 0.4])
    made = source.clone()
    made[:, :, :8, 0] += 0.1
    made[:, :, 16:, 0] -= 0.1
    assert (made.mean((0, 1, 2)) - source.mean((0, 1, 2))).abs().max() < 1e-5
    assert drift(made, source).color > 3


def test_one_picture_stands_for_all_times():
    video = scene(20)
    measured = drift(video, video[0])
    assert measured.background is None
    assert measured.color < 0.1
    assert drift_curve(video, video[0], plan_chunks(20, 13, 5)).slope("background") is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="same size"):
        drift(scene(8), scene(7))
    with pytest.raises(InputError, match="writes none"):
        drift_curve(scene(8), scene(8), [])


def test_slope_is_least_squares():
    assert slope([3.0]) == 0
    assert slope([1.0, 3.0, 5.0]) == 2
    assert slope([0.0, 1.0, 0.0]) == 0

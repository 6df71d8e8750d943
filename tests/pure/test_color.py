"""Color held to an anchor: what a viewer sees stays the anchor's, whatever the chunk before did."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk_core.chunks.color import FRAMES_AT_ONCE, hold_color, lab_to_rgb, rgb_to_lab
from infinitetalk_core.errors import InputError


def _mild(frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(frames, 12, 10, 3, generator=generator) * 0.3 + 0.35


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
def test_a_color_comes_back_from_lab(color):
    rgb = torch.tensor(color)
    assert torch.allclose(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=2e-4)


def test_white_black_and_gray_have_the_lab_values_of_the_textbook():
    lab = rgb_to_lab(torch.tensor([[1.0, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5]]))
    want = torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.389, 0, 0]])
    assert torch.allclose(lab, want, atol=6e-3)


def test_held_frames_have_the_anchors_mean_and_spread():
    frames, anchor = _mild(3), _mild(1, seed=1)[0] * 0.8 + 0.1
    held = rgb_to_lab(hold_color(frames, anchor, 1.0))
    goal = rgb_to_lab(anchor)
    for frame in held:
        assert torch.allclose(frame.mean((0, 1)), goal.mean((0, 1)), atol=0.05)
        assert torch.allclose(frame.std((0, 1), correction=0), goal.std((0, 1), correction=0), atol=0.05)


def test_holding_to_itself_changes_nothing():
    frame = _mild(1)
    assert torch.allclose(hold_color(frame, frame[0], 1.0), frame, atol=1e-4)


def test_half_strength_is_half_way():
    frames, anchor = _mild(2), _mild(1, seed=1)[0]
    full = hold_color(frames, anchor, 1.0)
    assert torch.allclose(hold_color(frames, anchor, 0.5), (frames + full) / 2, atol=1e-6)


def test_a_frame_of_one_color_takes_the_anchors_mean_color():
    for value in (0.1, 0.3337, 0.9):
        flat = torch.full((1, 13, 7, 3), value)  # 91 pixels: a mean that is not exact in float32
        held = hold_color(flat, _mild(1)[0], 1.0)
        assert held.std(dim=(1, 2)).max() < 1e-5


def test_how_many_frames_come_at_once_does_not_matter():
    frames, anchor = _mild(2 * FRAMES_AT_ONCE + 1), _mild(1, seed=1)[0]
    one_by_one = torch.cat([hold_color(frame[None], anchor, 0.7) for frame in frames])
    assert torch.allclose(hold_color(frames, anchor, 0.7), one_by_one, atol=1e-6)


def test_the_given_frames_are_not_changed_and_the_type_stays():
    frames = _mild(2)
    before = frames.clone()
    assert hold_color(frames.half(), frames[0], 1.0).dtype == torch.float16
    hold_color(frames, frames[0] * 0.5, 1.0)
    assert torch.equal(frames, before)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(InputError, match="between 0 and 1"):
        hold_color(_mild(1), _mild(1)[0], strength)


def test_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="anchor"):
        hold_color(_mild(1), _mild(1)[0, 0], 1.0)
    with pytest.raises(InputError, match="3 frames need 1 anchor picture or 3 of them, got 2"):
        hold_color(_mild(3), _mild(2), 1.0)


def test_an_anchor_for_each_frame():
    frames, anchors = _mild(6), _mild(6).flip(0) * 0.8
    each = torch.cat([hold_color(frames[i : i + 1], anchors[i], 0.7) for i in range(6)])
    torch.testing.assert_close(hold_color(frames, anchors, 0.7), each)


def _with_a_flash(frames: int, moment: int) -> torch.Tensor:
    """A mild picture that never changes, but for one frame whose middle is dark: a mouth that opens."""
    video = _mild(1).repeat(frames, 1, 1, 1)
    video[moment, 4:8, 3:7] = 0.1
    return video


def test_averaged_over_a_second_the_picture_does_not_give_way_to_a_movement():
    video = _with_a_flash(50, 25)
    anchor = video[0] * 0.8 + 0.1
    each, steady = (hold_color(video, anchor, 1.0, over=over) for over in (1, 25))
    background = (slice(None), slice(0, 3))
    jump = (each[25][background] - each[24][background]).abs().mean()
    assert (steady[25][background] - steady[24][background]).abs().mean() < 0.02 * jump


def test_averaged_over_a_second_a_slow_drift_is_taken_away():
    away = torch.linspace(0, 0.1, 100)[:, None, None, None]
    video = _mild(1).repeat(100, 1, 1, 1) + away
    held = hold_color(video, video[0], 1.0, over=25)
    assert (held - video[0]).mean((1, 2, 3)).abs().max() < 0.01
    assert (held - video[0]).mean((1, 2, 3))[12:-12].abs().max() < 1e-3


def test_a_short_chunk_is_averaged_over_what_there_is():
    frames, anchor = _mild(5), _mild(1, seed=1)[0]
    goal = rgb_to_lab(anchor).mean((0, 1))
    held = rgb_to_lab(hold_color(frames, anchor, 1.0, over=25))
    assert torch.allclose(held.mean((0, 1, 2)), goal, atol=0.05)


def test_an_even_number_of_frames_is_refused():
    with pytest.raises(InputError, match="odd number of frames, got 24"):
        hold_color(_mild(1), _mild(1)[0], 1.0, over=24)

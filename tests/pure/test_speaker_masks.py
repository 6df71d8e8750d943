"""Who is where: boxes and painted masks become masks on latents and tokens, or one clear sentence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk_core.chunks.sizes import scaled_size
from infinitetalk_core.errors import InputError
from infinitetalk_core.speakers import Box, half_boxes, speaker_masks, token_masks

PICTURE = (480, 832)
LEFT, RIGHT = Box(100, 50, 300, 400), Box(500, 50, 700, 400)


def test_x_runs_across_and_y_runs_down():
    masks = speaker_masks(1, [Box(0, 0, 832, 240)], PICTURE, PICTURE)
    assert masks.shape == (2, 60, 104)
    assert masks[0, :30].all() and not masks[0, 30:].any()


def test_without_boxes_two_speakers_are_left_and_right():
    left, right, background = speaker_masks(2, None, PICTURE, PICTURE)
    assert left[:, :52].any() and not left[:, 52:].any()
    assert right[:, 52:].any() and not right[:, :52].any()
    assert background[0].all() and background[:, 52].all(), "a margin around each half is background"


def test_without_boxes_one_speaker_is_the_whole_picture():
    assert speaker_masks(1, None, PICTURE, PICTURE).all()


def test_a_painted_mask_and_the_same_box_are_the_same():
    painted = torch.zeros(PICTURE)
    painted[50:400, 100:300] = 1
    boxed = speaker_masks(2, [LEFT, RIGHT], PICTURE, (448, 896))
    assert torch.equal(speaker_masks(2, [painted[None], RIGHT], PICTURE, (448, 896)), boxed)


def test_a_soft_edge_is_cut_in_its_middle():
    painted = torch.zeros(PICTURE)
    painted[:, :400] = torch.linspace(1, 0, 400)
    mask = speaker_masks(1, [painted], PICTURE, PICTURE)[0]
    assert mask[:, :25].all() and not mask[:, 25:].any()


def test_overlapping_people_share_the_pixels_and_these_are_not_background():
    one, two, background = speaker_masks(2, [LEFT, Box(200, 50, 400, 400)], PICTURE, PICTURE)
    assert (one * two).any()
    assert torch.equal(background, ((one + two) == 0).float())


def test_a_box_may_reach_past_the_edge():
    inside = speaker_masks(1, [Box(0, 0, 200, 480)], PICTURE, PICTURE)
    assert torch.equal(speaker_masks(1, [Box(-50, -9, 200, 999)], PICTURE, PICTURE), inside)


def test_boxes_are_cropped_with_the_picture():
    """A wide picture on a square video: the sides go, and a box in the middle stays in the middle."""
    masks = speaker_masks(1, [Box(300, 0, 500, 100)], (400, 800), (400, 400))
    assert torch.equal(masks[0], speaker_masks(1, [Box(100, 0, 300, 100)], (400, 400), (400, 400))[0])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(64, 400),
    st.integers(64, 400),
    st.integers(2, 12),
    st.integers(2, 12),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_an_area_as_large_as_the_message_asks_for_is_never_lost(height, width, rows, columns, across, down):
    size = (16 * rows, 16 * columns)
    scale = max(size[0] / height, size[1] / width)
    least = int(-(-16 // scale)) + 1
    scaled = scaled_size((height, width), size)
    # the part of the picture that the video shows, in the picture's pixels
    top, left = (scaled[0] - size[0]) / 2 / scale + 1, (scaled[1] - size[1]) / 2 / scale + 1
    free_x, free_y = width - 2 * left - least, height - 2 * top - least
    if free_x < 0 or free_y < 0:
        return
    x, y = int(left + across * free_x), int(top + down * free_y)
    try:
        masks = speaker_masks(1, [Box(x, y, x + least, y + least)], (height, width), size)
    except InputError as error:
        assert "no background" in str(error)
    else:
        assert token_masks(masks)[0].any()


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ([LEFT, Box(500, 50, 503, 52)], r"speaker 2's area of 3 x 2 pixels.*at least 17 x 17"),
        ([LEFT, torch.zeros(PICTURE)], "speaker 2's mask is empty"),
        ([LEFT, torch.zeros(64, 64)], "speaker 2's mask is 64 x 64 but the picture is 832 x 480"),
        ([Box(300, 0, 100, 50), RIGHT], "speaker 1's box 300, 0, 100, 50 is empty"),
        (
            [LEFT, Box(900, 0, 950, 50)],
            "speaker 2's box 900, 0, 950, 50 lies outside .*832 x 480",
        ),
        ([Box(-9, 0, -1, 50), RIGHT], "speaker 1's box .* outside"),
        ([LEFT], "2 speakers need 2 boxes or masks, one each, got 1"),
        ([Box(0, 0, 416, 480), Box(416, 0, 832, 480)], "no background"),
    ],
)
def test_areas_that_cannot_be_used_are_refused_in_one_sentence(areas, words):
    with pytest.raises(InputError, match=words):
        speaker_masks(2, areas, PICTURE, PICTURE)


def test_three_speakers_need_areas():
    with pytest.raises(InputError, match="3 speakers need 3 boxes"):
        speaker_masks(3, None, PICTURE, PICTURE)


@pytest.mark.parametrize("values", [None, "1,2,3,4", [1, 2, 3], [1, 2, 3, "x"], [1, 2, 3, float("nan")], 7])
def test_a_malformed_box_is_refused_with_what_it_was(values):
    with pytest.raises(InputError, match="speaker 2's box must be four numbers"):
        Box.of(values, speaker=2)


def test_a_box_is_read_from_four_numbers():
    assert Box.of([1, "2", 3.5, 4], speaker=1) == Box(1, 2, 3.5, 4)


def test_tokens_are_every_second_latent():
    masks = torch.zeros(1, 4, 6)
    masks[0, 2, 4] = 1
    assert token_masks(masks).tolist() == [[0, 0, 0, 0, 0, 1]]
    assert half_boxes((100, 100)) == (Box(2, 5, 47, 95), Box(52, 5, 97, 95))

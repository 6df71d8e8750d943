"""The size of the video: trained sizes, multiples of 16, and pictures that keep their shape and colors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk_core.chunks.sizes import (
    BUCKETS_480P,
    BUCKETS_720P,
    check_size,
    choose_bucket,
    fit_mask_to,
    fit_to,
    scaled_size,
)
from infinitetalk_core.errors import InputError

TABLES = [BUCKETS_480P, BUCKETS_720P]


@pytest.mark.parametrize("table", TABLES)
def test_every_bucket_can_be_cut_into_tokens(table):
    for _, height, width in table:
        assert check_size(height, width) == (height, width)


@pytest.mark.parametrize("table", TABLES)
def test_a_picture_as_shaped_as_a_bucket_gets_that_bucket(table):
    for ratio, height, width in table:
        assert choose_bucket(round(ratio * 100_000), 100_000, table) == (height, width)


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_no_other_bucket_is_nearer(height, width):
    best = choose_bucket(height, width, BUCKETS_480P)
    distance = {(h, w): abs(ratio - height / width) for ratio, h, w in BUCKETS_480P}
    assert distance[best] == min(distance.values())


def test_of_two_equally_near_buckets_the_first_is_taken():
    assert choose_bucket(5, 4, ((1.0, 16, 16), (1.5, 48, 32))) == (16, 16)


@pytest.mark.parametrize(
    ("height", "width", "nearest"), [(481, 832, "832 x 480"), (480, 840, "832 x 480"), (1, 3, "16 x 16")]
)
def test_a_size_that_cannot_be_used_is_refused_with_the_nearest_one(height, width, nearest):
    with pytest.raises(InputError, match=nearest):
        check_size(height, width)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 3)])
def test_a_picture_without_pixels_is_refused(size):
    with pytest.raises(InputError, match="at least one pixel"):
        choose_bucket(*size, BUCKETS_480P)


@settings(max_examples=60, deadline=None)
@given(*(st.integers(1, 120) for _ in range(2)), *(st.integers(1, 8) for _ in range(2)))
def test_every_picture_covers_every_size(height, width, rows, columns):
    target = (16 * rows, 16 * columns)
    scaled = scaled_size((height, width), target)
    assert scaled[0] >= target[0] and scaled[1] >= target[1]
    assert fit_to(torch.rand(height, width, 3), *target).shape == (*target, 3)
    assert fit_mask_to(torch.rand(2, height, width), *target).shape == (2, *target)


def test_a_picture_of_the_right_size_keeps_its_pixels_to_8_bits():
    picture = torch.rand(32, 48, 3)
    assert (fit_to(picture, 32, 48) - picture).abs().max() <= 0.5 / 255 + 1e-6


def test_the_middle_is_kept_and_the_sides_are_cut():
    picture = torch.zeros(16, 48, 3)
    picture[:, 16:32] = 1
    assert (fit_to(picture, 16, 16) == 1).all()


def test_overbright_pixels_are_cut_not_wrapped():
    assert fit_to(torch.full((16, 16, 3), 1.2), 16, 16).max() == 1
    assert fit_to(torch.full((16, 16, 3), -0.2), 16, 16).min() == 0


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (8, 8, 4), (8, 8), (0, 8, 3)])
def test_what_is_not_one_color_picture_is_refused(shape):
    with pytest.raises(InputError, match="picture must be"):
        fit_to(torch.zeros(shape), 16, 16)

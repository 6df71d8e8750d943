"""Lists of numbers in text inputs: read as written, or refused in one sentence; never another number in silence."""

from __future__ import annotations

import pytest
import torch

from infinitetalk_core.chunks.job import check_sigmas
from infinitetalk_core.chunks.redo import ChunkOverride, parse_redo
from infinitetalk_core.chunks.reference import parse_times
from infinitetalk_core.errors import InputError
from infinitetalk_core.sampling.sdedit import parse_strengths
from infinitetalk_core.speakers import Box, areas_of


@pytest.mark.parametrize("read", [parse_times, parse_strengths, lambda text: parse_redo(text, 9, 900)])
@pytest.mark.parametrize("text", ["0,1 0,2", "0,1, 0,2", "0,1\n0,2", "1@0,5 2@0,5"])
def test_decimal_commas_are_not_read_as_two_numbers(read, text):
    with pytest.raises(InputError):
        read(text)


def test_the_sentence_about_decimal_commas_says_how_to_write_them():
    with pytest.raises(InputError, match=r"'1,5' is one number or two: write decimals with a point, such as 1\.5"):
        parse_times("1,5 2,5")


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("1,5", (1, 5)),
        ("1,5,2", (1, 5, 2)),
        ("1, 5, 2.5", (1, 5, 2.5)),
        ("0.5,1 2", (0.5, 1, 2)),
        ("1:07,2:00.5", (67, 120.5)),
        (":30 1e1", (30, 10)),
        ("1, 2, 3,", (1, 2, 3)),
    ],
)
def test_lists_that_have_one_meaning(text, times):
    assert parse_times(text) == times


WORDS = ["inf", "nan", "1_000", "1:-30", "-1:30", "1:75", "1:inf", "1:", ":", "1e999", "0x1", "9" * 5000, "\x00"]


@pytest.mark.parametrize("word", [*WORDS, "-:30", "1:2:3", "1;2", "\ud800"])
def test_words_that_are_no_times(word):
    with pytest.raises(InputError, match="is not a time") as refused:
        parse_times(f"0 {word}")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("word", [*WORDS[:3], "-0.1", *WORDS[8:]])
def test_words_that_are_no_strengths(word):
    with pytest.raises(InputError, match="strength"):
        parse_strengths(word)


@pytest.mark.parametrize(
    "word",
    [
        *(f"1@{seconds}" for seconds in ("inf", "nan", "1e308", "-0.01", "36", "1_0", "")),
        *(f"1={seed}" for seed in ("inf", "-1", str(2**64), "9" * 5000, "1_0", "1.5", "")),
        *("0", "10=1", "1", "a", "@1", "=1", "1=1=1", "1@1@1", "inf=1", "9" * 5000 + "=1"),
        "4=1, 4@2.5",
    ],
)
def test_chunks_that_cannot_be_redone(word):
    with pytest.raises(InputError) as refused:
        parse_redo(word, 9, 900)
    assert len(str(refused.value)) < 300


def test_the_last_frame_of_the_source_can_be_a_reference():
    assert parse_redo("1@35.96, 2=3@35.9999", 9, 900) == {0: ChunkOverride(None, 899), 1: ChunkOverride(3, 899)}


@pytest.mark.parametrize("text", ["nan 0 1 1", "0 0 inf 1", "0 0 1_0 1", "1 2 3 4 5", "1 2 3 \ud800"])
def test_boxes_that_are_none(text):
    with pytest.raises(InputError, match="speaker 1's box must be four numbers"):
        areas_of((None, None), (text, ""))


def test_a_box_written_as_two_points():
    assert areas_of((None, None), ("120,80 420,600", "0,0,9,9"))[0] == Box(120, 80, 420, 600)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([0.9604, 0.89, 0.73, 0.0], r"start at 0\.9604, but .*ddim_uniform"),
        ([0.0158, 0.0], r"start at 0\.0158"),
        ([14.6, 3.2, 0.4, 0.0], r"start at 14\.6, above 1, as those of another kind of model"),
        ([float("nan"), 0.0], "no numbers"),
        ([1.0, float("inf"), 0.0], "no numbers"),
        ([1.0, 0.5, 0.7, 0.0], "fall from step to step"),
        ([1.0, 0.5, 0.0, 0.0], "reach 0 only at the end"),
        ([1.0, 0.5, -0.2], "end at 0"),
        ([1.0, 0.5, -0.0005], "end at 0"),
        ([1.01, 0.5, 0.0], r"start at 1\.01, above 1"),
        ([1.0, 0.5, 0.5, 0.0], "equal or rise"),
        ([1.0, 1.0, 0.0], "equal or rise"),
        ([0.0, 0.0], "equal or rise"),
        ([1.0, float("nan"), 0.0], "no numbers"),
        ([1.0], "at least 2"),
    ],
)
def test_schedules_that_cannot_be_used(levels, words):
    with pytest.raises(InputError, match=words):
        check_sigmas(torch.tensor(levels), from_source=False)


def test_with_sdedit_a_schedule_may_start_lower_but_not_above():
    low = torch.tensor([0.6, 0.3, 0.0])
    assert check_sigmas(low, from_source=True) is low
    with pytest.raises(InputError, match="above 1"):
        check_sigmas(low * 20, from_source=True)

"""What the benchmarks of a block and of a prediction rest on."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from comparison import SIZES, Sizes, in_turn


def test_the_real_sizes_have_the_tokens_of_the_real_videos():
    assert (SIZES["480p"].tokens, SIZES["720p"].tokens) == (32_760, 75_600)


def test_operations_of_a_block_are_those_of_its_layers():
    """Counted layer by layer for a block that is small enough to see through."""
    sizes = Sizes(dim=8, heads=1, ffn=16, grid=(2, 3, 5))
    length, context, speech = 30, 512 + 257, 2 * 32
    layers = (
        2 * length * 8 * 8 * (4 + 2 + 2) + 2 * context * 8 * 8 * 2 + 2 * speech * 768 * 8 * 2 + 2 * length * 8 * 16 * 2
    )
    attention = 2 * 2 * length * 8 * (length + context + 32)
    assert sizes.block_operations() == layers + attention


def busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_the_ratio_is_second_over_first_whatever_the_order():
    found = in_turn(lambda: busy(0.01), lambda: busy(0.03), "cpu", 4)
    assert found.ratio == pytest.approx(3, rel=0.5)
    assert found.second > found.first

"""The plan covers the speech exactly, whatever its length."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinitetalk_core.audio.windows import mirror, window_indices
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.errors import InputError

lengths = st.integers(1, 30).map(lambda n: 4 * n + 1)


@given(total=st.integers(1, 5000), length=lengths, data=st.data())
def test_every_frame_is_written_once_and_in_order(total, length, data):
    context = data.draw(st.integers(0, (length - 5) // 4).map(lambda n: 4 * n + 1))
    plan = plan_chunks(total, length, context)
    written = [chunk.start + offset for chunk in plan for offset in range(chunk.new.start, chunk.new.stop)]
    assert written == list(range(total))
    assert all(chunk.length == length for chunk in plan)
    assert all(chunk.keep > 0 for chunk in plan), "no chunk is sampled for nothing"
    assert [chunk.index for chunk in plan] == list(range(len(plan)))
    for before, chunk in pairwise(plan):
        assert chunk.context == context
        assert chunk.start + context == before.start + before.length, "context is the end of the chunk before"
        assert before.keep == length - before.context, "only the last chunk is cut"


@pytest.mark.parametrize(
    ("length", "context", "words"),
    [
        (80, 9, "chunk length must be 4n\\+1 .* got 80; try 81 or 85|try 77 or 81"),
        (81, 8, "context frames must be 4n\\+1 .* got 8; try 9"),
        (81, 0, "context frames must be 4n\\+1"),
        (9, 9, "fewer than the chunk length"),
        (9, 13, "fewer than the chunk length"),
    ],
)
def test_lengths_that_the_vae_would_shorten_are_refused(length, context, words):
    with pytest.raises(InputError, match=words):
        plan_chunks(100, length, context)


def test_an_empty_speech_is_refused():
    with pytest.raises(InputError, match="at least one frame"):
        plan_chunks(0)


@given(start=st.integers(0, 300), length=st.integers(1, 100), available=st.integers(1, 400))
def test_windows_are_the_frame_and_its_neighbors(start, length, available):
    windows = window_indices(start, length, available)
    assert len(windows) == length
    for frame, window in enumerate(windows, start):
        assert len(window) == 5
        assert all(0 <= i < available for i in window)
        if 2 <= frame < available - 2:
            assert window == list(range(frame - 2, frame + 3))


@given(index=st.integers(-10, 1000), length=st.integers(1, 50))
def test_mirror_moves_by_one_step_at_most(index, length):
    assert 0 <= mirror(index, length) < length
    assert abs(mirror(index + 1, length) - mirror(index, length)) <= 1

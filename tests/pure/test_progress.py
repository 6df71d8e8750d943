"""What is said while one waits: how far, how long still, how much memory and disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infinitetalk_core.progress import Progress, describe_bytes, describe_length, describe_seconds, seconds_left


def test_time_left_is_told_from_the_chunks_that_were_measured():
    assert seconds_left([], 9, elapsed=6, share=0.5) == pytest.approx(6 + 9 * 12), "none yet: from the steps done"
    assert seconds_left([100.0, 20, 20, 20, 20, 20], 2, elapsed=5, share=0.1) == pytest.approx(15 + 40)
    assert seconds_left([10.0], 0, elapsed=30, share=0.9) == 0, "never less than nothing"


def test_in_words():
    progress = Progress(3, 12, 7, 40, 5.76, 250.0, 3_100_000_000, None, 41_200_000)
    assert str(progress) == ("chunk 3/12, step 7/40, 5.8 s of video, memory 3.1 GB, disk 41 MB, 4 min 10 s left")
    assert str(replace(progress, attempt=2)).startswith("chunk 3/12 (try 2), step 7/40, ")
    unknown = str(Progress(1, 12, 1, 40, 0, None, 3_100_000_000, None, 0))
    assert unknown.endswith("disk 0 MB") and "left" not in unknown, "nothing was measured that tells it"
    assert "GPU 11.0 GB" in str(Progress(1, 1, 1, 1, 0, 0, 0, 11_000_000_000, 0))
    assert [describe_seconds(n) for n in (-1, 59, 61, 3700)] == ["0 s", "59 s", "1 min 1 s", "1 h 1 min"]
    assert [describe_length(n) for n in (1, 123, 1500, 3100)] == ["0.04 s", "4.92 s", "1 min 0 s", "2 min 4 s"]
    assert [describe_bytes(n) for n in (0, 999_000_000, 1_000_000_000)] == ["0 MB", "999 MB", "1.0 GB"]

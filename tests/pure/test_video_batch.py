"""Pictures of a video in one batch: only on request, and only where there is room."""

from __future__ import annotations

import pytest
import torch

from infinitetalk_core.errors import InputError
from infinitetalk_core.video.frames import batch_bytes, read_batch, say_memory
from infinitetalk_core.video.source import PictureBatch
from infinitetalk_core.video.trim import cut

PICTURES = torch.rand(50, 48, 32, 3)


def test_a_part_is_read_into_its_place():
    part = cut(PictureBatch(PICTURES), 0.4, 1.0)
    seen: list[int] = []
    assert torch.equal(read_batch(part, 10**9, seen.append), PICTURES[10:35])
    assert seen == list(range(25))


def test_the_memory_is_said_before_and_is_what_it_takes():
    part = cut(PictureBatch(PICTURES), 0, 0)
    got = read_batch(part, 10**9)
    assert batch_bytes(part) == got.numel() * got.element_size()
    assert say_memory(cut(PictureBatch(torch.zeros(1, 1000, 1000, 3)), 0, 0)) == (
        "0.0 GB of memory for 1 picture of 1000 x 1000"
    )


def test_too_many_are_refused_before_any_is_read():
    class Never(PictureBatch):
        def frame(self, index: int) -> torch.Tensor:
            raise AssertionError("read")

    source = Never(PICTURES)
    with pytest.raises(InputError, match=r"need 0\.0 GB of memory for 50 pictures of 32 x 48, .* take fewer seconds"):
        read_batch(source, batch_bytes(source) - 1)


def test_reading_can_be_interrupted():
    def stop(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_batch(PictureBatch(PICTURES), 10**9, stop)

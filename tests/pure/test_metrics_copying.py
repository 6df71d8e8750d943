"""Rigid copying is told from a free performance."""

from __future__ import annotations

import pytest
import torch

from evaluation.copying import copying
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.reference import AfterEnd
from infinitetalk_core.errors import InputError

FRAMES = 49
PLAN = plan_chunks(FRAMES, 13, 5)
SILENT = (torch.zeros(FRAMES), torch.zeros(FRAMES))


def noise(seed: int, frames: int = FRAMES) -> torch.Tensor:
    """A different picture at every time."""
    return torch.rand(frames, 12, 12, 3, generator=torch.Generator().manual_seed(seed))


def middles() -> list[int]:
    return [chunk.start + chunk.context + chunk.keep // 2 for chunk in PLAN]


def test_the_source_itself_is_a_full_copy():
    numbers = copying(noise(0), noise(0), PLAN, middles(), (torch.arange(FRAMES), torch.arange(FRAMES)))
    assert numbers.own_time == pytest.approx(1)
    assert numbers.anywhere == pytest.approx(1)
    assert numbers.mouth == pytest.approx(1)


def test_a_free_performance_copies_nothing():
    numbers = copying(noise(1), noise(0), PLAN, middles(), SILENT)
    assert abs(numbers.own_time) < 0.05
    assert abs(numbers.copied) < 0.05
    assert numbers.mouth == 0, "a silent source cannot be repeated"


def test_a_pose_at_the_wrong_time_is_found_too():
    video = noise(1)
    for chunk, at in zip(PLAN, middles(), strict=True):
        video[chunk.start + chunk.context] = noise(0)[at]
    numbers = copying(video, noise(0), PLAN, middles(), SILENT)
    assert abs(numbers.own_time) < 0.1
    assert numbers.anywhere == pytest.approx(1)
    assert numbers.chance < 0.6
    assert numbers.copied == pytest.approx(1)


def test_another_light_is_no_other_pose():
    numbers = copying(noise(0) * 0.5 + 0.3, noise(0) * 0.5, PLAN, middles(), SILENT)
    assert numbers.own_time > 0.99


def test_only_moving_pixels_count():
    source, video = noise(0), noise(0)
    video[:, :8] = source[:, :8] = 0.5
    video[:, 8:] = noise(1)[:, 8:]
    assert abs(copying(video, source, PLAN, middles(), SILENT).own_time) < 0.1


def test_a_source_that_starts_again_has_its_own_times():
    source = noise(0, 20)
    video = source[[t % 20 for t in range(FRAMES)]]
    at = [time % 20 for time in middles()]
    assert copying(video, source, PLAN, at, SILENT, after_end=AfterEnd.LOOP).own_time == pytest.approx(1)


def test_references_must_fit_the_plan():
    with pytest.raises(InputError, match="needs its reference"):
        copying(noise(0), noise(0), PLAN, [0], SILENT)
    with pytest.raises(InputError, match="no chunk looked"):
        copying(noise(0), noise(0), PLAN, [None] * len(PLAN), SILENT)


def test_a_drawn_speaker_who_copies_is_told_from_one_who_speaks():
    pytest.importorskip("cv2", reason="drawn speakers need OpenCV")
    from evaluation.sync import mouth_opening
    from tests.support.drawn_speakers import UNSEEN, draw, random_voice

    frames = 145
    plan = plan_chunks(frames, 33, 9)
    at = [chunk.start + chunk.context + chunk.keep // 2 for chunk in plan]
    source = draw(UNSEEN, random_voice(frames, 1), 1)
    dubbed = draw(UNSEEN, random_voice(frames, 2), 2)
    free, rigid = (
        copying(video, source, plan, at, (mouth_opening(video), mouth_opening(source))) for video in (dubbed, source)
    )
    assert rigid.own_time == pytest.approx(1)
    assert free.own_time < 0.35
    assert rigid.copied > 0.9
    assert free.copied < 0.3
    assert rigid.mouth == pytest.approx(1)
    assert abs(free.mouth) < 0.4

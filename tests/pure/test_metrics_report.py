"""All numbers of a dubbed video come together, and say which of two videos is the better one."""

from __future__ import annotations

import json

import pytest
import torch

from evaluation.report import Dubbed, measure_video, relative_sharpness, seams
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.errors import InputError

FRAMES = 105
PLAN = plan_chunks(FRAMES, 33, 9)
AT = [chunk.start + chunk.context for chunk in PLAN]


@pytest.fixture(scope="module")
def speakers():
    """A source, the same speaker with another voice, and that voice's opening."""
    pytest.importorskip("cv2", reason="drawn speakers need OpenCV")
    from tests.support.drawn_speakers import UNSEEN, draw, random_voice

    voice = random_voice(FRAMES, 2)
    return draw(UNSEEN + 3, random_voice(FRAMES, 1), 1), draw(UNSEEN + 3, voice, 2), voice.opening


def test_a_perfect_dub_has_perfect_numbers(speakers):
    source, dubbed, truth = speakers
    metrics = measure_video(Dubbed(dubbed, source, truth, PLAN, AT))
    assert metrics.sync.correlation > 0.96
    assert metrics.sync.lag == 0
    assert metrics.shuffled is not None
    assert abs(metrics.shuffled) < 0.3
    assert metrics.drift.mean("background") < 1
    assert abs(metrics.drift.slope("color")) < 0.3
    assert metrics.camera.shift < 0.2
    assert 0.8 < metrics.sharpness < 1.2
    assert len(metrics.seams) == len(PLAN) - 1
    assert max(metrics.seams) < 4
    assert json.loads(json.dumps(metrics.to_json()))["sync"]["lag"] == 0


def test_each_fault_shows_in_its_number(speakers):
    source, dubbed, truth = speakers
    good = measure_video(Dubbed(dubbed, source, truth, PLAN, AT))
    tint = torch.linspace(0, 0.15, FRAMES)[:, None, None, None] * torch.tensor([1.0, 0.5, 0])
    soft = torch.nn.functional.avg_pool2d(dubbed.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
    drifted, blurred, rigid = (
        measure_video(Dubbed(video, source, truth, PLAN, AT)) for video in ((dubbed + tint).clamp(0, 1), soft, source)
    )
    assert drifted.drift.slope("color") > 1 > 5 * abs(good.drift.slope("color"))
    assert drifted.drift.slope("background_difference") > 2
    assert blurred.sharpness < 0.5 * good.sharpness
    assert rigid.sync.correlation < 0.5
    assert rigid.copying is not None
    assert rigid.copying.mouth > 0.99
    assert good.copying is not None
    assert good.copying.own_time < rigid.copying.own_time


def test_a_portrait_and_references_that_are_no_source_frames_can_be_measured(speakers):
    source, dubbed, truth = speakers
    metrics = measure_video(Dubbed(dubbed[:40], source[:1], truth[:40], plan_chunks(40, 33, 9), [None, None]))
    assert metrics.copying is None
    assert metrics.shuffled is None, "too short to have another time"
    assert metrics.drift.mean("background") is None
    assert metrics.camera.shift < 0.5


def test_seams_are_those_of_chunks_that_continue_another():
    frames = torch.linspace(0, 0.5, 40)[:, None, None, None].expand(-1, 8, 8, 3).clone()
    plan = plan_chunks(40, 13, 5, [20])
    second = plan[1].start + plan[1].context
    frames[second:] += 0.2
    found = seams(frames, plan)
    assert len(found) == sum(chunk.context > 0 for chunk in plan)
    assert found[0] > 10
    assert found[-1] == pytest.approx(1, abs=0.01)


def test_sharpness_of_the_source_is_one():
    torch.manual_seed(0)
    video = torch.rand(9, 16, 16, 3)
    assert relative_sharpness(video, video) == pytest.approx(1)


def test_sizes_must_agree():
    with pytest.raises(InputError, match="one size"):
        Dubbed(torch.zeros(5, 8, 8, 3), torch.zeros(5, 8, 9, 3), [0.0] * 5, PLAN, AT)

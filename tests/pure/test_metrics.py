"""The numbers of a chunk mean what their paragraph says."""

from __future__ import annotations

import pytest
import torch

from infinitetalk_core.chunks.color import rgb_to_lab
from infinitetalk_core.chunks.metrics import seam, sharpness
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.video.source import PictureBatch
from tests.support.models import PlainModels, make_job, run_and_measure


def ramp(steps: list[float]) -> torch.Tensor:
    return torch.tensor(steps).cumsum(0)[:, None, None, None].expand(-1, 8, 8, 3)


def test_seam_is_the_join_in_usual_steps():
    frames = ramp([0.0, 0.01, 0.01, 0.01])
    assert seam(frames[0] - 0.01, frames) == pytest.approx(1.0, abs=1e-3)
    assert seam(frames[0] - 0.05, frames) == pytest.approx(5.0, abs=1e-3)
    assert seam(frames[0], frames[:1]) == 0.0


def test_sharpness_falls_with_blur():
    torch.manual_seed(0)
    sharp = torch.rand(16, 16, 3)
    soft = torch.nn.functional.avg_pool2d(sharp.permute(2, 0, 1)[None], 3, 1, 1)[0].permute(1, 2, 0)
    assert sharpness(rgb_to_lab(soft)) < 0.5 * sharpness(rgb_to_lab(sharp))


def test_a_run_reports_each_chunk():
    torch.manual_seed(0)
    source = PictureBatch(torch.full((40, 32, 48, 3), 0.5))
    job = make_job(source, 40, ReferenceSettings(Policy.CHUNK_START), (20,))
    _, metrics = run_and_measure(job, PlainModels(level=0.25))
    assert [m.chunk for m in metrics] == list(range(1, len(job.plan) + 1))
    assert [m.seam is None for m in metrics] == [planned.chunk.context == 0 for planned in job.plan]
    assert all(m.outside_drift is None for m in metrics)
    assert metrics[1].color_drift > 20 and metrics[1].color_drift_mean > 20
    assert "seam" in str(metrics[1])
    assert "a new shot" in str(metrics[0])
    assert metrics[1].to_json()["chunk"] == 2

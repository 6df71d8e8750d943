"""What is computed on the device crosses the bus once, and is not waited for more often than its result is needed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from infinitetalk_core.chunks import dub as chunks_dub
from infinitetalk_core.chunks.color import _color_statistics, hold_color, lab_to_rgb, rgb_to_lab
from infinitetalk_core.chunks.dub import ChunkOutput, dub
from infinitetalk_core.chunks.job import ColorHold
from infinitetalk_core.chunks.metrics import measure
from infinitetalk_core.chunks.pinned import Pinned
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.chunks.seam import fade_seam
from infinitetalk_core.chunks.sizes import fit_to
from infinitetalk_core.video.source import PictureBatch, VideoFile
from infinitetalk_core.video.trim import Cut
from tests.support.models import PlainModels, make_job
from tests.support.videos import write

DEVICE = torch.device("meta")  # a device of its own, which computes nothing


class Bus(TorchDispatchMode):
    """Counts bytes that go to and from `DEVICE`, and numbers that Python waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "copy_" and args[1].device == DEVICE and args[0].device != DEVICE:
            self.bytes["down"] += args[0].nbytes
            return args[0]
        out = func(*args, **(kwargs or {}))
        if name == "_to_copy" and out.device == DEVICE and args[0].device != DEVICE:
            self.bytes["up"] += out.nbytes
        self.waits += name == "_local_scalar_dense"
        return out


@pytest.mark.parametrize("over", [1, 25])
@pytest.mark.parametrize("anchors", [1, 81])
def test_colors_cross_the_bus_once(over, anchors):
    frames, anchor = torch.rand(81, 32, 48, 3), torch.rand(anchors, 32, 48, 3)
    with Bus() as bus:
        hold_color(frames, anchor if anchors > 1 else anchor[0], 1.0, DEVICE, over)
    small = 2000  # matrices and white points
    assert frames.nbytes == bus.bytes["down"]
    assert frames.nbytes + anchor.nbytes <= bus.bytes["up"] <= frames.nbytes + anchor.nbytes + small * 81
    assert bus.waits == 0


def held_as_before(frames: torch.Tensor, anchor: torch.Tensor, strength: float, over: int) -> torch.Tensor:
    """Color matching with the statistics of all frames first, each part of the frames taken three times."""
    mean, deviation = _color_statistics(frames, frames.device, over)
    goal_mean, goal_deviation = _color_statistics(anchor, frames.device, over)
    gain = torch.where(deviation < 1e-4, 0, goal_deviation / deviation)
    matched = torch.empty_like(frames)
    for i in range(0, len(frames), 4):
        part = slice(i, i + 4)
        goal = goal_mean.expand_as(mean)[part]
        converted = lab_to_rgb((rgb_to_lab(frames[part].clamp(0, 1)) - mean[part]) * gain[part] + goal)
        matched[part] = torch.lerp(frames[part].clamp(0, 1), converted, strength)
    return matched


@pytest.mark.parametrize("count", [1, 5, 24, 50, 81])
@pytest.mark.parametrize("over", [1, 9, 25])
def test_colors_have_the_same_bits_as_with_all_statistics_first(count, over):
    torch.manual_seed(count)
    frames = torch.rand(count, 6, 10, 3)
    for anchor in (torch.rand(1, 5, 7, 3), torch.rand(count, 6, 10, 3)):
        held = hold_color(frames, anchor if len(anchor) > 1 else anchor[0], 0.7, over=over)
        assert torch.equal(held, held_as_before(frames, anchor, 0.7, over))


def test_the_fade_in_place_has_the_same_bits():
    chunk = plan_chunks(100, 33, 9)[1]
    frames, last = torch.rand(33, 8, 12, 3), torch.rand(8, 12, 3)
    want = fade_seam(frames.clone(), chunk, last, 8, 9)
    before = frames.clone()
    assert torch.equal(fade_seam(frames, chunk, last, 8, 9), want) and torch.equal(frames, before)
    assert fade_seam(frames, chunk, last, 8, 9, in_place=True) is frames and torch.equal(frames, want)


class Keeping(PlainModels):
    """Models that return the same tensor for each chunk."""

    decoded: torch.Tensor | None = None

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        if self.decoded is None:
            self.decoded = super().decode(latents).contiguous()
        return self.decoded


@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_frames_are_copied_only_where_they_are_not_ours(strength, monkeypatch):
    held = []
    monkeypatch.setattr(chunks_dub, "hold_color", lambda *args: held.append(hold_color(*args)) or held[-1])
    source = PictureBatch(torch.rand(30, 32, 48, 3))
    models = Keeping()
    for finished in dub(make_job(source, 25, color=ColorHold(strength, over=1), seam_fade=2), models):
        storage = finished.frames.untyped_storage().data_ptr()
        assert models.decoded is not None
        assert storage != models.decoded.untyped_storage().data_ptr(), "theirs"
        assert (storage == held[-1].untyped_storage().data_ptr()) == (strength > 0), "no second copy"


@pytest.mark.parametrize("pinned", [False, True])
def test_the_numbers_of_a_chunk_are_fetched_three_times(pinned):
    """Those of its frames, of its colors and of its seam; masks and sources are in memory."""
    source = PictureBatch(torch.rand(60, 32, 48, 3))
    mask = Pinned(torch.zeros(1, 32, 48).index_fill(1, torch.arange(8), 1), feather=0)
    options = {"pinned": mask} if pinned else {}
    job = make_job(source, 40, ReferenceSettings(Policy.CHUNK_START), **options)
    finished: ChunkOutput = list(dub(job, PlainModels()))[1]

    class Waits(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
            return func(*args, **(kwargs or {}))

    with Waits() as waits:
        measure(job, finished, finished.frames[0])
    assert waits.count == (len(finished.frames[::8]) if pinned else 0), "whether a mask is empty"


def test_a_picture_of_a_file_is_resized_from_its_8_bits_with_the_same_result(tmp_path):
    path = tmp_path / "film.mp4"
    write(path, torch.rand(6, 48, 80, 3), None)
    with VideoFile(path) as video:
        for source in (video, Cut(video, 1, 4)):
            for size in ((32, 48), (48, 80), (96, 64)):
                pixels = source.pixels(2)
                assert pixels.dtype == torch.uint8
                assert torch.equal(fit_to(pixels, *size), fit_to(source.frame(2), *size))
    every = torch.arange(256, dtype=torch.uint8).reshape(16, 16, 1).expand(-1, -1, 3)
    assert torch.equal(fit_to(every, 32, 32), fit_to(every.float().div(255), 32, 32))

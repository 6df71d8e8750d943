"""The sight test: numbers see the faults that eyes see, and say nothing about a true video. Drawn speakers only;
benchmarks/sight.py makes the whole table, with films too."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("cv2", reason="drawn speakers need OpenCV")

from benchmarks.sight import UNSEEN, TrueVideo, delivered, drawn, faults, faulty
from evaluation.sight import NUMBERS, Delivered, Sight, Truth, look
from infinitetalk_core.errors import InputError

# One size of each fault: the first that is at least twice what is just visible.
SEEN = {
    "clothes turned by 6": "color",
    "wall tinted by 6": "color",
    "all tinted by 3": "color_overall",
    "brows faded by 50%": "contrast",
    "face blurred by 1% of the height": "softest_part",
    "6 frames frozen": "frozen",
    "flicker of ±0.6": "flicker",
    "jump by 2 at a join": "jump",
    "pulse of 2": "pulse",
    "lips 2 frames late": "lag",
    "another identity": "displaced",
}


@pytest.fixture(scope="module")
def speaker() -> TrueVideo:
    return drawn(UNSEEN)


@pytest.fixture(scope="module")
def clean(speaker, tmp_path_factory) -> Sight:
    return look(delivered(speaker.frames, tmp_path_factory.mktemp("clean")), speaker.truth)


def test_nothing_is_seen_in_a_true_video(clean):
    assert clean.visible == ()
    assert set(clean.values) == set(NUMBERS) - {"identity"}
    assert "drawn" in clean.absent["identity"]


def test_each_fault_is_seen_by_its_number(speaker, tmp_path):
    found = {}
    for fault in faults(speaker):
        if fault.name in SEEN:
            assert fault.size is None or fault.size >= 2
            seen = look(faulty(fault, tmp_path), speaker.truth).visible
            found[fault.name] = fault.number if fault.number in seen else "not seen"
    assert found == SEEN


def textured(frames: int, height: int = 48, width: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), (height, width), mode="bicubic")
    return picture[0].permute(1, 2, 0).clamp(0, 1).expand(frames, -1, -1, -1)


@pytest.mark.parametrize(
    "frames",
    [
        textured(40),
        textured(40)[..., :1].expand(-1, -1, -1, 3),
        textured(40) * torch.linspace(1, 0, 40)[:, None, None, None],
        torch.zeros(40, 48, 64, 3),
        torch.cat((textured(20), textured(20).flip(2))),
        torch.rand(40, 48, 64, 3),
        textured(1),
        textured(2),
        textured(40, 16, 128),
        textured(40, 128, 16),
    ],
    ids=["no face", "monochrome", "fade to black", "black", "cut", "noise", "one frame", "two", "wide", "high"],
)
@pytest.mark.parametrize("real", [False, True])
def test_any_picture_gives_numbers_or_reasons(frames, real):
    truth = Truth(frames[0], [20], {"eyes": torch.zeros(48, 64, dtype=torch.bool)}, torch.rand(len(frames)), real)
    sight = look(Delivered(frames, (20,)), truth)
    assert set(sight.values) | set(sight.absent) == set(NUMBERS)
    assert all(torch.tensor(value).isfinite() for value in sight.values.values())
    assert all(sight.absent.values())


def test_a_region_that_leaves_the_picture_does_not_count():
    frames = textured(40).clone()
    away = torch.roll(frames, 40, 2)  # most of each region is somewhere else or gone
    sight = look(Delivered(away), Truth(frames[0]))
    assert set(sight.values) | set(sight.absent) == set(NUMBERS)


def test_sizes_must_agree():
    with pytest.raises(InputError, match="video's size"):
        look(Delivered(textured(9)), Truth(textured(1, 32, 32)[0]))


@pytest.mark.parametrize(("faces", "reason"), [(0, "shows 0 faces"), (2, "shows 2 faces")])
def test_a_reference_must_show_one_face(monkeypatch, faces, reason):
    monkeypatch.setattr("evaluation.faces._embedding", lambda: lambda picture: [np.zeros(128)] * faces)
    sight = look(Delivered(textured(20)), Truth(textured(1)[0], real_face=True))
    assert reason in sight.absent["identity"]


def test_a_face_that_is_rarely_seen_has_no_identity(monkeypatch):
    """A profile, a hidden face: it is in the reference, and not found in the frames."""
    found = iter([[np.zeros(128)], [], [], [np.zeros(128)]])
    monkeypatch.setattr("evaluation.faces._embedding", lambda: lambda picture: next(found))
    sight = look(Delivered(textured(20)), Truth(textured(1)[0], real_face=True))
    assert "in only 1 of 3 frames" in sight.absent["identity"]


def test_another_version_of_the_library_is_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", ModuleType("dlib"))
    weights = SimpleNamespace(submodule_search_locations=["/no"])
    monkeypatch.setattr("infinitetalk_core.chunks.face_points.find_spec", lambda name: weights)
    sight = look(Delivered(textured(20)), Truth(textured(1)[0], real_face=True))
    assert "another version" in sight.absent["identity"]

"""Colors held region by region: a drift goes where it is, and what does not drift stays as it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from infinitetalk_core.chunks.color import hold_color, lab_to_rgb, rgb_to_lab
from infinitetalk_core.chunks.color_difference import ciede2000
from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.job import ColorHold, HoldBy
from infinitetalk_core.chunks.local_color import hold_local_color
from infinitetalk_core.chunks.pinned import Pinned
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.source import PictureBatch
from tests.support.models import PlainModels, make_job

FRAMES = 33
MOUTH = (slice(52, 60), slice(42, 54))
OPEN = (torch.arange(FRAMES) % 5) / 4  # a mouth that opens and closes five times a second


def speaker(tint: torch.Tensor | None = None, jacket: float = 0.0) -> torch.Tensor:
    """Return frames of a wall in two colors, and a head and a jacket that sway; the mouth opens and closes.

    tint: Lab units added to the wall; jacket: Lab units by which the jacket turns to red.
    """
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    frames = []
    for number in range(FRAMES):
        sway = round(2 * math.sin(number / 5))
        lab = rgb_to_lab(torch.tensor([0.6, 0.6, 0.6])).expand(96, 96, 3).clone()
        lab[:40, 60:] = rgb_to_lab(torch.tensor([0.5, 0.6, 0.7]))
        lab += 0 if tint is None else tint
        lab[70:, 24 + sway : 72 + sway] = rgb_to_lab(torch.tensor([0.8, 0.7, 0.2]))
        lab[70:, 24 + sway : 72 + sway, 1] += jacket
        lab[(x - 48 - sway) ** 2 + (y - 46) ** 2 < 22**2] = rgb_to_lab(torch.tensor([0.9, 0.7, 0.6]))
        if OPEN[number]:
            height = OPEN[number] * 4
            lab[round(56 - height.item()) : round(56 + height.item()), 43 + sway : 53 + sway] = torch.tensor(
                [20, 30, 8.0]
            )
        frames.append(lab_to_rgb(lab))
    return torch.stack(frames)


def held(frames: torch.Tensor, anchor: torch.Tensor, strength: float = 1.0, over: int = 25) -> torch.Tensor:
    return hold_local_color(frames, anchor, strength, over=over)


def away(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return ciede2000(rgb_to_lab(first), rgb_to_lab(second))


TRUE = speaker()


@pytest.mark.parametrize("units", [6.0, 12.0, 24.0])
def test_a_jacket_that_has_turned_is_turned_back_and_nothing_else_is(units):
    drifted = speaker(jacket=units)
    there = away(drifted, TRUE) > 1
    after = away(held(drifted, TRUE[0]), TRUE)
    assert after[there].mean() < 0.3 * away(drifted, TRUE)[there].mean()
    assert after[~there].quantile(0.99) < 0.5


@pytest.mark.parametrize("tint", [(0.0, 4.0, 2.0), (-5.0, 0.0, 0.0)])
def test_a_tinted_wall_loses_its_tint_and_nothing_else_changes(tint):
    drifted = speaker(torch.tensor(tint))
    there = away(drifted, TRUE) > 1
    after = away(held(drifted, TRUE[0]), TRUE)
    assert after[there].mean() < 0.3 * away(drifted, TRUE)[there].mean()
    assert after[~there].mean() < 0.5


def test_both_at_once_in_opposite_directions_which_the_mean_hides():
    drifted = speaker(torch.tensor([0.0, -5.0, 0.0]), jacket=14.0)
    by_region, by_picture = (hold(drifted, TRUE[0], 1.0, over=25) for hold in (hold_local_color, hold_color))
    before, region, picture = (away(frames, TRUE).mean() for frames in (drifted, by_region, by_picture))
    assert region < 0.3 * before
    assert region < 0.5 * picture


def test_where_nothing_drifts_nothing_changes():
    assert torch.equal(held(TRUE, TRUE[0]), TRUE)


def test_a_drift_that_cannot_be_seen_is_left():
    drifted = speaker(torch.tensor([0.0, 0.4, 0.0]))
    assert torch.equal(held(drifted, TRUE[0]), drifted)


@pytest.mark.parametrize("moment", [0, 3])
def test_a_mouth_is_not_pulled_at_whether_the_anchor_shows_it_open_or_closed(moment):
    drifted = speaker(torch.tensor([-3.0, 4.0, 0.0]), jacket=10.0)
    for frames in (TRUE, drifted):
        after = held(frames, TRUE[moment])
        change = (rgb_to_lab(after) - rgb_to_lab(frames))[:, MOUTH[0], MOUTH[1]]
        assert change.norm(dim=-1).max() < 2
        dark = (rgb_to_lab(after)[:, MOUTH[0], MOUTH[1], 0] < 40).sum((1, 2)).float()
        assert torch.corrcoef(torch.stack((dark, OPEN)))[0, 1] > 0.95


def test_no_flicker_is_added():
    drifted = speaker(torch.tensor([0.0, 5.0, 0.0]), jacket=10.0)
    still = (slice(None), slice(0, 20), slice(0, 20))
    steps = held(drifted, TRUE[0])[still].diff(dim=0).abs()
    assert steps.max() < 1e-3


def test_a_flash_of_the_wall_is_not_taken_for_drift():
    flash = TRUE.clone()
    flash[16] = (flash[16] * 1.3).clamp(0, 1)
    after = held(flash, TRUE[0])
    assert away(after[:12], TRUE[:12]).max() < 0.5
    assert away(after[20:], TRUE[20:]).max() < 0.5


def test_a_drift_that_grows_within_the_chunk_is_followed():
    whole = speaker(torch.tensor([0.0, 8.0, 0.0]))
    growing = torch.lerp(TRUE, whole, torch.linspace(0, 1, FRAMES)[:, None, None, None])
    after = away(held(growing, TRUE[0]), TRUE)
    assert after[-8:].mean() < 0.5 * away(growing, TRUE)[-8:].mean()


def test_a_hand_in_front_keeps_its_color():
    hidden = TRUE.clone()
    hand = torch.tensor([0.35, 0.2, 0.15])
    hidden[:, 75:, 30:66] = hand
    assert away(held(hidden, TRUE[0]), hidden)[:, 78:, 34:62].max() < 1


def test_strength_0_returns_the_frames_and_half_is_between():
    drifted = speaker(torch.tensor([0.0, 6.0, 0.0]))
    assert held(drifted, TRUE[0], 0.0) is drifted
    half, full = (away(held(drifted, TRUE[0], share), TRUE).mean() for share in (0.5, 1.0))
    assert 1.5 * full < half < away(drifted, TRUE).mean()


def test_each_frame_held_to_its_own_anchor_whose_light_changes():
    light = torch.linspace(1, 0.7, FRAMES)[:, None, None, None]
    drifted = speaker(torch.tensor([0.0, 6.0, 0.0])) * light
    after = held(drifted, TRUE * light)
    assert away(after, TRUE * light).mean() < 0.4 * away(drifted, TRUE * light).mean()


@pytest.mark.parametrize("size", [(96, 96), (17, 130), (8, 8), (1, 1)])
@pytest.mark.parametrize("kind", ["black", "gray", "noise", "monochrome", "fade", "cut", "leaves"])
def test_any_video_gives_pictures(kind, size):
    torch.manual_seed(0)
    noise = torch.rand(9, *size, 3)
    share = torch.linspace(1, 0, 9)[:, None, None, None]
    video = {
        "black": torch.zeros(9, *size, 3),
        "gray": torch.full((9, *size, 3), 0.5),
        "noise": noise,
        "monochrome": noise.mean(-1, keepdim=True).expand(-1, -1, -1, 3),
        "fade": noise[:1] * share,
        "cut": torch.cat((noise[:4], 1 - noise[4:])),
        "leaves": torch.stack([noise[0].roll(i * 7, 1) for i in range(9)]),
    }[kind]
    for anchor in (noise[0], video, torch.rand(5, 7, 3)):
        after = held(video, anchor, over=5)
        assert after.shape == video.shape and after.isfinite().all()
        assert after.min() >= 0 and after.max() <= 1


def test_what_is_half_precision_or_wrong_is_treated_as_by_the_other_hold():
    drifted = speaker(torch.tensor([0.0, 6.0, 0.0]))[:5]
    assert held(drifted.half(), TRUE[0]).dtype == torch.float16
    before = drifted.clone()
    held(drifted, TRUE[0])
    assert torch.equal(drifted, before)
    for wrong in ({"strength": 2.0}, {"over": 2}):
        with pytest.raises(InputError):
            held(drifted, TRUE[0], **wrong)
    with pytest.raises(InputError, match="3 frames need 1 anchor picture"):
        held(drifted[:3], TRUE[:2])


@pytest.mark.parametrize("pinned", [False, True])
def test_a_run_that_goes_on_has_the_same_bits(pinned):
    source = PictureBatch(TRUE[:, ::3, ::2])
    options = {"pinned": Pinned(torch.ones(1, 32, 48), 0.0)} if pinned else {}
    hold = ColorHold(1.0, by=HoldBy.REGION)
    job = make_job(source, 29, ReferenceSettings(Policy.CHUNK_START), color=hold, **options)
    whole = list(dub(job, PlainModels()))
    assert len(whole) > 2
    last = list(dub(job, PlainModels(), context=whole[0].context, plan=job.plan[1:]))
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(whole[1:], last, strict=True))
    by_picture = replace(job, sampling=replace(job.sampling, color=ColorHold(1.0)))
    other = list(dub(by_picture, PlainModels()))
    assert not torch.equal(whole[0].frames, other[0].frames)


def test_a_true_video_that_was_encoded_is_left_as_it_is(tmp_path):
    pytest.importorskip("cv2", reason="drawn speakers need OpenCV")
    from benchmarks.sight import UNSEEN, delivered, drawn
    from evaluation.sync import correlation, mouth_opening

    true = drawn(UNSEEN + 2).frames
    file = delivered(true, tmp_path).frames[:66]
    after = held(file, true[0])
    assert away(after, file).max() < 0.5
    wanted = mouth_opening(true[:66])
    assert correlation(mouth_opening(after), wanted) > correlation(mouth_opening(file), wanted) - 0.005


def test_a_drift_put_into_a_drawn_speaker_is_more_than_halved_and_the_lips_stay():
    pytest.importorskip("cv2", reason="drawn speakers need OpenCV")
    from benchmarks.sight import UNSEEN, drawn
    from benchmarks.sight_faults import turned
    from evaluation.sync import correlation, mouth_opening
    from evaluation.temporal import block_colors, flicker

    video = drawn(UNSEEN + 3)
    true, wall, clothes = video.frames[:50], video.wall[:50].float(), video.clothes[:50].float()
    drifted = turned(turned(true, wall, 6.0, 20.0), clothes, 12.0)
    after = held(drifted, true[0])
    for part in (wall > 0.5, clothes > 0.5):
        assert away(after, true)[part].mean() < 0.4 * away(drifted, true)[part].mean()
    assert away(after, true)[(wall + clothes) < 0.5].mean() < 1
    assert correlation(mouth_opening(after), mouth_opening(true)) > 0.99
    least, most = flicker(block_colors(true)), flicker(block_colors(after))
    assert least is not None and most is not None and most < least + 0.02

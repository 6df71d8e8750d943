"""How a mouth follows a voice is measured from pixels, and means what its paragraph says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from evaluation.sync import MOUTH_COLOR, correlation, mouth_opening, shuffled, sync
from infinitetalk_core.errors import InputError


def wave(frames: int, seed: int = 0) -> np.ndarray:
    return np.convolve(np.random.default_rng(seed).normal(size=frames + 4), np.ones(5) / 5, "valid")


def through_a_codec(frames: torch.Tensor, shift: float) -> torch.Tensor:
    """Softer, noisier, and of slightly other colors."""
    row = torch.tensor([1.0, 2, 1]) / 4
    soft = conv2d(frames.permute(0, 3, 1, 2), (row[:, None] * row).expand(3, 1, 3, 3), padding=1, groups=3)
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)) * 4 / 255
    return (soft.permute(0, 2, 3, 1) + noise + shift * torch.tensor([1.0, -1, 1]) / 255).clamp(0, 1)


@pytest.mark.parametrize("late", [-3, 0, 1, 5])
def test_lag_is_positive_where_the_mouth_is_late(late):
    voice = wave(120)
    found = sync(np.roll(voice, late), voice)
    assert found.lag == late
    assert found.best == pytest.approx(1, abs=1e-6)
    assert (found.correlation > 0.99) == (late == 0)


def test_scale_and_offset_of_the_opening_do_not_matter():
    assert sync(0.01 * wave(60) + 0.2, wave(60)).correlation == pytest.approx(1)


def test_a_mouth_that_never_moves_is_no_lip_sync():
    found = sync(np.full(60, 0.1), wave(60))
    assert (found.correlation, found.lag) == (0.0, 0)


def test_tracks_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="as many frames"):
        sync(wave(60), wave(61))
    with pytest.raises(InputError, match="at least 18 frames"):
        sync(wave(17), wave(17))
    with pytest.raises(InputError, match="longer than 2 s"):
        shuffled(wave(50))


def test_shuffled_voice_is_the_same_voice_a_second_or_more_away():
    voice = np.arange(80.0)
    for seed in range(20):
        other = shuffled(voice, seed)
        assert sorted(other) == list(voice)
        assert 25 <= other[0] <= 55
    assert (shuffled(voice, 3) == shuffled(voice, 3)).all()


def test_no_frames_no_opening_and_no_picture_no_frames():
    assert len(mouth_opening(torch.zeros(0, 8, 8, 3))) == 0
    with pytest.raises(InputError, match="frames"):
        mouth_opening(torch.zeros(8, 8, 3))


def test_the_mouth_of_unseen_speakers_is_read_from_pixels():
    pytest.importorskip("cv2", reason="drawn speakers need OpenCV")
    from tests.support.drawn_speakers import UNSEEN, draw, random_voice, true_camera
    from training.characters import MOUTH_INTERIOR

    assert MOUTH_COLOR == MOUTH_INTERIOR
    for number in range(16):
        voice = random_voice(75, number)
        camera = true_camera(number, 75)[0] if number % 2 else None
        frames = draw(UNSEEN + number, voice, number, camera)
        clean = sync(mouth_opening(frames), voice.opening)
        assert clean.correlation >= 0.96, f"speaker {number}"
        assert clean.lag == 0
        for shift in (-5, 5):
            seen = mouth_opening(through_a_codec(frames, shift))
            assert correlation(seen, voice.opening) >= 0.94, f"speaker {number} through a codec, {shift:+}"
        assert abs(correlation(mouth_opening(frames), shuffled(voice.opening, number))) < 0.5

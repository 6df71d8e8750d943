"""The camera's movement is found in pixels, whatever the speaker in front of it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.camera_motion import CameraTrack, camera_error, measure_camera
from infinitetalk_core.errors import InputError


def track(shift_x: list[float], scale: list[float]) -> CameraTrack:
    zero = np.zeros(len(scale))
    return CameraTrack(np.array(shift_x), zero, np.array(scale), zero)


def test_camera_error_is_in_percent():
    error = camera_error(track([0, 0.02], [1, 1.1]), track([0, 0.0], [1, 1.0]))
    assert error.shift == pytest.approx(2 / 2**0.5)
    assert error.scale == pytest.approx(10 / 2**0.5)


def test_a_still_picture_has_a_still_camera_also_where_its_light_changes():
    torch.manual_seed(0)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 9) * 0.5, size=(64, 64), mode="bilinear")
    light = torch.linspace(0, 0.15, 12)[:, None, None, None]
    camera = measure_camera(picture[0].permute(1, 2, 0).expand(12, -1, -1, -1) + light)
    assert np.abs(camera.shift_x).max() < 1e-3
    assert np.abs(camera.scale - 1).max() < 1e-3


def test_a_scene_without_texture_counts_as_still():
    camera = measure_camera(torch.full((7, 48, 64, 3), 0.4))
    assert (camera.shift_x == 0).all()
    assert (camera.scale == 1).all()


def test_no_frames_are_refused():
    with pytest.raises(InputError, match="frames"):
        measure_camera(torch.zeros(0, 8, 8, 3))
    with pytest.raises(InputError, match="at least one frame"):
        camera_error(track([], []), track([], []))


def test_cameras_of_drawn_scenes_are_found_behind_a_moving_speaker():
    pytest.importorskip("cv2", reason="drawn speakers need OpenCV")
    from tests.support.drawn_speakers import UNSEEN, draw, random_voice, true_camera

    found, as_if_still = [], []
    for number in range(10):
        voice = random_voice(100, number)
        move, truth = true_camera(UNSEEN + number, 100)
        camera = measure_camera(draw(UNSEEN + number, voice, number, move))
        still = track([0.0] * 100, [1.0] * 100)
        found.append(camera_error(camera, truth))
        as_if_still.append(camera_error(still, truth))
    pixels = [error.shift * 0.96 for error in found]
    assert np.median(pixels) < 0.3, f"{pixels} pixels of 96"
    assert max(pixels) < 1.5, f"{pixels} pixels of 96"
    assert np.mean(pixels) < 0.25 * np.mean([error.shift * 0.96 for error in as_if_still])
    assert np.mean([e.scale for e in found]) < 0.4 * np.mean([e.scale for e in as_if_still])


def test_a_camera_that_does_not_follow_shows_in_the_error():
    pytest.importorskip("cv2", reason="drawn speakers need OpenCV")
    from tests.support.drawn_speakers import UNSEEN, draw, random_voice, true_camera

    voice = random_voice(100, 1)
    move, truth = true_camera(UNSEEN + 1, 100)
    follows, still = (camera_error(measure_camera(draw(UNSEEN + 1, voice, 5, m)), truth) for m in (move, None))
    assert still.shift > 5 * follows.shift
    assert still.scale > 3 * follows.scale

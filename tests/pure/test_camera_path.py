"""A camera path: where the camera is in each frame, and what Uni3C is told about it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk_core.camera.embedding import camera_embedding, camera_rays, normalize_cameras
from infinitetalk_core.camera.path import (
    PRESETS,
    Cameras,
    Move,
    camera_path,
    dolly,
    orbit,
    orbit_radius,
    pan,
    picture_intrinsics,
    zoom,
)
from infinitetalk_core.errors import InputError

torch.set_num_threads(1)
LENS = picture_intrinsics(48, 64, 53.13010235415598)  # focal length 64 pixels

moves = st.builds(
    Move,
    d_r=st.floats(0.25, 2.5),
    d_theta=st.floats(-90, 30),
    d_phi=st.floats(-360, 360),
    x_offset=st.floats(-0.5, 0.5),
    y_offset=st.floats(-0.5, 0.5),
    z_offset=st.floats(-0.5, 0.5),
    focal_length=st.floats(0.25, 2.5),
)


def _positions(cameras: Cameras) -> torch.Tensor:
    """(F, 3) where the cameras stand."""
    return torch.linalg.inv(cameras.world_to_camera)[:, :3, 3]


@settings(max_examples=60, deadline=None)
@given(moves | st.sampled_from(list(PRESETS.values())), st.integers(1, 30), st.floats(0.01, 1000))
def test_every_path_begins_at_the_pictures_own_camera_and_never_bends_space(path, frames, radius):
    cameras = camera_path(path, frames, radius, LENS)
    assert cameras.frames == frames and cameras.at_source(0)
    torch.testing.assert_close(cameras.intrinsics[0], LENS)
    assert math.isclose(_positions(cameras)[0].norm(), radius, rel_tol=1e-9)
    turn = cameras.world_to_camera[:, :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).double().expand(frames, 3, 3), atol=1e-9, rtol=0)
    assert torch.allclose(torch.linalg.det(turn), torch.ones(frames).double())


def test_the_path_reaches_its_end_in_the_last_frame():
    cameras = camera_path(Move(x_offset=0.25, d_r=2.0, focal_length=1.5), 11, 4.0, LENS, start_elevation=0)
    assert _positions(cameras)[-1].tolist() == pytest.approx([0.25 * 4 * 2, 0, -4 * 2])
    assert _positions(cameras)[5].tolist() == pytest.approx([0.125 * 4 * 1.5, 0, -4 * 1.5])
    assert cameras.intrinsics[-1, 0, 0] == pytest.approx(96) and cameras.intrinsics[-1, 0, 2] == 32


def test_an_orbit_looks_at_its_center_from_the_same_distance_all_the_way():
    cameras = camera_path(orbit(-360.0, -15.0), 25, 3.0, LENS)
    center = cameras.world_to_camera[:, :3, 3]
    torch.testing.assert_close(center, torch.tensor([0.0, 0.0, 3.0]).double().expand(25, 3))
    assert torch.allclose(camera_path(orbit(-360.0), 25, 3.0, LENS).world_to_camera[-1], cameras.world_to_camera[0])


def test_signs_are_the_originals():
    def end(path: Move) -> list[float]:
        return _positions(camera_path(path, 2, 1.0, LENS, start_elevation=0))[-1].tolist()

    assert end(pan(x_offset=0.5))[0] == 0.5 and end(pan(y_offset=0.5))[1] == 0.5  # right; down
    assert end(Move(z_offset=0.5))[2] == -0.5  # forward, to the center
    assert end(orbit(-90.0)) == pytest.approx([1, 0, 0], abs=1e-12)  # around to the right
    assert end(orbit(0.0, -90.0)) == pytest.approx([0, -1, 0], abs=1e-12)  # up
    assert end(dolly(0.5)) == pytest.approx([0, 0, -0.5])
    above = _positions(camera_path(Move(), 1, 1.0, LENS, start_elevation=5.0))[0]
    assert above[1] == pytest.approx(-math.sin(math.radians(5)))


def test_a_swing_goes_where_the_originals_curve_goes_and_comes_back():
    cameras = camera_path(PRESETS["swing1"], 81, 1.0, LENS, start_elevation=0)
    distance = _positions(cameras).norm(dim=1)
    torch.testing.assert_close(distance, torch.linspace(1, 1.2, 81).double())
    # Angles around and up that the original's txt_interpolation gives at a quarter, a half and three quarters.
    for frame, phi, theta in ((20, -15.2878, -18.4098), (40, -29.7404, -5.8287), (60, -14.2219, 3.2343)):
        x, y, z = (_positions(cameras)[frame] / distance[frame]).tolist()
        assert math.degrees(math.atan2(x, -z)) == pytest.approx(-phi, abs=1e-3)
        assert math.degrees(math.asin(y)) == pytest.approx(theta, abs=1e-3)
    assert torch.allclose(cameras.world_to_camera[-1, :3, :3], torch.eye(3).double())


def test_after_the_paths_end_its_last_camera_stays():
    cameras = camera_path(orbit(-30.0), 5, 1.0, LENS)
    window = cameras.window(slice(3, 9))
    assert window.frames == 6
    assert torch.equal(window.world_to_camera[0], cameras.world_to_camera[3])
    assert all(torch.equal(window.world_to_camera[i], cameras.world_to_camera[4]) for i in range(1, 6))


def test_the_center_lies_in_the_foreground_unless_there_is_hardly_any():
    depth = torch.full((10, 10), 5.0)
    depth[:4, :4] = 2.0
    person = depth == 2.0
    assert orbit_radius(depth) == 5.0
    assert orbit_radius(depth, person) == 2.0
    person[:] = False
    person[0, 0] = True
    assert orbit_radius(depth, person) == 5.0


@settings(max_examples=40, deadline=None)
@given(moves | st.sampled_from(list(PRESETS.values())), st.integers(1, 12), st.floats(0.01, 1000))
def test_the_embedding_is_finite_and_made_of_rays(path, frames, radius):
    rays = camera_embedding(camera_path(path, frames, radius, LENS), slice(0, frames), (48, 64), (6, 8))
    assert rays.shape == (frames, 6, 6, 8) and torch.isfinite(rays).all()
    direction, moment = rays[:, :3], rays[:, 3:]
    assert torch.allclose(direction.norm(dim=1), torch.ones(frames, 6, 8), atol=1e-5)
    assert (direction * moment).sum(1).abs().max() < 1e-4 * max(1, float(moment.abs().max()))


def test_the_first_cameras_rays_are_the_lens_seen_straight():
    cameras = camera_path(PRESETS["free1"], 9, 3.0, LENS)
    rays = camera_embedding(cameras, slice(0, 9), (48, 64), (96, 128))  # twice the size: focal 128, center (64, 48)
    row, column = 10, 100
    want = torch.tensor([(column - 0.5 - 64) / 128, (row + 0.5 - 48) / 128, 1.0])  # the original's half pixels
    torch.testing.assert_close(rays[0, :3, row, column], want / want.norm())


def test_a_moment_is_position_times_direction():
    pose = torch.eye(4).double()[None]
    pose[0, :3, 3] = torch.tensor([-1.0, 0, 0])  # the camera stands at x = 1
    rays = camera_rays(pose, LENS, 48, 64)[0]
    x, y, z = rays[:3, 20, 30].tolist()
    assert rays[3:, 20, 30].tolist() == pytest.approx([0, -z, y])
    assert x < 0 < z and y < 0


def test_the_embedding_does_not_depend_on_the_unit_of_depth():
    small, large = (camera_path(PRESETS["free4"], 9, radius, LENS) for radius in (0.5, 500.0))
    torch.testing.assert_close(
        normalize_cameras(small.world_to_camera), normalize_cameras(large.world_to_camera), atol=1e-6, rtol=0
    )
    first = torch.linalg.inv(normalize_cameras(small.world_to_camera))[0]
    assert first[:3, 3].norm() == pytest.approx(2.0)
    assert torch.allclose(first[:3, :3], torch.eye(3).double())


def test_a_camera_that_stands_still_has_no_moment():
    cameras = camera_path(orbit(-30.0), 5, 2.0, LENS)
    rays = camera_embedding(cameras, slice(50, 55), (48, 64), (48, 64))
    assert torch.equal(rays[:, 3:].abs().max(), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dolly(0.0), "d_r .* above 0, got 0.0"),
        (lambda: zoom(-1.0), "focal_length .* above 0"),
        (lambda: orbit(math.nan), "d_phi .* must be a number"),
        (lambda: camera_path(Move(), 0, 1.0, LENS), "at least one frame, got 0"),
        (lambda: camera_path(Move(), 5, 0.0, LENS), "distance to the center .* above 0"),
        (lambda: camera_path(Move(), 5, 1.0, LENS[:2]), "3 x 3"),
        (lambda: picture_intrinsics(48, 64, 180.0), "between 0 and 180 degrees, got 180.0"),
        (lambda: picture_intrinsics(0, 64, 50.0), "at least one pixel"),
        (lambda: camera_path(Move(), 5, 1.0, LENS).window(slice(3, 3)), "start to stop"),
        (lambda: camera_path(Move(), 5, 1.0, LENS).window(slice(-1, 3)), "start to stop"),
        (lambda: camera_path(Move(), 5, 1.0, LENS).window(slice(0, None)), "start to stop"),
        (lambda: Cameras(torch.zeros(2, 4, 4), torch.zeros(1, 3, 3)), "same F"),
        (lambda: orbit_radius(torch.ones(4, 4), torch.ones(4, 5)), "depth map's size"),
        (lambda: camera_embedding(camera_path(Move(), 5, 1.0, LENS), slice(0, 5), (48, 64), (0, 8)), "one pixel"),
    ],
)
def test_what_cannot_be_a_path_is_said_in_one_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()

"""What the moving camera sees: shifts, sizes and what hides what, against geometry done by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk_core.camera.depth import depth_from_picture, draw_in
from infinitetalk_core.camera.path import (
    PRESETS,
    Cameras,
    Move,
    camera_path,
    dolly,
    orbit,
    pan,
    picture_intrinsics,
    zoom,
)
from infinitetalk_core.camera.render import PathRenderer, Warped
from infinitetalk_core.errors import InputError

torch.set_num_threads(1)
HEIGHT, WIDTH, FOCAL = 48, 64, 64.0
LENS = picture_intrinsics(HEIGHT, WIDTH, 53.13010235415598)
ROW, COLUMN = torch.meshgrid(torch.arange(HEIGHT).float(), torch.arange(WIDTH).float(), indexing="ij")
RAMP = torch.stack((COLUMN / WIDTH, ROW / HEIGHT, torch.zeros_like(ROW)), dim=-1)  # a color tells where it comes from


def _noise(seed: int = 0) -> torch.Tensor:
    return torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(seed))


def _last(picture: torch.Tensor, depth: torch.Tensor | float, path: Move, radius: float = 4.0) -> Warped:
    """The last frame of a two-frame path, level with the picture."""
    depth = torch.full((HEIGHT, WIDTH), depth) if isinstance(depth, float) else depth
    cameras = camera_path(path, 2, radius, LENS, start_elevation=0)
    return PathRenderer(picture, depth, cameras).render(slice(1, 2))


def _came_from(warped: Warped) -> tuple[torch.Tensor, torch.Tensor]:
    """Column and row of the ramp picture that each seen pixel shows; both in pixels."""
    return warped.frames[0, ..., 0] * WIDTH, warped.frames[0, ..., 1] * HEIGHT


@pytest.mark.parametrize("depth", [2.0, 4.0, 8.0])
def test_a_pan_shifts_a_wall_by_exactly_focal_times_way_over_depth(depth):
    picture = _noise()
    way = 0.5  # to the right, 4 · 0.125
    shift = round(FOCAL * way / depth)  # 16, 8, 4 pixels to the left
    warped = _last(picture, depth, pan(x_offset=0.125))
    torch.testing.assert_close(warped.frames[0, :, : WIDTH - shift], picture[:, shift:], atol=1e-4, rtol=0)
    assert warped.seen[0, :, : WIDTH - shift].min() == 1
    assert warped.seen[0, :, WIDTH - shift :].max() == 0
    assert (warped.frames[0, :, WIDTH - shift :] == 0.5).all()
    assert torch.equal(warped.holes, 1 - warped.seen)


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(2, 20))
def test_any_small_pan_shifts_a_wall_by_focal_times_way_over_depth(x, y, depth):
    warped = _last(RAMP, float(depth), pan(x, y))
    column, row = _came_from(warped)
    inside = torch.nn.functional.max_pool2d(warped.holes, 3, stride=1, padding=1)[0] == 0
    inside[[0, -1]] = inside[:, [0, -1]] = False
    assert inside.any()
    assert ((column - COLUMN)[inside] - FOCAL * 4 * x / depth).abs().max() < 0.01
    assert ((row - ROW)[inside] - FOCAL * 4 * y / depth).abs().max() < 0.01


@pytest.mark.parametrize(
    ("path", "depth", "factor"),
    [
        (zoom(1.5), 7.0, 1.5),
        (zoom(0.5), 7.0, 0.5),
        (dolly(0.5), 4.0, 2.0),  # the wall at the center: the inverse of the distance
        (dolly(1.6), 4.0, 1 / 1.6),
        (dolly(0.5), 8.0, 8 / 6),  # a wall behind the center: z / (z − way), way 2
        (Move(z_offset=0.25), 4.0, 4 / 3),
        (dolly(0.35), 4.0, 1 / 0.35),
    ],
)
def test_zoom_and_dolly_scale_a_wall_by_the_factor_of_the_textbook(path, depth, factor):
    warped = _last(RAMP, depth, path)
    column, row = _came_from(warped)
    whole = warped.seen[0, HEIGHT // 2].sum(), warped.seen[0, :, WIDTH // 2].sum()
    assert whole[0] == pytest.approx(min(WIDTH * factor, WIDTH), abs=1)
    assert whole[1] == pytest.approx(min(HEIGHT * factor, HEIGHT), abs=1)
    assert warped.seen.sum() == whole[0] * whole[1]  # no crack
    inside = warped.seen[0] == 1
    middle_x, middle_y = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    far_off = 0.51 if factor > 1 else 0.26  # at the wall's border there is no neighbor to blend with
    assert (column - middle_x - (COLUMN - middle_x) / factor)[inside].abs().max() < far_off
    inner = inside & ((COLUMN - middle_x).abs() < 8) & ((ROW - middle_y).abs() < 8)
    least = 0.01 if factor > 1 else 0.26
    assert (column - middle_x - (COLUMN - middle_x) / factor)[inner].abs().max() < least
    assert (row - middle_y - (ROW - middle_y) / factor)[inner].abs().max() < least


def test_a_near_square_hides_what_is_behind_it_and_leaves_a_hole_where_it_was():
    depth = torch.full((HEIGHT, WIDTH), 4.0)
    depth[14:34, 30:46] = 2.0
    picture = RAMP.clone()
    picture[14:34, 30:46] = torch.tensor([0.0, 0.0, 1.0])
    warped = _last(picture, depth, pan(x_offset=0.125))  # near goes 16 to the left, far 8
    inside = slice(16, 32)
    assert (warped.frames[0, inside, 15:29] == torch.tensor([0.0, 0.0, 1.0])).all()  # the square, in front
    assert warped.seen[0, inside, 15:29].min() == 1
    assert warped.seen[0, inside, 30:38].max() == 0  # behind it nothing is known
    assert (warped.frames[0, inside, 30:38] == 0.5).all()
    torch.testing.assert_close(warped.frames[0, inside, 2:13], RAMP[inside, 10:21], atol=1e-4, rtol=0)
    torch.testing.assert_close(warped.frames[0, inside, 40:55], RAMP[inside, 48:63], atol=1e-4, rtol=0)


def test_of_two_squares_the_nearer_one_wins_whichever_comes_first_in_the_picture():
    for near, far in (((4, 20), (26, 44)), ((44, 60), (20, 38))):
        depth = torch.full((HEIGHT, WIDTH), 16.0)
        picture = torch.zeros(HEIGHT, WIDTH, 3)
        depth[10:38, far[0] : far[1]], depth[10:38, near[0] : near[1]] = 4.0, 1.0
        picture[10:38, far[0] : far[1], 1], picture[10:38, near[0] : near[1], 0] = 1.0, 1.0
        sign = -1 if near < far else 1
        warped = _last(picture, depth, pan(x_offset=sign * 0.09375))  # 0.375: the near one goes 24, the far one 6
        start, stop = near[0] - sign * 24 + 1, near[1] - sign * 24 - 1
        assert (warped.frames[0, 12:36, start:stop] == torch.tensor([1.0, 0, 0])).all()


def test_the_pictures_own_camera_sees_the_picture_and_no_hole():
    picture, depth = _noise(), _noise(1)[..., 0] + 0.5  # jumps everywhere
    warped = PathRenderer(picture, depth, camera_path(Move(), 3, 1.0, LENS)).render(slice(0, 3))
    assert torch.equal(warped.frames, picture.expand(3, -1, -1, -1))
    assert warped.seen.min() == 1


def test_a_camera_that_hardly_moves_sees_the_picture_too():
    warped = _last(_noise(), 3.0, pan(x_offset=1e-6))
    torch.testing.assert_close(warped.frames[0], _noise(), atol=1e-3, rtol=0)
    assert warped.seen.min() == 1


def test_an_orbit_keeps_the_center_in_the_center_of_the_frame():
    picture = torch.zeros(HEIGHT, WIDTH, 3)
    picture[22:26, 30:34] = 1.0
    cameras = camera_path(orbit(-60.0, -15.0), 9, 4.0, LENS)
    frames = PathRenderer(picture, torch.full((HEIGHT, WIDTH), 4.0), cameras).render(slice(0, 9)).frames
    light = (frames[..., 0] * (frames[..., 2] != 0.5)).double()
    for frame in light:
        assert (frame * COLUMN).sum() / frame.sum() == pytest.approx((WIDTH - 1) / 2, abs=0.25)
        assert (frame * ROW).sum() / frame.sum() == pytest.approx((HEIGHT - 1) / 2, abs=0.25)


def test_a_slanted_wall_that_turns_to_the_camera_gets_no_cracks():
    rays = (COLUMN + 0.5 - WIDTH / 2) / FOCAL
    depth = 4 / (1 - rays)  # a wall turned by 45 degrees
    warped = PathRenderer(_noise(), depth, camera_path(orbit(-45.0), 2, 4.0, LENS, 0)).render(slice(1, 2))
    seen = warped.seen[0]
    middle = seen[:, WIDTH // 2 - 8 : WIDTH // 2 + 8]
    assert seen.mean() > 0.5
    assert middle[4:-4].min() == 1


def test_windows_one_after_the_other_are_the_whole_path_and_its_end_stays():
    depth = _noise(1)[..., 0] * 0.2 + 2
    renderer = PathRenderer(_noise(), depth, camera_path(PRESETS["free1"], 7, 2.0, LENS))
    whole = renderer.render(slice(0, 10))
    parts = [renderer.render(slice(a, b)) for a, b in ((0, 1), (1, 5), (5, 8), (8, 10))]
    assert torch.equal(whole.frames, torch.cat([part.frames for part in parts]))
    assert torch.equal(whole.seen, torch.cat([part.seen for part in parts]))
    assert torch.equal(whole.frames[6], whole.frames[9]) and not torch.equal(whole.frames[5], whole.frames[6])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.05, 1000),
    st.floats(0, 50),
    st.sampled_from(["rough", "flat", "deep"]),
)
def test_no_camera_whatsoever_makes_anything_but_colors(seed, focal, way, kind):
    chance = torch.Generator().manual_seed(seed)
    picture = torch.rand(12, 16, 3, generator=chance)
    depth = {"rough": torch.rand(12, 16, generator=chance) + 0.01, "flat": torch.ones(12, 16)}.get(
        kind, torch.rand(12, 16, generator=chance) * 1e4 + 1e-3
    )
    pose = torch.eye(4).double().repeat(3, 1, 1)
    pose[:, :3, :3] = torch.linalg.qr(torch.randn(3, 3, 3, generator=chance).double())[0]
    pose[:, :3, 3] = torch.randn(3, 3, generator=chance) * way
    lens = torch.tensor([[focal, 0, 8], [0, focal, 6], [0, 0, 1.0]]).double().repeat(3, 1, 1)
    warped = PathRenderer(picture, depth, Cameras(pose, lens)).render(slice(0, 4))
    assert torch.isfinite(warped.frames).all() and torch.isfinite(warped.seen).all()
    assert warped.frames.min() >= 0 and warped.frames.max() <= 1 + 1e-5
    assert ((warped.seen == 0) | (warped.seen == 1)).all()
    assert (warped.frames[warped.seen == 0] == 0.5).all()


def test_what_is_behind_the_camera_is_not_seen():
    depth = torch.full((HEIGHT, WIDTH), 8.0)
    depth[:, 28:36] = 1.0
    picture = torch.zeros(HEIGHT, WIDTH, 3)
    picture[:, 28:36, 0] = 1.0
    warped = _last(picture, depth, Move(z_offset=0.5))  # 2 forward, past the bar
    assert warped.frames[0][warped.seen[0] > 0][:, 0].max() == 0


def test_the_sky_is_drawn_in_to_twice_eight_medians_and_the_rest_stays():
    depth = torch.tensor([[1.0, 2.0, 2.0, 16.0, 32.0, 1e9]])
    torch.testing.assert_close(draw_in(depth), torch.tensor([[1.0, 2.0, 2.0, 16.0, 24.0, 32.0]]))


def test_a_pan_moves_the_sky_as_if_it_were_sixteen_medians_away():
    depth = torch.full((HEIGHT, WIDTH), 4.0)
    depth[:10] = 1e9
    warped = _last(_noise(), depth, pan(x_offset=0.5))  # 2 to the right: the sky goes 64 · 2 / 64 to the left
    torch.testing.assert_close(warped.frames[0, :8, : WIDTH - 2], _noise()[:8, 2:], atol=1e-3, rtol=0)


def test_a_zoom_beyond_the_widest_cell_has_no_cracks_yet():
    warped = _last(RAMP, 7.0, zoom(5.0))
    assert warped.seen[0, 2:-2, 2:-2].min() == 1
    assert (_came_from(warped)[0] - 31.5 - (COLUMN - 31.5) / 5)[2:-2, 2:-2].abs().max() < 0.25


def test_bright_is_near_and_even_in_disparity_or_far_and_even_in_depth():
    gray = torch.tensor([[0.0, 0.5, 1.0]])
    assert depth_from_picture(gray, 1.0, 4.0, inverse=True)[0].tolist() == pytest.approx([4.0, 1.6, 1.0])
    assert depth_from_picture(gray, 1.0, 4.0, inverse=False)[0].tolist() == pytest.approx([1.0, 2.5, 4.0])
    image = gray[None, ..., None].expand(1, 1, 3, 3)
    assert depth_from_picture(image, 1.0, 4.0, inverse=True).shape == (1, 3)
    assert depth_from_picture(torch.full((4, 4), 0.3), 1.0, 4.0, inverse=True).unique().numel() == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: depth_from_picture(torch.zeros(2, 4, 4, 3), 1, 2, True), "one picture .* take one frame"),
        (lambda: depth_from_picture(torch.zeros(0, 4), 1, 2, True), "one picture"),
        (lambda: depth_from_picture(torch.zeros(4, 4), 0, 2, True), "above 0 and in this order, got 0 and 2"),
        (lambda: depth_from_picture(torch.zeros(4, 4), 3, 2, True), "in this order, got 3 and 2"),
        (lambda: depth_from_picture(torch.full((4, 4), torch.nan), 1, 2, True), "NaN"),
        (lambda: _last(_noise(), torch.ones(4, 4), Move()), r"picture's size \(48, 64\), got \(4, 4\)"),
        (lambda: _last(_noise(), torch.zeros(HEIGHT, WIDTH), Move()), "above 0 and finite"),
        (lambda: _last(_noise()[None], 1.0, Move()), "3 colors"),
    ],
)
def test_a_picture_or_depth_of_the_wrong_kind_is_refused_in_one_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()

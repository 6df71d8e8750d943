"""The drawn speakers that the small models learn from: what is known about a picture is what is seen in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from infinitetalk_core.errors import InputError  # noqa: E402
from training.articulation import Articulation  # noqa: E402
from training.characters import make_character  # noqa: E402
from training.performance import (  # noqa: E402
    Performance,
    move_camera,
    perform,
    silent_performance,
    still_camera,
)
from training.render import MOUTH_INTERIOR, PARTS, part_masks, render  # noqa: E402

SEEDS = [*range(24), *range(1_000_000, 1_000_012)]


def speech(frames: int, seed: int) -> Articulation:
    """Syllables of 120 to 320 ms with pauses."""
    rng = np.random.Generator(np.random.PCG64(seed))
    opening, width = np.zeros(0), np.zeros(0)
    while len(opening) < frames:
        length = int(rng.integers(4, 9))
        syllable = np.sin(np.pi * np.arange(length) / length)
        opening = np.append(opening, rng.uniform(0.2, 1) * (rng.random() < 0.85) * syllable)
        width = np.append(width, rng.uniform(-1, 1) * syllable)
    opening, width = opening[:frames].astype(np.float32), width[:frames].astype(np.float32)
    return Articulation(opening=opening, width=width, energy=np.sqrt(opening))


def nearness(pictures: np.ndarray) -> np.ndarray:
    """How much of every pixel is the inside of a mouth, 0 to 1."""
    distance = np.linalg.norm(pictures.astype(np.float32) - np.float32(MOUTH_INTERIOR), axis=-1)
    return np.clip(1.5 - distance / 36, 0, 1)


def posed(frames: int, **tracks: np.ndarray | float) -> Performance:
    """Somebody who looks straight ahead, apart from what is said."""
    silent = silent_performance(frames, 0)
    zero = {name: np.zeros(frames, np.float32) for name in silent.__dataclass_fields__}
    said = {name: np.broadcast_to(np.float32(track), frames) for name, track in tracks.items()}
    return replace(silent, **{**zero, **said})


def box_of_mouth(picture: np.ndarray) -> tuple[int, int]:
    """Width and height in pixels of all that is not lips: inside, teeth and tongue lie within the dark."""
    rows, columns = np.nonzero(nearness(picture) > 0.5)
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def test_the_same_seeds_draw_the_same_bytes() -> None:
    performance, camera = perform(speech(20, 1), 5), move_camera(6, 20)
    first = render(make_character(4), performance, camera)
    again = render(make_character(4), perform(speech(20, 1), 5), move_camera(6, 20))
    assert first.dtype == np.uint8 and first.shape == (20, 96, 96, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, render(make_character(7), performance, camera))


def test_a_window_of_a_performance_shows_what_the_whole_shows_then() -> None:
    performance, camera = perform(speech(40, 2), 2), move_camera(2, 40)
    whole = render(make_character(2), performance, camera)
    part = render(make_character(2), performance.window(10, 25), camera.window(10, 25))
    assert np.array_equal(part, whole[10:25])
    apart = render(make_character(2), performance.at([33, 3]), camera.at([33, 3]))
    assert np.array_equal(apart, whole[[33, 3]])
    with pytest.raises(InputError, match="not in a performance of 40"):
        performance.window(30, 50)


def test_a_closed_mouth_shows_nothing_of_its_inside_and_nothing_else_has_its_color() -> None:
    worst = 0.0
    for seed in SEEDS:
        performance = replace(silent_performance(100, seed), hand=np.ones(100, np.float32))
        frames = np.arange(0, 100, 12)
        pictures = render(make_character(seed), performance.at(frames), move_camera(seed, 100).at(frames))
        worst = max(worst, float(nearness(pictures).sum(axis=(1, 2)).max()))
    assert worst < 1.0


@pytest.mark.parametrize("width", [-1.0, 0.0, 1.0])
def test_the_dark_in_the_mouth_grows_with_its_opening(width: float) -> None:
    opening = np.linspace(0, 1, 21, dtype=np.float32)
    for seed in SEEDS[::4]:
        dark = nearness(render(make_character(seed), posed(21, opening=opening, width=width), still_camera(21)))
        area = dark.sum(axis=(1, 2))
        assert area[0] < 0.5
        assert np.all(np.diff(area) > -2.5)  # the grid of pixels
        assert np.all(np.diff(area[2::2]) > 0)
        assert np.corrcoef(area, opening)[0, 1] > 0.95
        assert area[-1] > (30 if width < 0 else 60)


def test_an_open_mouth_is_large_and_its_width_is_seen() -> None:
    for seed in SEEDS[::4]:
        character = make_character(seed)
        pictures = render(character, posed(3, opening=1.0, width=np.array([-1, 0, 1])), still_camera(3))
        (narrow, _), (plain, _), (wide, _) = (box_of_mouth(picture) for picture in pictures)
        assert narrow + 3 < plain < wide
        assert 15 <= plain <= 22


def test_speech_is_read_back_from_the_pixels_while_the_head_moves() -> None:
    correlations = []
    for seed in SEEDS[::3]:
        talk = speech(75, seed)
        pictures = render(make_character(seed), perform(talk, seed), still_camera(75))
        correlations.append(np.corrcoef(nearness(pictures).sum(axis=(1, 2)), talk.opening)[0, 1])
    assert min(correlations) > 0.85
    assert np.mean(correlations) > 0.93


def test_heads_move_visibly_but_smoothly_and_eyes_blink() -> None:
    performance = perform(speech(1500, 9), 9)
    for name, least, step in (("yaw", 0.05, 0.04), ("pitch", 0.02, 0.04), ("roll", 0.01, 0.02)):
        track = getattr(performance, name)
        assert least < track.std() < 0.3
        assert np.abs(np.diff(track)).max() < step
    blinks = np.sum(np.diff((performance.blink > 0.5).astype(int)) == 1)
    assert 8 <= blinks <= 30
    assert np.abs(performance.yaw).max() <= 0.35


def test_who_listens_keeps_the_mouth_shut_and_still_moves() -> None:
    silent = silent_performance(250, 3)
    assert not silent.opening.any()
    assert silent.yaw.std() > 0.03 and silent.blink.max() == 1


def test_the_camera_moves_what_is_seen_by_what_it_says() -> None:
    character, performance = make_character(12), posed(2)
    camera = replace(still_camera(2), pan_x=np.float32([0, 4 / 96]), pan_y=np.float32([0, -3 / 96]))
    still, moved = render(character, performance, camera).astype(np.float32)
    face = still[20:70, 25:70]
    assert np.abs(moved[17:67, 29:74] - face).mean() < 3
    assert np.abs(moved[20:70, 25:70] - face).mean() > 8


def test_the_picture_is_the_same_at_any_size() -> None:
    performance = perform(speech(30, 1), 8).at([20])
    small = render(make_character(1_000_001), performance, still_camera(1), 96)[0]
    large = render(make_character(1_000_001), performance, still_camera(1), 480)[0]
    shrunk = cv2.resize(large, (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(np.float32) - small).mean() < 3


def test_a_camera_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match="must be equal"):
        render(make_character(0), posed(3), still_camera(4))


def test_the_masks_are_where_the_parts_are_drawn() -> None:
    """Each part has its character's color there; the parts do not overlap and leave only their borders."""
    for seed in SEEDS[::6]:
        character, performance = make_character(seed), perform(speech(40, seed), seed).at([0, 20])
        pictures = render(character, performance, still_camera(2))
        masks = part_masks(character, performance, still_camera(2))
        assert masks.shape == (2, len(PARTS), 96, 96)
        assert masks.sum(axis=1).max() == 1
        assert masks.any(axis=1).mean() > 0.9
        for part, color in (("skin", character.skin), ("clothes", character.shirt)):
            inside = pictures[masks[:, PARTS.index(part)]].astype(float)
            assert np.mean(np.abs(inside - color).max(axis=1) < 90) > 0.6, (seed, part)
        mouth = masks[:, PARTS.index("mouth")]
        assert (nearness(pictures)[~mouth].max()) < 0.9
        assert masks[:, PARTS.index("eyes")].any() or performance.blink.min() > 0.9


def test_masks_of_another_camera_or_size_fit_their_picture() -> None:
    performance, camera = perform(speech(30, 1), 8).at([20]), move_camera(8, 30).at([20])
    small = part_masks(make_character(3), performance, camera, 96)[0]
    large = part_masks(make_character(3), performance, camera, 192)[0]
    for part in ("skin", "wall", "clothes"):
        shrunk = cv2.resize(large[PARTS.index(part)].astype(np.float32), (96, 96), interpolation=cv2.INTER_AREA) > 0.9
        assert (shrunk != small[PARTS.index(part)]).mean() < 0.03

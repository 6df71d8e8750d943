"""Pictures and videos of every kind: what a player would show, in bounds, and nothing but the file itself is opened."""

from __future__ import annotations

import io
import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, features

from infinitetalk_core import media_file
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.picture import read_picture
from infinitetalk_core.video.source import PictureBatch, VideoFile, open_source
from tests.support.media_cases import (
    BLUE,
    GREEN,
    RED,
    jpeg_of,
    marked_picture,
    playlists,
    png_header,
    shades,
    solid,
    write_heic_grid,
    write_interlaced,
    write_jpegs,
    write_moving,
    write_mpo,
    write_pages,
    write_pixel_shape,
    write_sound,
    write_turned_mjpeg,
    write_two_videos,
)
from tests.support.numbered_video import make_video, numbers_of, steady


def close_to(picture: torch.Tensor, color: tuple[int, int, int], within: int = 12) -> bool:
    """Whether the middle of a picture (H, W, 3) in 0 … 1 has this color."""
    middle = picture[picture.shape[0] // 2, picture.shape[1] // 2] * 255
    return bool((middle - torch.tensor(color)).abs().max() <= within)


# Nothing but the file


@pytest.mark.parametrize("name", sorted(playlists(Path("x"))))
@pytest.mark.parametrize("as_stream", [False, True])
def test_a_file_that_names_other_files_is_refused_and_they_are_not_opened(tmp_path, name, as_stream):
    elsewhere = tmp_path / "elsewhere.ts"
    make_video(elsewhere, steady(25, 25))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    path.write_text(playlists(elsewhere)[name])
    with pytest.raises(InputError, match="cannot be opened as a video") as refused:
        VideoFile(io.BytesIO(path.read_bytes())) if as_stream else open_source(path)
    assert "\n" not in str(refused.value)


def test_a_video_that_refers_to_another_file_does_not_open_it(tmp_path):
    """QuickTime keeps a film's pictures in another file if it says so; the list of formats does not help there."""
    make_video(tmp_path / "film.mov", steady(5, 25))
    data = (tmp_path / "film.mov").read_bytes()
    at = data.index(b"url \0\0\0\1")  # "in this file"
    name = b"file:elsewhere.mov\0"
    changed = data[: at + 4] + b"\0\0\0\0" + data[at + 8 :]
    (tmp_path / "film.mov").write_bytes(changed + name)
    (tmp_path / "elsewhere.mov").write_bytes(data)
    opened: list[str] = []
    refuse = media_file._refuse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_file, "_refuse", lambda url, *rest: (opened.append(url), refuse(url, *rest)))
        try:
            VideoFile(tmp_path / "film.mov").close()
        except InputError as error:
            assert "film.mov" in str(error)
    assert not opened


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize("read", [open_source, VideoFile, read_picture])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, kind, read):
    path = tmp_path / "v.mp4"
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    said: list[str] = []

    def run() -> None:
        try:
            read(path)
        except InputError as error:
            said.append(str(error))

    reader = threading.Thread(target=run, daemon=True)
    reader.start()
    reader.join(10)
    assert said and f"is a {kind}" in said[0]


# Bounds


@pytest.mark.parametrize("shape", [(100, 1), (1, 100), (101, 2), (9, 1)])
def test_pixels_of_a_shape_that_no_film_has_are_refused(tmp_path, shape):
    write_pixel_shape(tmp_path / "v.mp4", *shape, size=(128, 160))
    with pytest.raises(InputError, match="which no film has: save it again with square pixels"):
        VideoFile(tmp_path / "v.mp4")


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (64, 45), (4, 1)])
def test_pixels_of_a_shape_that_films_have_are_read(tmp_path, shape):
    write_pixel_shape(tmp_path / "v.mp4", *shape)
    with VideoFile(tmp_path / "v.mp4") as video:
        assert (video.height, video.width) == (48, round(64 * shape[0] / shape[1]))


@pytest.mark.parametrize("size", [(13000, 13000), (65535, 65535), (100_000, 1000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("read", [open_source, VideoFile])
def test_a_picture_too_large_to_hold_is_refused_by_its_header(tmp_path, size, read):
    (tmp_path / "v.png").write_bytes(png_header(*size))
    with pytest.raises(InputError, match=r"v\.png"):
        read(tmp_path / "v.png")


def test_the_sentence_says_the_size(tmp_path):
    (tmp_path / "v.png").write_bytes(png_header(10000, 9000))
    with pytest.raises(InputError, match="10000 x 9000, more than the 67 million pixels that are read: save it in a"):
        open_source(tmp_path / "v.png")


@pytest.mark.parametrize("size", [(16384, 4096), (8000, 8000)])
def test_a_large_picture_is_read(tmp_path, size):
    Image.new("L", size, 200).save(tmp_path / "v.png", compress_level=1)
    assert open_source(tmp_path / "v.png").width == size[0]


def test_pictures_that_become_larger_inside_a_film_keep_the_size_of_the_first(tmp_path):
    pictures = [solid(48, 64, RED), solid(480, 640, GREEN), solid(24, 32, BLUE), solid(48, 64, RED)]
    write_jpegs(tmp_path / "v.mkv", [jpeg_of(picture) for picture in pictures])
    with VideoFile(tmp_path / "v.mkv") as video:
        assert (video.height, video.width, video.length) == (48, 64, 4)
        for index, color in enumerate((RED, GREEN, BLUE, RED)):
            assert close_to(video.frame(index), color)


def test_a_picture_of_a_film_that_is_too_large_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("infinitetalk_core.video.decoder.MOST_PIXELS", 640 * 480)
    pictures = [solid(48, 64, RED), solid(800, 640, GREEN), solid(48, 64, BLUE)]
    write_jpegs(tmp_path / "v.mkv", [jpeg_of(picture) for picture in pictures])
    with VideoFile(tmp_path / "v.mkv") as video:
        assert close_to(video.frame(0), RED) and close_to(video.frame(1), RED) and close_to(video.frame(2), BLUE)


def test_a_film_that_lasts_for_years_is_refused(tmp_path):
    make_video(tmp_path / "v.mkv", [Fraction(0), Fraction(1), Fraction(10**8)], tick=Fraction(1, 1000))
    with pytest.raises(InputError, match="hours by its own times, which are broken"):
        VideoFile(tmp_path / "v.mkv")


@pytest.mark.parametrize("name", ["v.ts", "v.mp4", "v.webp"])
def test_an_interruption_ends_any_reading(tmp_path, name):
    class Interrupted(BaseException):
        pass

    if name == "v.webp":
        write_moving(tmp_path / name, 24)
    else:
        make_video(tmp_path / name, steady(300, 25))
    asked: list[int] = []
    limit = [10**9]

    def stop() -> None:
        asked.append(1)
        if len(asked) >= limit[0]:
            raise Interrupted

    with VideoFile(tmp_path / name, check_interrupted=stop) as video:
        video.frame(video.length - 1)
        video.frame(0)
        limit[0] = len(asked) + 2
        with pytest.raises(Interrupted):
            video.frame(video.length - 2)
        assert len(asked) <= limit[0]
    for after in (1, 3, 9):
        asked.clear()
        limit[0] = after
        with pytest.raises(Interrupted):
            VideoFile(tmp_path / name, check_interrupted=stop)


# The stream that a player shows


@pytest.mark.parametrize("kind", ["preview", "cover", "large cover", "small first"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_the_film_is_shown_and_not_its_preview_or_cover(tmp_path, kind, ending):
    if kind == "large cover" and ending == "mkv":
        pytest.skip("Matroska does not say how many pictures a stream has")
    path = tmp_path / f"two.{ending}"
    write_two_videos(path, kind)
    with VideoFile(path) as video:
        assert (video.height, video.width, video.length) == (96, 160, 75)
        assert close_to(video.frame(40), RED)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_an_interlaced_film_is_said_to_have_combs(tmp_path, caplog, codec):
    write_interlaced(tmp_path / "v.ts", codec)
    with caplog.at_level("WARNING"), VideoFile(tmp_path / "v.ts") as video:
        assert video.length == 25
    assert [r.getMessage().removeprefix("InfiniteTalk: ") for r in caplog.records] == [
        "v.ts is interlaced and read as it is stored, which shows combs where something moves: deinterlace it first if "
        "that matters"
    ]


MOVING = ["gif", "png", "webp", *(["avif"] if features.check("avif") else [])]


@pytest.mark.parametrize("ending", MOVING)
def test_an_animation_is_a_video_with_its_own_times(tmp_path, ending):
    path = tmp_path / f"moving.{ending}"
    write_moving(path)
    with open_source(path) as source:  # type: ignore[attr-defined]
        assert isinstance(source, VideoFile) and (source.height, source.width) == (48, 64)
        assert abs(source.length - 50) <= 1, "20 pictures of 0.1 s"
        for index in [0, 3, 30, 49, 20, 1]:
            want = 10 * (index * 40 // 100 + 1)
            assert abs(float(source.frame(index)[24, 32, 1]) * 255 - want) <= 3, index


@pytest.mark.parametrize("milliseconds", [[40, 400, 200, 1000], 20, 0])
def test_a_webp_shows_each_picture_for_its_own_time(tmp_path, milliseconds):
    write_moving(tmp_path / "v.webp", 4, milliseconds)
    durations = milliseconds if isinstance(milliseconds, list) else [milliseconds or 100] * 4
    with VideoFile(io.BytesIO((tmp_path / "v.webp").read_bytes())) as video:
        assert video.length == max(sum(durations) // 40, 1)
        shown = [round(float(video.frame(i)[0, 0, 0]) * 25.5) - 1 for i in range(video.length)]
    starts = np.cumsum([0, *durations])
    assert shown == [int(np.searchsorted(starts, i * 40, side="right")) - 1 for i in range(video.length)]


def test_a_webp_that_is_cut_off_is_read_to_there_or_refused(tmp_path):
    write_moving(tmp_path / "v.webp")
    data = (tmp_path / "v.webp").read_bytes()
    for part in (20, 100, len(data) // 2, len(data) - 3):
        (tmp_path / "cut.webp").write_bytes(data[:part])
        try:
            with VideoFile(tmp_path / "cut.webp") as video:
                video.frame(video.length - 1)
        except InputError as error:
            assert "cut.webp" in str(error)


def test_one_picture_in_a_format_of_animations_is_a_still(tmp_path):
    for ending in MOVING:
        Image.fromarray(marked_picture()).save(tmp_path / f"v.{ending}")
        assert isinstance(open_source(tmp_path / f"v.{ending}"), PictureBatch)


@pytest.mark.parametrize(("write", "name"), [(write_mpo, "phone.jpg"), (write_pages, "two.tif")])
def test_several_pictures_that_do_not_move_are_the_first_of_them(tmp_path, write, name):
    write(tmp_path / name)
    source = open_source(tmp_path / name)
    assert isinstance(source, PictureBatch) and (source.height, source.width, source.length) == (160, 96, 1)
    corner, middle = source.frame(0)[5, 90] * 255, source.frame(0)[80, 40] * 255
    assert (corner - torch.tensor(RED)).abs().max() < 20, "it was turned to the right"
    assert (middle - 128).abs().max() < 8


@pytest.mark.parametrize("ending", ["mov", "avi", "mkv"])
def test_a_film_of_jpegs_with_exif_is_read_and_turned(tmp_path, ending):
    """PyAV 18 has no name for EXIF: "31 is not a valid Type"."""
    write_turned_mjpeg(tmp_path / f"v.{ending}")
    with VideoFile(tmp_path / f"v.{ending}") as video:
        assert video.length == 5
        picture = video.frame(2)
        if picture.shape == (96, 160, 3):
            pytest.skip("this FFmpeg does not turn a film by the EXIF of its pictures")
        assert picture.shape == (160, 96, 3)
        assert (picture[5, 90] * 255 - torch.tensor(RED)).abs().max() < 20


@pytest.mark.parametrize("kind", [b"grid", b"iovl"])
@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"heix"])
@pytest.mark.parametrize("read", [open_source, VideoFile])
def test_a_photo_in_tiles_is_refused_and_never_one_of_its_tiles(tmp_path, kind, brand, read):
    try:
        write_heic_grid(tmp_path / "photo.heic", kind, brand)
    except (ValueError, av.error.FFmpegError):
        pytest.skip("this PyAV cannot write HEVC")
    with pytest.raises(InputError, match=r"photo\.heic is a HEIC or AVIF picture stored .*: save it as JPEG or PNG"):
        read(tmp_path / "photo.heic")


# Times


CODECS = [("libx264", {"x264-params": "bframes=3:b-adapt=0:b-pyramid=2"}), ("mpeg2video", {"bf": "2"})]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [(name, *codec) for name in ("v.ts", "v.m2ts", "v.mkv", "v.mp4", "v.avi") for codec in CODECS]
    + [("v.mpg", *CODECS[1])],
)
@pytest.mark.parametrize("count", [30, 31, 32, 33, 200])
def test_reordered_frames_are_all_there(tmp_path, name, codec, options, count):
    make_video(tmp_path / name, steady(count, 25), codec=codec, options=options, tick=Fraction(1, 25))
    with VideoFile(tmp_path / name) as video:
        assert numbers_of(video) == list(range(count))


def test_sound_beside_the_pictures_changes_nothing(tmp_path):
    write_sound(tmp_path / "v.ts", np.zeros((1, 96000), np.float32), codec="aac", picture_seconds=2)
    with VideoFile(tmp_path / "v.ts") as video:
        assert video.length == 50


def test_shades_are_distinct():
    assert len({int(picture[0, 0, 0]) for picture in shades(20)}) == 20

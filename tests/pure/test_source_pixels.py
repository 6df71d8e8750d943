"""A frame of a video as a player shows it: the right way up, square pixels, the colors that were meant."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest
import torch

from infinitetalk_core.video.source import VideoFile
from tests.support.numbered_video import HEIGHT, WIDTH, make_video, steady


@pytest.mark.parametrize("turn", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_phones_rotation_and_mirror_are_honored(tmp_path, turn):
    """The display matrix is written into the file; the picture must come out as a player shows it."""
    # (a, b, c, d): the pixel at (x, y) is shown at (a x + c y, b x + d y), moved back into the frame
    a, b, c, d = [
        (1, 0, 0, 1),
        (0, 1, -1, 0),
        (-1, 0, 0, -1),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ][turn]
    make_video(tmp_path / "v.mp4", steady(5, 25), options={"crf": "1"})
    data = (tmp_path / "v.mp4").read_bytes()
    at = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "r.mp4").write_bytes(data[:at] + matrix + data[at + 36 :])
    with VideoFile(tmp_path / "v.mp4") as plain, VideoFile(tmp_path / "r.mp4") as turned:
        stored, shown = plain.frame(3), turned.frame(3)
    assert (turned.height, turned.width) == shown.shape[:2] == ((HEIGHT, WIDTH) if a else (WIDTH, HEIGHT))
    for x, y in [(4, 8), (90, 3), (50, 20)]:
        across, down = a * x + c * y, b * x + d * y
        across += shown.shape[1] - 1 if a + c < 0 else 0
        down += shown.shape[0] - 1 if b + d < 0 else 0
        assert torch.equal(shown[down, across], stored[y, x])


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    make_video(tmp_path / "v.mp4", steady(3, 25), options={"x264-params": "sar=2/1"})
    with VideoFile(tmp_path / "v.mp4") as video:
        assert (video.height, video.width) == (HEIGHT, 2 * WIDTH) == video.frame(0).shape[:2]


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
def test_colors_are_those_that_were_meant(tmp_path, matrix, full, pixels):
    """Solid colors, turned into YUV by the textbook, in every matrix and range."""
    red, blue = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}[matrix]
    depth = 10 if "10" in pixels else 8
    for color in [(0.8, 0.2, 0.1), (0.1, 0.7, 0.3), (0.2, 0.1, 0.9), (0.5, 0.5, 0.5)]:
        r, g, b = color
        luma = red * r + (1 - red - blue) * g + blue * b
        chroma = ((b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red)))
        top = 2**depth - 1
        if full:
            values = [luma * top, *(c * top + 2 ** (depth - 1) for c in chroma)]
        else:
            values = [(v + 16) * 2 ** (depth - 8) for v in (219 * luma, *(224 * c + 112 for c in chroma))]
        path = tmp_path / f"{r}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"qp": "1"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            context = stream.codec_context
            context.colorspace = {"bt709": 1, "smpte170m": 6, "bt2020nc": 9}[matrix]
            context.color_range = 2 if full else 1
            frame = av.VideoFrame(64, 48, pixels)
            for plane, value in zip(frame.planes, values, strict=True):
                kind = np.uint16 if depth > 8 else np.uint8
                plane.update(np.full(plane.buffer_size // kind().itemsize, round(value), kind))
            frame.colorspace, frame.color_range = context.colorspace, context.color_range
            container.mux([*stream.encode(frame), *stream.encode(None)])
        with VideoFile(path) as video:
            error = (video.frame(0)[24, 32] - torch.tensor(color)).abs().max().item()
        assert error < 2.5 / 255, f"{color} came back {error * 255:.1f} levels off"


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG"), (1, None)])
def test_a_video_of_high_dynamic_range_is_said_to_look_pale(tmp_path, caplog, curve, name):
    """As phones film: it is read as it is stored, which nobody should have to find out by looking."""
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        stream.codec_context.color_primaries, stream.codec_context.color_trc = (9, curve) if name else (1, curve)
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), "rgb24").reformat(format="yuv420p10le")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with caplog.at_level("WARNING"), VideoFile(path) as video:
        assert video.length == 1
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (name is not None)
    assert name is None or (
        f"phone.mp4 is filmed in high dynamic range ({name})" in said[0] and "convert it" in said[0]
    )


def test_values_are_in_zero_to_one_and_a_frame_belongs_to_the_caller(tmp_path):
    make_video(tmp_path / "v.mp4", steady(3, 25))
    with VideoFile(tmp_path / "v.mp4") as video:
        frame = video.frame(1)
        assert frame.dtype == torch.float32 and frame.min() >= 0 and frame.max() <= 1
        kept = frame.clone()
        frame.zero_()
        assert torch.equal(video.frame(1), kept)

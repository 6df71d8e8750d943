"""Makers of media files as people have them: each writes one file, from a few numbers, without other programs.

Tests and fuzzing share them. Sounds are (channels, samples) float32 in -1 … 1, pictures (H, W, 3) uint8.
"""

from __future__ import annotations

import io
import struct
import wave
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

RATE = 48000
Numbers = np.ndarray

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def tone(seconds: float, rate: int = RATE, channels: int = 1, hertz: float = 440.0, level: float = 0.5) -> Numbers:
    """Return a sine wave, the same in each channel."""
    wave_ = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave_[None].astype(np.float32), channels, axis=0)


def write_wav(path: Path, waveform: Numbers, rate: int = RATE) -> None:
    """16 bit, any number of channels and any rate, also ones that no encoder takes."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(waveform))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((waveform.T * 32767).astype("<i2").tobytes())


def sound_packets(
    container: av.container.OutputContainer, waveform: Numbers, rate: int, codec: str, **options: str
) -> list[av.Packet]:
    """Encode to a new stream of `container`; the caller muxes what it wants of it."""
    layout = LAYOUTS.get(len(waveform), f"{len(waveform)}C")
    stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
    frame = av.AudioFrame("flt", layout, waveform.shape[1])
    frame.planes[0].update(np.ascontiguousarray(waveform.T).tobytes())
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    size = stream.codec_context.frame_size or 1024
    convert = av.AudioResampler(stream.codec_context.format.name, layout, rate, size)
    packets = []
    for part in convert.resample(frame) + convert.resample(None):
        packets += stream.encode(part)
    return [*packets, *stream.encode(None)]


@dataclass(frozen=True)
class Times:
    """Changes of the times of a sound's packets, in seconds: a later start, a hole that is cut out of it, and a jump of
    the clock at the hole's beginning (with nothing missing)."""

    start: float = 0.0
    hole: tuple[float, float] | None = None
    jump: float = 0.0


def write_sound(
    path: Path,
    waveform: Numbers,
    rate: int = RATE,
    codec: str = "pcm_s16le",
    times: Times = Times(),
    picture_seconds: float = 0.0,
    **options: str,
) -> None:
    """Write a sound of any codec in the container that the name stands for.

    picture_seconds: length of a video track beside it, which starts at 0.
    """
    with av.open(str(path), "w") as file:
        video: list[av.Packet] = []
        if picture_seconds:
            video = video_packets(file, [np.full((48, 64, 3), 90, np.uint8)] * round(25 * picture_seconds))
        packets = sound_packets(file, waveform, rate, codec, **options)
        first, stop = times.hole or (0.0, 0.0)
        kept = []
        for packet in packets:
            at = float((packet.pts or 0) * packet.time_base)
            if not first <= at < stop:
                late = times.start + (times.jump if times.jump and at >= first else 0)
                shift = round(late / packet.time_base)
                packet.pts, packet.dts = (packet.pts or 0) + shift, (packet.dts or 0) + shift
                kept.append(packet)
        file.mux(sorted(kept + video, key=lambda p: float((p.dts or 0) * p.time_base)))


def video_packets(
    container: av.container.OutputContainer,
    pictures: Iterable[Numbers],
    codec: str = "libx264",
    rate: int = 25,
    pixels: str = "yuv420p",
    **options: str,
) -> list[av.Packet]:
    """Encode pictures of one size to a new stream of `container`; the caller muxes them."""
    pictures = list(pictures)
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.height, stream.width = pictures[0].shape[:2]
    stream.pix_fmt = pixels
    stream.codec_context.thread_count = 1
    packets = []
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
        frame.pts, frame.time_base = number, Fraction(1, rate)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def solid(height: int, width: int, color: tuple[int, int, int]) -> Numbers:
    """Return a picture of one color."""
    return np.broadcast_to(np.array(color, np.uint8), (height, width, 3)).copy()


def shades(count: int, height: int = 48, width: int = 64) -> list[Numbers]:
    """Return gray pictures that become brighter, by 10 each."""
    return [solid(height, width, (10 * (n + 1),) * 3) for n in range(count)]


RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)


def write_two_videos(path: Path, kind: str) -> None:
    """A film of 75 frames of 160 x 96 in red, and another stream before it in blue, which a player does not show.

    kind: "preview" (smaller, not default), "cover" (one JPEG that is not marked as a cover), "large cover" (the same,
    larger than the film, and nothing is marked as default), "small first" (both marked).
    """
    with av.open(str(path), "w") as file:
        if "cover" in kind:
            size = 640 if kind == "large cover" else 64
            other = video_packets(file, [solid(size, size, BLUE)], "mjpeg", pixels="yuvj420p")
        else:
            other = video_packets(file, [solid(48, 80, BLUE)] * 50)
        film = video_packets(file, [solid(96, 160, RED)] * 75)
        file.streams.video[0].disposition = int(kind == "small first")
        file.streams.video[1].disposition = int(kind != "large cover")
        file.mux(sorted(other + film, key=lambda p: float((p.dts or 0) * p.time_base)))


def write_two_sounds(path: Path, default: int) -> None:
    """Two tracks of 0.5 s: quiet, then loud; the one with this number is the default."""
    with av.open(str(path), "w") as file:
        packets = [
            packet for level in (0.05, 0.5) for packet in sound_packets(file, tone(0.5, level=level), RATE, "pcm_s16le")
        ]
        for number, stream in enumerate(file.streams.audio):
            stream.disposition = int(number == default)
        file.mux(sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)))


def playlists(elsewhere: Path) -> dict[str, str]:
    """Return texts, by file name, that make FFmpeg open `elsewhere`, or wait for something."""
    name = elsewhere.as_posix()
    hls = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:3.0,\n{name}\n"
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"'
        ' profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="1" bandwidth="9"><BaseURL>file://{name}</BaseURL></Representation></AdaptationSet>'
        "</Period></MPD>"
    )
    sdp = (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n"
    )
    return {
        "list.m3u8": hls + "#EXT-X-ENDLIST\n",
        "live.m3u8": hls,
        "list.mp4": hls + "#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{name}'\n",
        "list.txt": f"ffconcat version 1.0\nfile 'file:{name}'\n",
        "list.mpd": mpd,
        "stream.sdp": sdp,
        "meta.ffmeta": ";FFMETADATA1\ntitle=x\n",
        "list.m3u": f"#EXTM3U\n{name}\n",
        "cue.idx": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 000000000\n",
        "rtsp.asx": f'<asx version="3.0"><entry><ref href="file://{name}"/></entry></asx>',
    }


def write_moving(path: Path, count: int = 20, milliseconds: int = 100) -> None:
    """An animation of `shades`, in the format that the name stands for (gif, png, webp, avif)."""
    pictures = [Image.fromarray(picture) for picture in shades(count)]
    options = {"lossless": True} if path.suffix == ".webp" else {"quality": 95} if path.suffix == ".avif" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, **options)


def marked_picture() -> Numbers:
    """Return 96 x 160 in gray with a red corner at the top left."""
    picture = solid(96, 160, (128, 128, 128))
    picture[:24, :40] = RED
    return picture


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn to the right
    return exif


def write_mpo(path: Path) -> None:
    """A phone's JPEG with a second picture behind it, to be turned to the right."""
    picture = marked_picture()
    Image.fromarray(picture).save(
        path, "MPO", save_all=True, append_images=[Image.fromarray(picture[::2, ::2])], exif=_turned()
    )


def write_pages(path: Path) -> None:
    """A TIFF of two pages, to be turned to the right."""
    picture = marked_picture()
    Image.fromarray(picture).save(
        path, "TIFF", save_all=True, append_images=[Image.fromarray(picture[::2, ::2])], exif=_turned()
    )


def write_turned_mjpeg(path: Path, count: int = 5) -> None:
    """A film of JPEGs with EXIF, to be turned to the right."""
    data = io.BytesIO()
    Image.fromarray(marked_picture()).save(data, "JPEG", quality=95, exif=_turned())
    write_jpegs(path, [data.getvalue()] * count)


def jpeg_of(picture: Numbers) -> bytes:
    """Return the picture as JPEG."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=95)
    return data.getvalue()


def write_jpegs(path: Path, jpegs: list[bytes]) -> None:
    """A Motion-JPEG film of these pictures, which may have different sizes."""
    with Image.open(io.BytesIO(jpegs[0])) as first, av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height = first.size
        stream.pix_fmt = "yuvj420p"
        for number, data in enumerate(jpegs):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.duration, packet.is_keyframe = Fraction(1, 25), 1, True
            packet.stream = stream
            file.mux(packet)


def write_interlaced(path: Path, codec: str = "libx264") -> None:
    """One second of 25 interlaced frames per second, a bar that moves sideways."""
    moments = []
    for number in range(50):
        picture = solid(192, 320, (40, 40, 40))
        picture[:, number * 6 % 300 :][:, :20] = 235
        moments.append(picture)
    frames = []
    for first, second in zip(moments[::2], moments[1::2], strict=True):
        frame = first.copy()
        frame[1::2] = second[1::2]
        frames.append(frame)
    options = {"x264-params": "tff=1"} if codec == "libx264" else {}
    with av.open(str(path), "w") as file:
        file.mux(video_packets(file, frames, codec, flags="+ildct+ilme", **options))


def write_pixel_shape(path: Path, width: int, height: int, size: tuple[int, int] = (48, 64)) -> None:
    """A film whose pixels are width : height."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(width, height)
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(solid(*size, RED), format="rgb24")))
        file.mux(stream.encode(None))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says to have this size, with hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:

        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)


def hevc_tile(color: tuple[int, int, int], size: int = 128) -> tuple[bytes, bytes]:
    """Return (hvcC box, coded picture) of one picture of one color."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as file:
        options = {"x265-params": "log-level=none:info=0:pools=none:frame-threads=1"}
        file.mux(video_packets(file, [solid(size, size, color)], "libx265", **options))
    content = data.getvalue()
    at, mdat = content.index(b"hvcC"), content.index(b"mdat")
    length, whole = (struct.unpack(">I", content[i - 4 : i])[0] for i in (at, mdat))
    return content[at - 4 : at - 4 + length], content[mdat + 4 : mdat - 4 + whole]


def write_heic_grid(path: Path, kind: bytes = b"grid", brand: bytes = b"heic", colors=(RED, GREEN, BLUE, RED)) -> None:
    """A photo of 2 x 2 tiles of 128 x 128, as phones write it."""
    tiles = [hevc_tile(color) for color in colors]
    ftyp = _box(b"ftyp", brand, struct.pack(">I", 0), b"mif1" + brand)
    hdlr = _full_box(b"hdlr", 0, 0, struct.pack(">I", 0), b"pict", bytes(12), b"\0")
    pitm = _full_box(b"pitm", 0, 0, struct.pack(">H", 5))

    def infe(number: int, item: bytes, hidden: bool) -> bytes:
        return _full_box(b"infe", 2, int(hidden), struct.pack(">HH", number, 0), item, b"\0")

    entries = [*(infe(n, b"hvc1", True) for n in range(1, 5)), infe(5, kind, False)]
    iinf = _full_box(b"iinf", 0, 0, struct.pack(">H", 5), *entries)
    iref = _full_box(b"iref", 0, 0, _box(b"dimg", struct.pack(">HH4H", 5, 4, 1, 2, 3, 4)))
    sizes = [_full_box(b"ispe", 0, 0, struct.pack(">II", side, side)) for side in (128, 256)]
    of_tiles = [struct.pack(">HBBB", n, 2, 0x81, 2) for n in range(1, 5)]
    ipma = _full_box(b"ipma", 0, 0, struct.pack(">I", 5), *of_tiles, struct.pack(">HBB", 5, 1, 3))
    iprp = _box(b"iprp", _box(b"ipco", tiles[0][0], *sizes), ipma)
    idat = _box(b"idat", struct.pack(">BBBBHH", 0, 0, 1, 1, 256, 256))

    def meta(start: int) -> bytes:
        at, items = start, b""
        for number, (_, coded) in enumerate(tiles, 1):
            items += struct.pack(">HHHHII", number, 0, 0, 1, at, len(coded))
            at += len(coded)
        items += struct.pack(">HHHHII", 5, 1, 0, 1, 0, 8)
        iloc = _full_box(b"iloc", 1, 0, struct.pack(">BBH", 0x44, 0x00, 5), items)
        return _full_box(b"meta", 0, 0, hdlr, pitm, iinf, iref, iprp, iloc, idat)

    start = len(ftyp) + len(meta(0)) + 8
    path.write_bytes(ftyp + meta(start) + _box(b"mdat", *(coded for _, coded in tiles)))


def write_odd_layout(path: Path) -> None:
    """A CAF file of three channels in an order of its own (right, left, center), 0.2 s."""
    write_sound(path, tone(0.2, channels=3))
    content = path.read_bytes()
    at = content.index(b"chan")
    length = struct.unpack(">q", content[at + 4 : at + 12])[0]
    labels = b"".join(struct.pack(">IIfff", label, 0, 0, 0, 0) for label in (2, 1, 3))
    body = struct.pack(">III", 0, 0, 3) + labels
    path.write_bytes(content[:at] + b"chan" + struct.pack(">q", len(body)) + body + content[at + 12 + length :])

"""Damaged and forged media files for `tools/fuzz.py`: read, or refused in one sentence.

Files of every container and codec are generated, then changed: flipped bits, cut off, blocks removed, repeated and
exchanged, other numbers in headers. Each is read as a source and as a voice. It is silent if less than half of it was
read, and nothing said.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from infinitetalk_core.audio.reading import read_sound
from infinitetalk_core.log import LOGGER
from infinitetalk_core.video.source import open_source

from . import media_cases as cases
from .fuzz_outcome import outcome_of

HEADER_BYTES = 4096
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Cut off, these are whole files of less length: they do not say how long they are, or FFmpeg does not pass it on.
NO_LENGTH = (".ts", ".png", ".nut", ".mpg", ".h264", ".gif", ".mp2", ".mp3", ".aac", ".ac3", ".ogg", ".flv")


def _film(path: Path, codec: str, pixels: str = "yuv420p", **options: str) -> None:
    with cases.av.open(str(path), "w") as file:
        file.mux(cases.video_packets(file, cases.shades(20), codec, pixels=pixels, **options))


def _talk(path: Path, codec: str) -> None:
    cases.write_sound(path, cases.tone(1, channels=2), codec=codec, picture_seconds=1)


def _sound(path: Path, codec: str, channels: int = 2, **options: str) -> None:
    cases.write_sound(path, cases.tone(1, channels=channels), codec=codec, **options)


Maker = Callable[[Path], None]
SEEDS: dict[str, Maker] = {
    "talk.mp4": lambda path: _talk(path, "aac"),
    "talk.mov": lambda path: _talk(path, "pcm_s16le"),
    "talk.mkv": lambda path: _talk(path, "libopus"),
    "talk.ts": lambda path: _talk(path, "aac"),
    "talk.flv": lambda path: _talk(path, "aac"),
    "talk.avi": lambda path: _talk(path, "libmp3lame"),
    "talk.nut": lambda path: _talk(path, "flac"),
    "hevc.mp4": lambda path: _film(path, "libx265", **{"x265-params": "log-level=none:pools=none:frame-threads=1"}),
    "vp9.webm": lambda path: _film(path, "libvpx-vp9"),
    "vp8.webm": lambda path: _film(path, "libvpx"),
    "mpeg4.avi": lambda path: _film(path, "mpeg4"),
    "mpeg2.mpg": lambda path: _film(path, "mpeg2video"),
    "ffv1.mkv": lambda path: _film(path, "ffv1"),
    "prores.mov": lambda path: _film(path, "prores_ks", "yuv422p10le"),
    "h264.h264": lambda path: _film(path, "libx264"),
    "mjpeg.avi": cases.write_turned_mjpeg,
    "two.mp4": lambda path: cases.write_two_videos(path, "preview"),
    "sizes.mkv": lambda path: cases.write_jpegs(
        path, [cases.jpeg_of(cases.solid(side, side, cases.RED)) for side in (64, 320, 16, 64)]
    ),
    **{f"moving.{ending}": cases.write_moving for ending in ("gif", "png", "webp")},
    "phone.jpg": cases.write_mpo,
    "pages.tif": cases.write_pages,
    "photo.png": lambda path: cases.Image.fromarray(cases.marked_picture()).save(path),
    "photo.bmp": lambda path: cases.Image.fromarray(cases.marked_picture()).save(path),
    "photo.heic": cases.write_heic_grid,
    "voice.wav": lambda path: cases.write_wav(path, cases.tone(1, channels=2)),
    "eight.wav": lambda path: cases.write_wav(path, cases.tone(1, channels=8)),
    "odd.caf": cases.write_odd_layout,
    "voice.flac": lambda path: _sound(path, "flac", 8),
    "voice.mp3": lambda path: _sound(path, "libmp3lame"),
    "voice.aac": lambda path: _sound(path, "aac"),
    "voice.m4a": lambda path: _sound(path, "alac"),
    "voice.ogg": lambda path: _sound(path, "libopus"),
    "many.mka": lambda path: _sound(path, "libopus", 12, mapping_family="255"),
    "voice.ac3": lambda path: _sound(path, "ac3"),
    "voice.wv": lambda path: _sound(path, "wavpack", 9),
    "voice.aiff": lambda path: _sound(path, "pcm_s16be"),
    "voice.mp2": lambda path: _sound(path, "mp2"),
}


def change(data: bytes, rng: random.Random) -> bytes:
    """Return the content with one to three changes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if len(changed) < 16:
            break
        rng.choice(CHANGES)(changed, rng)
    return bytes(changed)


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 4, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_header_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(len(data), HEADER_BYTES))] ^= 1 << rng.randrange(8)


def _cut_off(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(8, len(data)) :]


def _block(data: bytearray, rng: random.Random) -> slice:
    start = rng.randrange(len(data))
    return slice(start, start + rng.choice((1, 4, 188, 1024, len(data) // 3)))


def _remove(data: bytearray, rng: random.Random) -> None:
    del data[_block(data, rng)]


def _repeat(data: bytearray, rng: random.Random) -> None:
    block = bytes(data[_block(data, rng)])
    at = rng.randrange(len(data))
    data[at:at] = block


def _exchange(data: bytearray, rng: random.Random) -> None:
    first, second = bytes(data[_block(data, rng)]), bytes(data[_block(data, rng)])
    for found, other in ((first, second), (second, first)):
        at = data.find(found)
        if at >= 0:
            data[at : at + len(found)] = other


def _noise(data: bytearray, rng: random.Random) -> None:
    block = _block(data, rng)
    data[block] = rng.randbytes(len(data[block]))


def _number(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 4, 8))
    number = rng.choice((*NUMBERS, rng.getrandbits(32))) & (256**size - 1)
    at = rng.randrange(min(len(data), rng.choice((64, 256, HEADER_BYTES, len(data)))))
    data[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))


CHANGES = (_flip_bits, _flip_header_bits, _cut_off, _remove, _repeat, _exchange, _noise, _number, _number, _number)


class _Collect(logging.Handler):
    """Counts what is said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.said += 1


class _Warnings(logging.Handler):
    """Counts what is said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.said += 1


def _source_seconds(path: Path) -> float:
    opened = open_source(path)
    try:
        for index in {0, opened.length // 2, opened.length - 1}:
            opened.frame(index)
        return opened.length / 25
    finally:
        opened.close()


def _voice_seconds(path: Path) -> float:
    return read_sound(path, path.parent / "scratch").seconds


READERS = {"source": _source_seconds, "voice": _voice_seconds}


@dataclass(frozen=True)
class Right:
    """A generated file, and the seconds that each reader finds in it; 0 where it refuses it."""

    name: str
    content: bytes
    seconds: dict[str, float]


@cache
def _right_files() -> tuple[tuple[Right, ...], _Warnings]:
    """Generate all files; those that this PyAV cannot write are left out."""
    warnings = _Warnings()
    LOGGER.addHandler(warnings)
    folder = Path(mkdtemp(prefix="infinitetalk_fuzz_"))
    found = []
    for name, make in SEEDS.items():
        path = folder / name
        try:
            make(path)
        except (ValueError, OSError, cases.av.error.FFmpegError):
            continue
        seconds = {}
        for kind, read in READERS.items():
            try:
                seconds[kind] = read(path)
            except ValueError:
                seconds[kind] = 0.0
        found.append(Right(name, path.read_bytes(), seconds))
    return tuple(found), warnings


def attempt(chance: random.Random, folder: Path) -> tuple[str, str, str]:
    """Change a right file, and read it as a source and as a voice; the worse outcome counts."""
    files, warnings = _right_files()
    right = chance.choice(files)
    path = folder / right.name
    path.write_bytes(change(right.content, chance))
    outcomes = []
    for kind, read in READERS.items():
        warnings.said = 0

        def judged(kind: str = kind, read: Callable[[Path], float] = read) -> str:
            found = read(path)
            told = warnings.said or right.name.endswith(NO_LENGTH)
            return "read" if told or found >= 0.5 * right.seconds[kind] - 0.2 else "silent"

        outcome, text = outcome_of(judged)
        outcomes.append((outcome, f"as {kind}: {text}"))
    order = ("python", "silent", "read", "answered")
    outcome, text = min(outcomes, key=lambda found: order.index(found[0]))
    return f"changed {right.name}", outcome, text

"""Read damaged and forged media files, and count what comes of it.

    python tools/fuzz_media.py --count 300 --seed 1

Files of every container and codec are generated, then changed: flipped bits, cut off, blocks removed, repeated and
exchanged, other numbers in headers. Each is read as a source and as a voice in a worker process with bounds of time and
memory. Prints how many were read, answered with a sentence, or are faults: in Python's words, crashed, hung, too much
memory, silent (less than half of it read, and nothing said). Exits with 1 if there are faults. `--keep DIR` keeps them.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import media_cases as cases  # noqa: E402

SECONDS, GIGABYTES = 30.0, 2.0  # bounds of one file, of memory beyond what the worker has when it starts
HEADER_BYTES = 4096
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Cut off, these are whole files of less length: they do not say how long they are, or FFmpeg does not pass it on.
NO_LENGTH = (".ts", ".png", ".nut", ".mpg", ".h264", ".gif", ".mp2", ".mp3", ".aac", ".ac3", ".ogg", ".flv")
FAULTS = ("python", "crashed", "hung", "memory", "silent")


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


def work() -> None:
    """Read the files that standard input names, and print what came of each as JSON."""
    from infinitetalk_core.audio.reading import read_sound
    from infinitetalk_core.errors import InputError
    from infinitetalk_core.log import LOGGER
    from infinitetalk_core.video.source import open_source

    collect = _Collect()
    LOGGER.addHandler(collect)

    def source(path: Path) -> float:
        opened = open_source(path)
        try:
            for index in {0, opened.length // 2, opened.length - 1}:
                opened.frame(index)
            return opened.length / 25
        finally:
            opened.close()

    def voice(path: Path) -> float:
        return read_sound(path, path.parent / "scratch").seconds

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        path, found = Path(line.strip()), {}
        for name, read in (("source", source), ("voice", voice)):
            collect.said = 0
            try:
                found[name] = {"outcome": "read", "seconds": read(path), "said": collect.said}
            except (InputError, OSError) as error:
                one = "\n" not in str(error) and (isinstance(error, InputError) or "could not be" in str(error))
                found[name] = {"outcome": "answered" if one else "python", "message": str(error)}
            except BaseException as error:
                found[name] = {"outcome": "python", "message": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), flush=True)


class Worker:
    """A process that reads files, started again where it ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> dict[str, dict]:
        """Return what came of the file as a source and as a voice."""
        process = self._started()
        assert process.stdin is not None
        watched = psutil.Process(process.pid)
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                return json.loads(self._lines.get(timeout=0.02))
            except Empty:
                if process.poll() is not None:
                    return self._stop("crashed", f"exit code {process.returncode}")
                try:
                    used = watched.memory_info().rss - watched.memory_info().shared
                except psutil.Error:
                    continue
                if used > self._at_rest + GIGABYTES * 1e9:
                    return self._stop("memory", f"{used / 1e9:.1f} GB")
        return self._stop("hung", f"{SECONDS:.0f} s")

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            command = [sys.executable, __file__, "--worker"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._lines: Queue[str] = Queue()
            threading.Thread(target=self._collect, args=(self._process, self._lines), daemon=True).start()
            self._lines.get(timeout=120)
            memory = psutil.Process(self._process.pid).memory_info()
            self._at_rest = memory.rss - memory.shared
        return self._process

    @staticmethod
    def _collect(process: subprocess.Popen[str], lines: Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)

    def _stop(self, outcome: str, message: str) -> dict[str, dict]:
        self.close()
        return {"file": {"outcome": outcome, "message": message}}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass
class Seed:
    """A generated file, and what reading it gives."""

    name: str
    content: bytes
    seconds: dict[str, float]


def make_seeds(folder: Path, worker: Worker) -> list[Seed]:
    """Generate all files; those that this PyAV cannot write are left out."""
    seeds = []
    for name, make in SEEDS.items():
        path = folder / name
        try:
            make(path)
        except (ValueError, OSError, cases.av.error.FFmpegError) as error:
            print(f"not generated: {name} ({error})")
            continue
        found = worker.read(path)
        seeds.append(Seed(name, path.read_bytes(), {kind: one.get("seconds", 0.0) for kind, one in found.items()}))
    return seeds


def judge(seed: Seed, found: dict[str, dict]) -> dict[str, dict]:
    """Mark as silent what lost more than half without a word."""
    for kind, one in found.items():
        told = one.get("said") or seed.name.endswith(NO_LENGTH)
        if one["outcome"] == "read" and not told and one["seconds"] < 0.5 * seed.seconds.get(kind, 0.0) - 0.2:
            one["outcome"], one["message"] = "silent", f"{one['seconds']} of {seed.seconds[kind]} s"
    return found


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for files with faults")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return 0
    rng, counts, worker = random.Random(arguments.seed), Counter[str](), Worker()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = make_seeds(folder, worker)
        for number in range(arguments.count):
            seed = seeds[number % len(seeds)]
            path = folder / f"{number:05}_{seed.name}"
            path.write_bytes(change(seed.content, rng))
            for kind, one in judge(seed, worker.read(path)).items():
                counts[one["outcome"]] += 1
                if one["outcome"] in FAULTS:
                    print(f"{path.name} as {kind}: {one['outcome']}: {one['message']}", flush=True)
                    if arguments.keep:
                        arguments.keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, arguments.keep)
            path.unlink()
        worker.close()
    print(f"{arguments.count} files, each as a source and as a voice, seed {arguments.seed}")
    print(", ".join(f"{kind} {counts[kind]}" for kind in ("read", "answered", *FAULTS)))
    return 1 if any(counts[fault] for fault in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())

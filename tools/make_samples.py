"""Make the sample media in samples/: drawn people, a short drawn video, their depth and mask, and two synthetic voices.

    python tools/make_samples.py [FOLDER]

Needs Pillow, PyAV and the program espeak-ng. The results are in the repository; this says how they were made.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
from sample_drawing import Pose, face_mask, pair, portrait, portrait_depth

FPS = 25
VIDEO_SECONDS = 3
VIDEO_SIZE = 384
# (file, espeak-ng voice, pitch, words a minute, text)
VOICES = (
    ("voice.wav", "en-us+f3", 52, 150, "Hello! I was only a drawing, until this voice brought me to life."),
    ("voice_2.wav", "en-gb+m3", 42, 148, "Nice to meet you. Shall we make a film together?"),
)


def poses() -> Iterator[Pose]:
    """The source video: a head that sways and blinks, its mouth closed."""
    for i in range(FPS * VIDEO_SECONDS):
        t = i / FPS
        turn = math.sin(2 * math.pi * t / VIDEO_SECONDS)
        nod = math.sin(4 * math.pi * t / VIDEO_SECONDS)
        blink = max(0.0, *(1 - abs(t - moment) / 0.1 for moment in (0.8, 2.1)))
        yield Pose(sway=0.12 * turn, nod=0.03 * nod, tilt=3.5 * turn, blink=blink)


def write_video(path: Path, size: int = VIDEO_SIZE) -> None:
    """H.264 without sound, small."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryslow"}
        for pose in poses():
            frame = av.VideoFrame.from_image(portrait(size, pose))
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def write_voices(folder: Path) -> None:
    """Mono, 22.05 kHz, 16 bit, as espeak-ng makes them."""
    program = shutil.which("espeak-ng")
    if program is None:
        sys.exit("espeak-ng is needed for the voices; install it with the system's package manager")
    for name, voice, pitch, speed, text in VOICES:
        options = ["-v", voice, "-p", str(pitch), "-s", str(speed), "-w", str(folder / name)]
        subprocess.run([program, *options, text], check=True)


def write_pictures(folder: Path) -> None:
    """The portrait with its depth, the mask of the video's head, and the two people."""
    portrait(512, Pose()).save(folder / "portrait.png", optimize=True)
    portrait_depth(512).save(folder / "portrait_depth.png", optimize=True)
    face_mask(VIDEO_SIZE).save(folder / "face_mask.png", optimize=True)
    pair(768, 432).save(folder / "two_people.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the sample media.")
    default = Path(__file__).resolve().parent.parent / "samples"
    parser.add_argument("folder", type=Path, nargs="?", default=default)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(folder)
    write_video(folder / "portrait.mp4")
    write_voices(folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 1e3:7.1f} kB  {path.name}")


if __name__ == "__main__":
    main()

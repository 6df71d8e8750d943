"""Make the sample media in samples/: drawn people, a short video, depth, mask, two voices, and the true mouth openings.

    python tools/make_samples.py [FOLDER]

Needs the packages of `training` in pyproject.toml. The results are committed; this program documents how they were
made. The small models were not trained on these characters, voices and sentences. The true mouth opening in each frame
of the voices is written to tests/data/mouth_openings.json, for the tests of lip sync.
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from training.articulation import Articulation, articulate  # noqa: E402
from training.characters import Character, make_character  # noqa: E402
from training.performance import (  # noqa: E402
    CameraMove,
    Performance,
    perform,
    silent_performance,
    still_camera,
)
from training.render import render  # noqa: E402
from training.voices import Utterance, Voice, join, on_whole_frames, say, silence  # noqa: E402

TRUTH = REPO / "tests" / "data" / "mouth_openings.json"
FPS = 25
PICTURE, VIDEO = 480, 384  # pixels, square
HALF = 416  # pixels: width of each half of the picture of two people
VIDEO_FRAMES = 75
WOMAN, MAN = 1_000_043, 1_000_036  # seeds of characters
VOICES = {
    "voice.wav": (
        Voice("en-us-nyc+f3", rate=150, pitch=52),
        "Hello! I was only a drawing, until this voice brought me to life.",
    ),
    "voice_2.wav": (
        Voice("en-gb-scotland+m3", rate=148, pitch=42),
        "Nice to meet you. Shall we make a film together?",
    ),
}
# Her speech in the silent video: other words in another rhythm than the voices that dub it.
ORIGINAL = Voice("en-gb-scotland+f5", rate=165), "Lemons and melons ripen slowly, even under a window."
PAUSE_BEFORE, PAUSE_AFTER = 0.1, 0.2  # seconds

# Depth in the convention of depth nodes: brighter is nearer, 0 … 255.
WALL, BODY, HEAD, NOSE = 70, 165, 190, 60
MARGIN = 0.04  # share of the picture: margin of the mask around the head, which moves differently in the dubbed video

Frames = NDArray[np.uint8]
Mask = NDArray[np.float32]


def utterance(voice: Voice, text: str) -> Utterance:
    """Return the spoken text with a pause before and after it."""
    return on_whole_frames(join([silence(PAUSE_BEFORE), say(text, voice), silence(PAUSE_AFTER)]))


def write_voices(folder: Path) -> dict[str, list[float]]:
    """Write the recordings, mono, 16 bit; return the mouth opening in each of their frames."""
    openings = {}
    for name, (voice, text) in VOICES.items():
        spoken = utterance(voice, text)
        samples = (spoken.sound.waveform[0].numpy() * 32767).round().clip(-32768, 32767).astype("<i2")
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(spoken.sound.sample_rate_hz)
            file.writeframes(samples.tobytes())
        openings[name] = [round(float(value), 3) for value in articulate(spoken).opening]
    return openings


def resting_performance(seed: int) -> Performance:
    """Return one frame of a performance that looks into the camera, mouth and eyes at rest."""
    still = silent_performance(1, seed)
    level = {name: getattr(still, name) * 0 for name in ("blink", "gaze_x", "gaze_y", "hand", "pitch")}
    return replace(still, **level, yaw=still.yaw * 0.5)


def source_performance() -> Performance:
    """Return the woman's performance in the video."""
    words = articulate(utterance(*ORIGINAL))
    tracks = (getattr(words, name)[:VIDEO_FRAMES] for name in ("opening", "width", "energy"))
    made = perform(Articulation(*tracks), WOMAN)
    return replace(made, hand=made.hand * 0)


def source_camera() -> CameraMove:
    """Return the video's camera: it moves a little nearer and to the side, and smoothly back."""
    progress = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(VIDEO_FRAMES) / VIDEO_FRAMES)).astype(np.float32)
    return CameraMove(pan_x=0.03 * progress, pan_y=0.01 * progress, zoom=1 + 0.1 * progress, roll=0 * progress)


def write_video(path: Path) -> None:
    """Write the video as H.264 without sound."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.width = stream.height = VIDEO
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryslow"}
        for frame in render(make_character(WOMAN), source_performance(), source_camera(), VIDEO):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))


def difference_mask(
    first: Character, second: Character, performance: Performance, camera: CameraMove, size: int
) -> Mask:
    """Return the difference of two characters' pictures, (F, size, size), 0 … 1: the shape of the part that differs."""
    pictures = [render(character, performance, camera, size).astype(np.float32) for character in (first, second)]
    return np.clip(np.abs(pictures[0] - pictures[1]).max(axis=-1) / 160, 0, 1)


def person_masks(seed: int, performance: Performance, camera: CameraMove, size: int) -> tuple[Mask, Mask]:
    """Return the masks of the whole person and of the clothes: (F, size, size), 0 … 1."""
    bare = replace(make_character(seed), props=())
    dark, bright = (20, 20, 20), (250, 250, 250)
    wall = [replace(bare, wall=(color, color)) for color in (dark, bright)]
    cloth = [replace(bare, shirt=color, under=color) for color in (dark, bright)]
    return 1 - difference_mask(*wall, performance, camera, size), difference_mask(*cloth, performance, camera, size)


def depth_picture(seed: int, performance: Performance, size: int) -> Image.Image:
    """Return the depth picture: the head in front of the shoulders, both far in front of the wall."""
    (person,), (clothes,) = person_masks(seed, performance, still_camera(1), size)
    y, x = np.mgrid[0:size, 0:size] / size
    middle_x, middle_y = 0.5 + float(performance.shift_x[0]), 0.5 + float(performance.shift_y[0])
    round_head = np.clip(1 - ((x - middle_x) / 0.3) ** 2 - ((y - middle_y) / 0.4) ** 2, 0, 1) ** 0.5
    near = clothes * BODY + (1 - clothes) * (HEAD + NOSE * round_head)
    picture = WALL + (near - WALL) * person
    return Image.fromarray(cv2.GaussianBlur(picture.astype(np.float32), (0, 0), size / 240).round().astype(np.uint8))


def face_mask(seed: int, performance: Performance, camera: CameraMove, size: int) -> Image.Image:
    """Return a mask, white where the head is at any time of the video, with a soft edge."""
    person, clothes = person_masks(seed, performance, camera, size)
    head = ((person - clothes) > 0.5).any(axis=0).astype(np.uint8)
    reach = round(MARGIN * size)
    # Morphological opening first, to remove thin rims between clothes and wall.
    head = cv2.dilate(cv2.morphologyEx(head, cv2.MORPH_OPEN, _round_kernel(reach // 2)), _round_kernel(reach))
    return Image.fromarray((cv2.GaussianBlur(head.astype(np.float32), (0, 0), reach / 3) * 255).astype(np.uint8))


def _round_kernel(reach: int) -> NDArray[np.uint8]:
    """Return a round kernel of radius `reach` for cv2's morphology."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)), np.uint8)


def two_people() -> Image.Image:
    """Draw the woman and the man in front of one wall."""
    woman, man = make_character(WOMAN), make_character(MAN)
    # Objects between the two people would be cut where the pictures meet.
    left, right = ([p for p in woman.props if p.x < 0.5], [p for p in man.props if p.x > 0.5])
    woman = replace(woman, props=tuple(left))
    man = replace(man, props=tuple(right), wall=woman.wall, light=woman.light)
    cut = (PICTURE - HALF) // 2
    halves = [
        render(who, resting_performance(who.seed), still_camera(1), PICTURE)[0, :, cut : cut + HALF]
        for who in (woman, man)
    ]
    return Image.fromarray(np.concatenate(halves, axis=1))


def write_pictures(folder: Path) -> None:
    """Write the portrait with its depth, the mask of the video's head, and the two people."""
    portrait = render(make_character(WOMAN), resting_performance(WOMAN), still_camera(1), PICTURE)[0]
    pictures = {
        "portrait": Image.fromarray(portrait),
        "portrait_depth": depth_picture(WOMAN, resting_performance(WOMAN), PICTURE),
        "face_mask": face_mask(WOMAN, source_performance(), source_camera(), VIDEO),
        "two_people": two_people(),
    }
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the sample media.")
    parser.add_argument("folder", type=Path, nargs="?", default=REPO / "samples")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(folder)
    write_video(folder / "portrait.mp4")
    openings = write_voices(folder)
    TRUTH.parent.mkdir(parents=True, exist_ok=True)
    TRUTH.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {v}" for k, v in openings.items()) + "\n}\n")
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 1e3:7.1f} kB  {path.name}")


if __name__ == "__main__":
    main()

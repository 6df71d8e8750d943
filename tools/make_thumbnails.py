"""Draw the thumbnails of the workflows: the sample picture, the workflow's effect on it, and the voice's waveform.

python tools/make_thumbnails.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageOps
from workflow_designs import APPS, GRAPHS, PARTS

REPO = Path(__file__).resolve().parents[1]
SAMPLES, WORKFLOWS = REPO / "samples", REPO / "workflows"
# Workflow: the picture and the voices in order.
THUMBNAILS: dict[str, tuple[str, tuple[str, ...]]] = {
    "talking_picture_app": ("portrait.png", ("voice.wav",)),
    "dub_a_video_app": ("portrait.mp4", ("voice.wav",)),
    "two_people_app": ("two_people.png", ("voice.wav", "voice_2.wav")),
    "parts_by_path": ("portrait.mp4", ("voice.wav",)),
    "talking_portrait": ("portrait.png", ("voice.wav",)),
    "two_speakers": ("two_people.png", ("voice.wav", "voice_2.wav")),
    "video_dubbing": ("portrait.mp4", ("voice.wav",)),
    "dub_keep_camera_uni3c": ("portrait.mp4", ("voice.wav",)),
    "dub_keep_camera_sdedit": ("portrait.mp4", ("voice.wav",)),
    "dub_face_only": ("portrait.mp4", ("voice.wav",)),
    "camera_path_portrait": ("portrait.png", ("voice.wav",)),
}
SIDE, WAVE = 512, 128  # pixels: the square thumbnail, the height of the waveform at its bottom
BARS, SMOOTH = 64, 3  # bars of the waveform; supersampling factor
INK = (22, 24, 33)
COLORS = ((92, 214, 192), (255, 158, 94))  # one per voice
JPEG_QUALITY = 85


def zoom_in(picture: Image.Image, share: float) -> Image.Image:
    """Zoom in, most at `share` 1."""
    edge = round(0.16 * share * picture.width)
    return picture.crop((edge, edge // 2, picture.width - edge, picture.height - 3 * edge // 2))


def blend_from_noise(picture: Image.Image, share: float) -> Image.Image:
    """Blend from noise to the picture while `share` goes from 0 to 1."""
    shape = (picture.height // 12, picture.width // 12, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    coarse = Image.fromarray(noise).resize(picture.size, Image.Resampling.NEAREST)
    return Image.blend(coarse, picture, min(0.35 + 0.65 * share, 1.0))


def gray_outside_face(picture: Image.Image, share: float) -> Image.Image:
    """Make everything gray except the area of the face mask."""
    mask = Image.open(SAMPLES / "face_mask.png")
    return Image.composite(picture, ImageOps.grayscale(picture).point(lambda v: v * 0.6).convert("RGB"), mask)


def show_half_depth(picture: Image.Image, share: float) -> Image.Image:
    """Replace the right half by the depth."""
    depth = Image.open(SAMPLES / "portrait_depth.png").convert("RGB")
    mask = Image.new("L", picture.size)
    middle = picture.width // 2
    ImageDraw.Draw(mask).rectangle((middle, 0, picture.width, picture.height), fill=255)
    return Image.composite(depth, picture, mask)


# Workflow: effect (picture, time in the video from 0 to 1) → picture.
EFFECTS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "dub_keep_camera_uni3c": zoom_in,
    "dub_keep_camera_sdedit": blend_from_noise,
    "dub_face_only": gray_outside_face,
    "camera_path_portrait": show_half_depth,
}


def draw_thumbnail(name: str) -> Image.Image:
    """Draw the thumbnail of a workflow."""
    picture, voices = THUMBNAILS[name]
    effect = EFFECTS.get(name, lambda picture, share: picture)
    canvas = Image.new("RGB", (SIDE, SIDE), INK)
    if picture.endswith(".mp4"):
        _draw_film_strip(canvas, SAMPLES / picture, effect)
    else:
        shown = effect(Image.open(SAMPLES / picture).convert("RGB"), 0.0)
        canvas.paste(_scale_and_crop(shown, SIDE, SIDE - WAVE), (0, 0))
    canvas.paste(_waveform([_samples(SAMPLES / voice) for voice in voices]), (0, SIDE - WAVE))
    return canvas


def _draw_film_strip(canvas: Image.Image, video: Path, effect: Callable[[Image.Image, float], Image.Image]) -> None:
    """Draw three frames of the video side by side on a film strip."""
    hole, gap, edge = 14, 8, 34
    width, height = (SIDE - 4 * gap) // 3, SIDE - WAVE - 2 * edge
    with av.open(str(video)) as file:
        shown = [frame.to_image() for frame in file.decode(video=0)]
    for i, frame in enumerate(shown[len(shown) // 6 :: len(shown) // 3][:3]):
        canvas.paste(_scale_and_crop(effect(frame, i / 2), width, height), (gap + i * (width + gap), edge))
    pen = ImageDraw.Draw(canvas)
    for x in range(gap, SIDE, 2 * hole):
        for y in (edge - hole - 6, SIDE - WAVE - edge + 6):
            pen.rounded_rectangle((x, y, x + hole, y + hole), 4, fill=(58, 62, 80))


def _scale_and_crop(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale and crop a picture to width x height; the crop keeps the upper part, where faces are."""
    scale = max(width / picture.width, height / picture.height)
    large = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    left, top = (large.width - width) // 2, (large.height - height) // 3
    return large.crop((left, top, left + width, top + height))


def _waveform(voices: list[np.ndarray]) -> Image.Image:
    """Draw the loudness as rounded bars, each voice in its own color."""
    width, height = SIDE * SMOOTH, WAVE * SMOOTH
    strip = Image.new("RGB", (width, height), INK)
    pen = ImageDraw.Draw(strip)
    total = sum(len(voice) for voice in voices)
    loudness = np.concatenate(voices)
    edges = np.linspace(0, total, BARS + 1).astype(int)
    levels = np.sqrt(np.add.reduceat(loudness**2, edges[:-1]) / np.diff(edges))
    step = width / (BARS + 2)
    for i, level in enumerate(levels / levels.max()):
        half = max(0.04, 0.42 * float(level) ** 0.7) * height
        color = COLORS[0 if edges[i] < len(voices[0]) else 1]
        x = (i + 1.2) * step
        pen.rounded_rectangle((x, height / 2 - half, x + 0.6 * step, height / 2 + half), 0.3 * step, fill=color)
    return strip.resize((SIDE, WAVE), Image.Resampling.LANCZOS)


def _samples(voice: Path) -> np.ndarray:
    with av.open(str(voice)) as file:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
        parts = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts)


def main() -> None:
    for design in (*APPS, *GRAPHS, PARTS):
        path = WORKFLOWS / f"{design.title}.jpg"
        draw_thumbnail(design.name).save(path, quality=JPEG_QUALITY, optimize=True)
        print(f"{path.relative_to(REPO)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""Draw the thumbnails of the workflows: the sample picture with the voice's waveform under it.

python tools/make_thumbnails.py
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

REPO = Path(__file__).resolve().parents[1]
SAMPLES, WORKFLOWS = REPO / "samples", REPO / "workflows"
# Workflow: the picture, and the voices one after the other.
THUMBNAILS: dict[str, tuple[str, tuple[str, ...]]] = {
    "talking_portrait": ("portrait.png", ("voice.wav",)),
    "two_speakers": ("two_people.png", ("voice.wav", "voice_2.wav")),
    "video_dubbing": ("portrait.mp4", ("voice.wav",)),
}
SIDE, WAVE = 512, 128  # pixels: the square thumbnail, the height of the waveform at its foot
BARS, SMOOTH = 64, 3  # bars of the waveform; drawn this many times too large, then scaled down
INK = (22, 24, 33)
COLOURS = ((92, 214, 192), (255, 158, 94))  # one a voice
JPEG_QUALITY = 85


def draw(picture: str, voices: tuple[str, ...]) -> Image.Image:
    """The thumbnail."""
    canvas = Image.new("RGB", (SIDE, SIDE), INK)
    if picture.endswith(".mp4"):
        _film(canvas, SAMPLES / picture)
    else:
        canvas.paste(_cover(Image.open(SAMPLES / picture).convert("RGB"), SIDE, SIDE - WAVE), (0, 0))
    canvas.paste(_waveform([_samples(SAMPLES / voice) for voice in voices]), (0, SIDE - WAVE))
    return canvas


def _film(canvas: Image.Image, video: Path) -> None:
    """Three moments of the video, side by side, on a strip with holes."""
    hole, gap, edge = 14, 8, 34
    width, height = (SIDE - 4 * gap) // 3, SIDE - WAVE - 2 * edge
    with av.open(str(video)) as file:
        shown = [frame.to_image() for frame in file.decode(video=0)]
    for i, frame in enumerate(shown[:: len(shown) // 3][:3]):
        canvas.paste(_cover(frame, width, height), (gap + i * (width + gap), edge))
    pen = ImageDraw.Draw(canvas)
    for x in range(gap, SIDE, 2 * hole):
        for y in (edge - hole - 6, SIDE - WAVE - edge + 6):
            pen.rounded_rectangle((x, y, x + hole, y + hole), 4, fill=(58, 62, 80))


def _cover(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled and cut to fill width x height; faces are in the upper middle, so the top stays."""
    scale = max(width / picture.width, height / picture.height)
    large = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    left, top = (large.width - width) // 2, (large.height - height) // 3
    return large.crop((left, top, left + width, top + height))


def _waveform(voices: list[np.ndarray]) -> Image.Image:
    """Loudness as rounded bars; each voice in its colour."""
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
        colour = COLOURS[0 if edges[i] < len(voices[0]) else 1]
        x = (i + 1.2) * step
        pen.rounded_rectangle((x, height / 2 - half, x + 0.6 * step, height / 2 + half), 0.3 * step, fill=colour)
    return strip.resize((SIDE, WAVE), Image.Resampling.LANCZOS)


def _samples(voice: Path) -> np.ndarray:
    with av.open(str(voice)) as file:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
        parts = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts)


def main() -> None:
    for name, (picture, voices) in THUMBNAILS.items():
        path = WORKFLOWS / f"{name}.jpg"
        draw(picture, voices).save(path, quality=JPEG_QUALITY, optimize=True)
        print(f"{path.relative_to(REPO)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

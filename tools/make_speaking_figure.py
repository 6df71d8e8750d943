"""Draw docs/speaking.png: frames of the demo's video above the voice's waveform and the mouth opening.

    python3 tools/demo.py && .venv/bin/python tools/make_speaking_figure.py [VIDEO]

VIDEO is a video of the demo with samples/voice.wav, by default the newest one. Needs matplotlib (`training` in
pyproject.toml).
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from evaluation.sync import mouth_opening, sync  # noqa: E402

VIDEOS = REPO / ".demo" / "base" / "output" / "video"
VOICE = REPO / "samples" / "voice.wav"
TRUTH = REPO / "tests" / "data" / "mouth_openings.json"
PICTURE = REPO / "docs" / "speaking.png"
FPS = 25
SHOWN = 9  # frames side by side
SIDE = 192  # pixels of each: twice the small model's size
HEIGHT, DPI = 600, 160  # of the figure
INK, VOICE_COLOR, TRUTH_COLOR, MADE_COLOR = "#3b3f51", "#9aa4b8", "#2a9d8f", "#d1495b"

Frames = NDArray[np.uint8]
Track = NDArray[np.float64]


def newest_video() -> Path:
    """Return the demo's newest video, not its enlarged copy."""
    videos = [path for path in VIDEOS.glob("*.mp4") if not path.stem.endswith("_large")]
    if not videos:
        sys.exit("there is no video of the demo; run: python3 tools/demo.py")
    return max(videos, key=lambda path: path.stat().st_mtime)


def frames_of(video: Path) -> Frames:
    """Read all frames, (F, H, W, 3)."""
    with av.open(str(video)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def waveform(bins: int) -> Track:
    """Return the peaks of the voice, (bins,), 1 is the loudest."""
    with wave.open(str(VOICE)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    peaks = np.maximum.reduceat(np.abs(samples), np.linspace(0, len(samples), bins, endpoint=False).astype(int))
    return np.asarray(peaks / peaks.max())


def choose_frames(truth: Track) -> list[int]:
    """Choose one frame in each of SHOWN equal parts: alternately the widest and the least mouth opening."""
    edges = np.linspace(0, len(truth), SHOWN + 1).astype(int)
    parts = [truth[start:stop] for start, stop in pairwise(edges)]
    picks = [part.argmin() if i % 2 == 0 else part.argmax() for i, part in enumerate(parts)]
    return [int(start + pick) for start, pick in zip(edges[:-1], picks, strict=True)]


def fit_to_truth(opening: Track, truth: Track) -> Track:
    """Scale the measured opening, in picture heights, to the unit of the truth (least squares)."""
    slope, level = np.polyfit(opening, truth, 1)
    return np.asarray(slope * opening + level)


def draw_figure(frames: Frames, truth: Track) -> Any:
    """Draw the figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    opening = mouth_opening(torch.from_numpy(frames).float() / 255).astype(np.float64)
    found = sync(opening, truth)
    shown = choose_frames(truth)
    pyplot.rcParams.update({"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK})
    figure = pyplot.figure(figsize=(SHOWN * SIDE / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    for i, frame in enumerate(shown):
        axes = figure.add_axes((i / SHOWN, 1 - SIDE / HEIGHT, 1 / SHOWN, SIDE / HEIGHT))
        axes.imshow(Image.fromarray(frames[frame]).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        axes.set_axis_off()
    seconds = np.arange(len(truth)) / FPS
    sound = figure.add_axes((0.01, 0.45, 0.98, 0.2))
    peaks = waveform(900)
    sound.fill_between(np.linspace(0, len(truth) / FPS, len(peaks)), -peaks, peaks, color=VOICE_COLOR, linewidth=0)
    mouth = figure.add_axes((0.01, 0.1, 0.98, 0.25))
    mouth.fill_between(seconds, truth, color=TRUTH_COLOR, alpha=0.25, linewidth=0, label="what the voice asks for")
    mouth.plot(seconds, fit_to_truth(opening, truth), color=MADE_COLOR, linewidth=1.4, label="measured in the video")
    figure.text(0.99, 0.05, "seconds", ha="right")
    figure.text(0.01, 0.378, f"mouth opening: correlation {found.correlation:.2f}, lag {found.lag} frames")
    figure.legend(*mouth.get_legend_handles_labels(), loc=(0.6, 0.365), frameon=False, ncols=2)
    for axes in (sound, mouth):
        axes.set_xlim(0, len(truth) / FPS)
        axes.set_yticks([])
        for i in shown:
            axes.axvline(i / FPS, color=INK, linewidth=0.5, alpha=0.35)
        for side in ("top", "left", "right", "bottom"):
            axes.spines[side].set_visible(False)
    sound.set_xticks([])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("video", type=Path, nargs="?")
    video: Path = parser.parse_args().video or newest_video()
    truth = np.array(json.loads(TRUTH.read_text())[VOICE.name])
    frames = frames_of(video)
    if len(frames) != len(truth):
        sys.exit(f"{video.name} has {len(frames)} frames, {VOICE.name} lasts {len(truth)}: it is not the demo's video")
    draw_figure(frames, truth).savefig(PICTURE)
    print(f"{PICTURE.relative_to(REPO)}: {PICTURE.stat().st_size / 1000:.0f} kB, from {video.name}")


if __name__ == "__main__":
    main()

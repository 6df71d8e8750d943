"""Put drifts of known size into true videos, hold their colors, and show how far they are from the true ones.

    python3 benchmarks/color_hold.py [--speakers 3] [--video FILE]... [--models FOLDER]

The judge is the true video, pixel by pixel: it shares nothing with the holds. Drifts grow over the first half of each
video, and stay. The true videos are those of benchmarks/sight.py. With --models each drawn video goes through the VAE
before the drift, as a chunk does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.sight import FRAMES, UNSEEN, TrueVideo, drawn, filmed
from benchmarks.sight_faults import turned
from evaluation.sync import correlation, mouth_opening
from evaluation.temporal import block_colors, flicker
from infinitetalk_core.chunks.color import COLOR_HOLD_FRAMES, hold_color, lab_to_rgb, rgb_to_lab
from infinitetalk_core.chunks.color_difference import ciede2000
from infinitetalk_core.chunks.local_color import hold_local_color

Hold = Callable[..., Tensor]
HOLDS: dict[str, Hold] = {"none": lambda frames, *_: frames, "picture": hold_color, "region": hold_local_color}


@dataclass(frozen=True)
class Drift:
    """A video whose colors drift, and where: masks (F, H, W)."""

    name: str
    frames: Tensor
    where: Tensor


def drifts(video: TrueVideo) -> Iterator[Drift]:
    """Yield the video with drifts."""
    frames, clothes, wall = video.frames, video.clothes.float(), video.wall.float()
    share = torch.linspace(0, 2, len(frames)).clamp(max=1)[:, None, None, None]
    yield Drift("none", frames, torch.ones_like(wall))
    for units in (3.0, 6.0, 12.0):
        yield Drift(f"clothes turned by {units:g}", torch.lerp(frames, turned(frames, clothes, units), share), clothes)
        yield Drift(f"wall tinted by {units:g}", torch.lerp(frames, turned(frames, wall, units, 20.0), share), wall)
    both = turned(turned(frames, wall, 6.0, 20.0), clothes, 12.0)
    yield Drift("clothes by 12, wall by 6", torch.lerp(frames, both, share), torch.maximum(wall, clothes))
    darker = lab_to_rgb(rgb_to_lab(frames) - torch.tensor([4.0, 0.0, 0.0]))
    yield Drift("all darker by 4", torch.lerp(frames, darker, share), torch.ones_like(wall))


def difference(held: Tensor, true: Tensor) -> Tensor:
    """Return CIEDE2000 between two videos (F, H, W, 3), of colors averaged over 3 x 3 pixels: (F, H, W)."""
    soft = [torch.nn.functional.avg_pool2d(v.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1) for v in (held, true)]
    return torch.cat(
        [ciede2000(rgb_to_lab(a), rgb_to_lab(b)) for a, b in zip(*(s.split(25) for s in soft), strict=True)]
    )


def report(video: TrueVideo, chunk: int) -> None:
    """Print the numbers of all drifts and holds of a video, held in pieces of `chunk` frames as chunks are."""
    for drift in drifts(video):
        inside = (drift.where > 0.5)[len(video.frames) // 2 :]
        for name, hold in HOLDS.items():
            started = time.monotonic()
            held = torch.cat(
                [hold(f, video.frames[0], 1.0, None, COLOR_HOLD_FRAMES) for f in drift.frames.split(chunk)]
            )
            seconds = time.monotonic() - started
            away = difference(held, video.frames)[len(video.frames) // 2 :]
            there, elsewhere = away[inside], away[~inside]
            print(
                f"{video.name:14} {drift.name:26} {name:8} there {there.mean():5.2f} "
                f"worst 5% {there.quantile(0.95) if there.numel() < 1 << 24 else 0:5.2f} "
                f"elsewhere {elsewhere.mean() if elsewhere.numel() else 0:5.2f} "
                f"worst 5% {elsewhere.quantile(0.95) if elsewhere.numel() else 0:5.2f} "
                f"flicker {flicker(block_colors(held)) or 0:5.3f} "
                f"mouth {correlation(mouth_opening(held), mouth_opening(video.frames)):.3f} {seconds:4.1f} s",
                flush=True,
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--speakers", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=FRAMES)
    parser.add_argument("--video", type=Path, action="append", default=[])
    asked = parser.parse_args()
    for number in range(asked.first, asked.first + asked.speakers):
        report(drawn(UNSEEN + number), asked.chunk)
    for path in asked.video:
        report(filmed(path), asked.chunk)


if __name__ == "__main__":
    main()

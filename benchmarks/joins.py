"""Measure the joins of the delivered file: how much the picture changes there, beside the same frames as one stream.

    python3 benchmarks/joins.py [VIDEO] [--format H.264|HEVC|AV1]
    python3 benchmarks/joins.py --delivered output/video/InfiniteTalk_00001_.mp4

Takes the frames of VIDEO (default: a textured picture with a moving part) as if they came from chunks of 81 frames with
9 context frames, writes them once as the pack does and once with one encoder, and prints for each file: the mean step
between neighboring frames at the joins and at the key frames, in levels of 255, and the size.

With --delivered, prints for each chunk of a video that the pack made, from the report beside it, the seam of its frames
before encoding and that of the decoded file (both as in infinitetalk_core/chunks/metrics.py: 1 is as smooth as inside).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from infinitetalk_core.chunks.assembly import Assembly
from infinitetalk_core.chunks.groups import plan_groups
from infinitetalk_core.chunks.plan import Chunk, plan_chunks
from infinitetalk_core.video.format import Codec, VideoFormat
from infinitetalk_core.video.segment import encode_segment, to_pictures
from infinitetalk_core.video.writer import VideoWriter


@dataclass(frozen=True)
class Steps:
    """Changes between neighboring frames of a file, in levels of 255. keys: key frames after the first."""

    steps: np.ndarray
    keys: tuple[int, ...]
    size_bytes: int

    def at(self, frames: Sequence[int]) -> float:
        """Return the mean step into `frames`."""
        return float(np.mean([self.steps[frame - 1] for frame in frames])) if frames else 0.0


def steps_of(file: Path | io.BytesIO) -> Steps:
    """Decode a file and measure its steps."""
    steps, keys, before = [], [], None
    with av.open(file if isinstance(file, io.BytesIO) else str(file)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            picture = frame.to_ndarray(format="rgb24").astype(np.int16)
            if before is not None:
                steps.append(np.abs(picture - before).mean())
                keys += [number] if frame.key_frame else []
            before = picture
    size = len(file.getvalue()) if isinstance(file, io.BytesIO) else file.stat().st_size
    return Steps(np.array(steps), tuple(keys), size)


def as_delivered(frames: Tensor, plan: Sequence[Chunk], video_format: VideoFormat, path: Path) -> Steps:
    """Write frames (F, H, W, 3) like a run does, and measure the file."""
    with VideoWriter(path, None) as writer, Assembly(writer, plan_groups(plan), video_format) as assembly:
        for chunk in plan:
            assembly.add(chunk.keep, to_pictures(frames[chunk.first : chunk.stop], video_format))
    return steps_of(path)


def as_one_stream(frames: Tensor, video_format: VideoFormat) -> Steps:
    """Encode frames with one encoder, and measure that."""
    return steps_of(io.BytesIO(encode_segment(frames, video_format)))


def film(path: Path, most: int) -> Tensor:
    """Read the first frames of a video as (F, H, W, 3), with even sides."""
    with av.open(str(path)) as container:
        frames = [
            torch.from_numpy(f.to_ndarray(format="rgb24"))
            for _, f in zip(range(most), container.decode(video=0), strict=False)
        ]
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    return torch.stack(frames)[:, :height, :width].float() / 255


def moving_picture(frames: int, height: int = 128, width: int = 192, noise: float = 0.006) -> Tensor:
    """Return a textured picture with a moving part and fine noise: (F, H, W, 3)."""
    return torch.stack(list(_moving(frames, height, width, noise)))


def _moving(frames: int, height: int, width: int, noise: float) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(3)
    texture = torch.nn.functional.interpolate(
        torch.rand(1, 3, height // 8, width // 8, generator=generator), (height, width), mode="bicubic"
    )
    ground = texture[0].permute(1, 2, 0).clamp(0, 1)
    for number in range(frames):
        picture = ground.clone()
        left = round((0.5 + 0.4 * np.sin(number / 9)) * (width - 40))
        picture[40:80, left : left + 40] = ground[40:80, :40].flip(1)
        yield (picture + noise * torch.randn(picture.shape, generator=generator)).clamp(0, 1)


def seams_of_file(video: Path) -> list[tuple[float, float, float]]:
    """Return (seconds, seam of the frames, seam of the file) of each chunk that continues another one."""
    chunks = json.loads(video.with_suffix(".json").read_text())["chunks"]
    steps = steps_of(video).steps
    found, start = [], 0
    for chunk in chunks:
        if chunk["seam"] is not None:
            inside = float(np.median(steps[start : start + chunk["frames"] - 1]))
            found.append((chunk["seconds"], chunk["seam"], float(steps[start - 1]) / max(inside, 1e-6)))
        start += chunk["frames"]
    return found


def print_seams(video: Path) -> None:
    """Print the seams of a delivered video, and their means."""
    found = seams_of_file(video)
    print("| join at | seam of the frames | seam of the file |\n| --- | --- | --- |")
    for seconds, frames, file in found:
        print(f"| {seconds:.2f} s | {frames:.2f} | {file:.2f} |")
    print(f"| mean | {np.mean([f for _, f, _ in found]):.2f} | {np.mean([f for *_, f in found]):.2f} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("--format", default=Codec.H264.value, choices=[codec.value for codec in Codec])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--delivered", type=Path)
    asked = parser.parse_args()
    if asked.delivered:
        print_seams(asked.delivered)
        return
    frames = film(asked.video, asked.frames) if asked.video else moving_picture(asked.frames)
    video_format = VideoFormat(Codec(asked.format)).check(*frames.shape[1:3])
    plan = plan_chunks(len(frames))
    joins = [chunk.first for chunk in plan if chunk.context]
    source = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3)).numpy() * 255
    with TemporaryDirectory() as folder:
        found = {
            "as delivered": as_delivered(frames, plan, video_format, Path(folder) / "v.mp4"),
            "one stream": as_one_stream(frames, video_format),
        }
    print(f"joins at {joins}; step into them before encoding {np.mean(source[[j - 1 for j in joins]]):.2f} of 255")
    print("| file | step at joins | at key frames | key frames | kB |\n| --- | --- | --- | --- | --- |")
    for name, steps in found.items():
        at_keys = f"{steps.at(steps.keys):.2f}" if steps.keys else "-"
        print(f"| {name} | {steps.at(joins):.2f} | {at_keys} | {len(steps.keys)} | {steps.size_bytes / 1000:.0f} |")
    print(f"joins, delivered / one stream: {found['as delivered'].at(joins) / found['one stream'].at(joins):.3f}")


if __name__ == "__main__":
    main()

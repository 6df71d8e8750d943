"""Measure the time to fingerprint a job's files by their content at its start.

    python benchmarks/fingerprints.py [--video-gb 2] [--model-gb 16] [--folder DIR]

Writes a video of random bytes and a sparse model file, and times a fingerprint of samples of 16 MB, one of the whole
content, and one cached by the file's modification stamp; the files are in the page cache if they fit. Then a video is
decoded by its path and through an open handle, alternately.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import av

from infinitetalk_core.fingerprint import FileFingerprints, tensor_fingerprint

REPO = Path(__file__).resolve().parent.parent
GB = 10**9
BLOCK, BLOCKS = 1 << 16, 256


def sampled_fingerprint(path: Path) -> str:
    """Return the SHA-256 of the size and 256 blocks of 64 KB: the previous definition of the fingerprint."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(BLOCKS):
            file.seek((size - BLOCK) * number // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def best_ms(run: Callable[[], object], times: int = 5) -> float:
    """Return the least time of several runs, in milliseconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken)


def decode(path: Path, through_handle: bool) -> float:
    """Decode all pictures and return the time in seconds."""
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file, av.open(file if through_handle else str(path)) as container:
        for _ in container.decode(video=0):
            pass
    return time.perf_counter() - start


def write_video(path: Path, seconds: int) -> None:
    """Write a noisy video, which needs many bytes per picture."""
    import numpy as np

    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10"})
        stream.width, stream.height = 1280, 720
        for _ in range(25 * seconds):
            picture = random.integers(0, 256, (720, 1280, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video-gb", type=float, default=2.0)
    parser.add_argument("--model-gb", type=float, default=16.0)
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's folder for such files")
    options = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        video_file, model_file = Path(folder) / "video.mp4", Path(folder) / "model.safetensors"
        piece = os.urandom(1 << 24)
        with video_file.open("wb") as file:
            while file.tell() < options.video_gb * GB:
                file.write(piece)
        with model_file.open("wb") as file:
            file.truncate(int(options.model_gb * GB))
        files = FileFingerprints()
        print("| | by samples, before | first time in a process | remembered |\n|---|---|---|---|")
        for name, path in (("video", video_file), ("model", model_file)):

            def whole(path: Path = path) -> object:
                return FileFingerprints().of(path)

            def known(path: Path = path) -> object:
                return files.of(path)

            def before(path: Path = path) -> object:
                return sampled_fingerprint(path)

            known()
            size = path.stat().st_size / GB
            times = [best_ms(run) for run in (before, whole, known)]
            print(f"| {name} of {size:.0f} GB | " + " | ".join(f"{ms:.2f} ms" for ms in times) + " |")
        pictures = torch.rand(100, 480, 832, 3)
        size, taken = pictures.numel() * 4 / GB, best_ms(lambda: tensor_fingerprint(pictures))
        print(f"| 100 pictures of 832 x 480 ({size:.2f} GB) | | {taken:.2f} ms | |")
        noise = Path(folder) / "noise.mp4"
        write_video(noise, 4)
        rate = noise.stat().st_size * 8 / 4 / 1e6
        pairs = [(decode(noise, False), decode(noise, True)) for _ in range(5)]
        ratio = median(handle / name for name, handle in pairs)
        speed = 4 / median(handle for _, handle in pairs)
        print(f"\ndecoding a video of {rate:.0f} Mbit/s ({speed:.1f} times as fast as it plays) through an open handle")
        print(f"takes {ratio:.3f} of the time by its name")


if __name__ == "__main__":
    main()

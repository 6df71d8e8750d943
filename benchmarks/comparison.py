"""Shared parts of block.py, step.py and step_invariants.py: sizes, random weights, alternating timing, matrix rate."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

TEXT, PICTURE = 512, 257  # tokens of the text and of CLIP vision
SPEECH, SPEECH_WIDTH = 32, 768  # tokens per latent frame and speaker, and their width
AUDIO_WIDTH = 12 * 768  # width of a frame's speech features


@dataclass(frozen=True)
class Sizes:
    """The sizes of a Wan model and of its input. grid: tokens in time, height and width."""

    dim: int
    heads: int
    ffn: int
    grid: tuple[int, int, int]

    @property
    def tokens(self) -> int:
        """Return the number of video tokens."""
        frames, height, width = self.grid
        return frames * height * width

    def block_operations(self) -> int:
        """Return the multiplications and additions in the matrix products of one block with one speaker."""
        length, c, context = self.tokens, self.dim, TEXT + PICTURE
        speech = self.grid[0] * SPEECH
        in_video = 8 * length * c * c + 4 * length * length * c
        to_text = 4 * length * c * c + 4 * context * c * c + 4 * length * context * c
        to_speech = 4 * length * c * c + 4 * speech * SPEECH_WIDTH * c + 4 * length * SPEECH * c
        return in_video + to_text + to_speech + 4 * length * c * self.ffn


SIZES = {
    "small": Sizes(512, 4, 1408, (5, 16, 16)),
    "480p": Sizes(5120, 40, 13824, (21, 30, 52)),  # the 14B model, 832 x 480
    "720p": Sizes(5120, 40, 13824, (21, 45, 80)),  # 1280 x 720
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all the commands take."""
    parser.add_argument("--size", default="small", choices=list(SIZES), help="480p, 720p: those of the 14B model")
    parser.add_argument("--dim", type=int, help="width, instead of that of --size")
    parser.add_argument("--heads", type=int)
    parser.add_argument("--ffn", type=int)
    parser.add_argument("--grid", type=int, nargs=3, help="latent frames, and height and width in tokens")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="float32 on the CPU, else bfloat16")


def sizes_of(options: argparse.Namespace) -> Sizes:
    """Return the chosen sizes."""
    named = SIZES[options.size]
    grid = tuple(options.grid) if options.grid else named.grid
    return Sizes(options.dim or named.dim, options.heads or named.heads, options.ffn or named.ffn, grid)


def dtype_of(options: argparse.Namespace) -> Any:
    """Return the chosen torch type."""
    import torch

    return getattr(torch, options.dtype or ("float32" if options.device == "cpu" else "bfloat16"))


def fill(module: Any) -> None:
    """Set random weights: norms near one, all others small."""
    import torch

    for name, p in module.named_parameters():
        torch.nn.init.ones_(p) if "norm" in name and p.ndim == 1 else torch.nn.init.normal_(p, std=0.02)


def seconds(run: Callable[[], Any], device: str) -> float:
    """Return the time of a call.

    GPU: wall time including all work that it starts on the GPU. CPU: processor time of this process, which other
    processes influence little (for one thread set OMP_NUM_THREADS=1).
    """
    if device == "cpu":
        began = time.process_time()
        run()
        return time.process_time() - began
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Pair:
    """The times of two functions that run alternately.

    Median seconds of each, the median over the rounds of second / first, and the least time of the second.
    """

    first: float
    second: float
    ratio: float
    least: float


def in_turn(first: Callable[[], Any], second: Callable[[], Any], device: str, rounds: int) -> Pair:
    """Time both functions alternately, after a warm-up call of each; every other round runs them in reverse order."""
    first(), second()
    pairs = []
    for i in range(rounds):
        order = (first, second) if i % 2 == 0 else (second, first)
        took = [seconds(run, device) for run in order]
        pairs.append(tuple(took) if i % 2 == 0 else tuple(reversed(took)))
    first_took, second_took = zip(*pairs, strict=True)
    ratio = median(b / a for a, b in pairs)
    return Pair(median(first_took), median(second_took), ratio, min(second_took))


def matrix_rate(device: str, dtype: Any) -> float:
    """Return the operations per second of a large matrix product on this device: the best of several runs."""
    import torch

    n = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    torch.matmul(a, b)
    return 2 * n**3 / min(seconds(lambda: torch.matmul(a, b), device) for _ in range(8))

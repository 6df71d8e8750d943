"""Measure the speed and the quality of step caching on the small models, against the same videos without it.

    python benchmarks/step_cache.py [--steps 40 --seeds 3 --chunks 3 --thresholds 0.05 0.1 0.2 0.3 0.5]

Needs the packages of the tests. Prints for each threshold, over unseen characters, voices and texts: the share of steps
whose blocks were skipped, the denoising time as a share of the uncached one (processor time, one thread, alternating in
one process), the PSNR to the uncached video, and the correlation of its mouth with the truth. For comparison it prints
the same for fewer steps without a cache.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(REPO), str(REPO / "tools")) if path not in sys.path]

from run_comfyui import make_torchvision_importable  # noqa: E402

make_torchvision_importable()  # transformers imports torchvision, whose build may not match PyTorch's

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.paper_conditions import UNSEEN, Condition  # noqa: E402
from benchmarks.paper_videos import (  # noqa: E402
    Scene,
    load_vae_and_speech_encoder,
    make_backend,
    make_job,
    make_scene,
    make_video,
    psnr,
)
from evaluation.sync import mouth_opening, sync  # noqa: E402
from infinitetalk_core.chunks.conditioning import ChunkConditioning  # noqa: E402
from infinitetalk_core.sampling.step_cache import CALIBRATIONS, StepCache, StepCaching  # noqa: E402
from infinitetalk_core.standalone import TorchBackend  # noqa: E402


@dataclass(frozen=True)
class TimedBackend(TorchBackend):
    """A backend that records how long denoising takes, and its step caches."""

    seconds: list[float] = field(default_factory=list)
    caches: list[StepCache] = field(default_factory=list)

    def new_step_cache(self) -> StepCache | None:
        """Create the step cache of a chunk and record it."""
        cache = super().new_step_cache()
        self.caches.extend([] if cache is None else [cache])
        return cache

    def denoise(self, conditioning: ChunkConditioning, after_step: Callable[[int, Tensor], None]) -> Tensor:
        """Denoise as the base class does, and record the time."""
        started = time.process_time()
        latents = super().denoise(conditioning, after_step)
        self.seconds.append(time.process_time() - started)
        return latents


@dataclass(frozen=True)
class Variant:
    """The settings of a variant. caching: None without a cache."""

    name: str
    steps: int
    caching: StepCaching | None = None


@dataclass(frozen=True)
class Result:
    """The measured video of a variant."""

    frames: Tensor
    seconds: float
    skipped: float
    sync: float


def make_result(variant: Variant, condition: Condition, scene: Scene, seed: int) -> Result:
    """Make and measure the video of `scene` with the settings of `variant`."""
    models = REPO / "small_models"
    job = make_job(condition, scene, seed)
    job = replace(job, sampling=replace(job.sampling, step_cache=variant.caching))
    plain = make_backend(replace(condition, steps=variant.steps), job, models, models)
    timed = TimedBackend(**{**vars(plain), "sampling": replace(plain.sampling, step_cache=variant.caching)})
    frames = make_video(job, timed).frames
    caches = timed.caches
    skipped = fmean(c.skipped / c.steps for c in caches) if caches else 0.0
    return Result(frames, sum(timed.seconds), skipped, sync(mouth_opening(frames), scene.truth).correlation)


def variants(options: argparse.Namespace) -> list[Variant]:
    """Return the variants, the uncached one first."""
    steps = options.steps
    cached = [
        Variant(f"{t:g}, {name}", steps, StepCaching(t, CALIBRATIONS[name], options.first_steps))
        for name in options.calibrations
        for t in options.thresholds
    ]
    fewer = [Variant(f"off, {n} steps", n) for n in (steps * 3 // 4, steps // 2, steps // 4)]
    return [Variant(f"off, {steps} steps", steps), *cached, *fewer]


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--text", type=float, default=1.0, help="text guidance; above 1: 3 predictions per step, with audio guidance"
    )
    parser.add_argument("--audio", type=float, default=2.0, help="audio guidance")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5])
    parser.add_argument("--calibrations", nargs="+", default=["wan 2.1 480p"], choices=list(CALIBRATIONS))
    parser.add_argument("--first-steps", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="unseen characters")
    parser.add_argument("--chunks", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    _, encode = load_vae_and_speech_encoder(REPO / "small_models")
    condition = Condition("", options.chunks, steps=options.steps, text=options.text, audio=options.audio)
    results: dict[str, list[Result]] = {}
    plain: list[Result] = []
    for seed in range(UNSEEN, UNSEEN + options.seeds):
        scene = make_scene(condition, seed, encode)
        if seed == UNSEEN:
            make_result(Variant("warm-up", 4), condition, scene, seed)
        for variant in variants(options):
            results.setdefault(variant.name, []).append(make_result(variant, condition, scene, seed))
        plain.append(results[variants(options)[0].name][-1])
    print(f"{options.steps} steps, {condition.branches} predictions a step, {options.seeds} videos, 96 x 96")
    print("| threshold, calibration | steps skipped | time of denoising | PSNR to uncached | sync |")
    print("|---|---|---|---|---|")
    for name, videos in results.items():
        pairs = list(zip(videos, plain, strict=True))
        same = videos is results[variants(options)[0].name]
        print(
            f"| {name} | {fmean(v.skipped for v in videos):.0%} "
            f"| {median(v.seconds / p.seconds for v, p in pairs):.2f} "
            f"| {'' if same else f'{fmean(psnr(v.frames, p.frames) for v, p in pairs):.1f} dB'} "
            f"| {fmean(v.sync for v in videos):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Measure the step caches of ComfyUI and of other packs beside ours, inside ComfyUI, on the small trained models.

    COMFYUI_DIR=… python benchmarks/foreign_caches.py [--steps 20 --seeds 2 --chunks 2 --audio 2 --text 1]

Needs the packages of the tests. Prints for each cache: the share of the predictions whose blocks were left out, the
PSNR to the video without a cache, and the correlation of its mouth with the truth. EasyCache and LazyCache are
ComfyUI's own; TeaCache and MagCache are the stand-ins of the tests, which patch the model as those packs do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path += [str(REPO / "tools"), str(REPO / "tests" / "support")]

from in_process import comfyui_folder, enter_comfyui, load_pack  # noqa: E402

MODELS = REPO / "small_models"


def variants(pack: str) -> dict[str, Callable[[Any], Any]]:
    """Return a function MODEL -> MODEL with a cache by name, the uncached one first."""
    import step_cache_nodes as nodes

    cache = import_module(f"{pack}.infinitetalk_core.sampling.step_cache")
    attach = import_module(f"{pack}.nodes.host.model.cached_blocks").attach_step_cache

    def ours(threshold: float) -> Callable[[Any], Any]:
        caching = cache.StepCaching(threshold, cache.CALIBRATIONS["none"], 5)
        return lambda model: attach(model, caching)

    def others(node: Callable[[Any, float], Any], threshold: float) -> Callable[[Any], Any]:
        return lambda model: node(model, threshold)

    return {
        "none": lambda model: model,
        **{f"InfiniteTalk Step Cache {t:g}": ours(t) for t in (0.3, 0.6)},
        **{f"EasyCache {t:g}": others(nodes.easycache, t) for t in (0.05, 0.1, 0.2)},
        **{f"LazyCache {t:g}": others(nodes.lazycache, t) for t in (0.05, 0.2)},
        **{f"TeaCache {t:g}": others(nodes.teacache, t) for t in (0.3, 0.6)},
        **{f"MagCache {t:g}": others(nodes.magcache, t) for t in (0.06, 0.12)},
    }


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--text", type=float, default=1.0)
    parser.add_argument("--audio", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=2, help="unseen characters")
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[], help="caches whose names begin like one of these")
    return parser.parse_args()


def main() -> None:
    options = parse()
    enter_comfyui(comfyui_folder())
    pack = load_pack().__name__
    import comfy.samplers
    import comfy.sd
    import comfy.utils
    import torch
    from step_cache_nodes import Passes

    sys.path.append(str(REPO))
    from benchmarks import paper_videos
    from benchmarks.paper_conditions import SHIFT, UNSEEN, Condition
    from evaluation.sync import mouth_opening, sync
    from training import small_models

    torch.set_num_threads(1)
    part = lambda name: import_module(f"{pack}.{name}")  # noqa: E731
    guidance = part("infinitetalk_core.sampling.guidance").Guidance(options.text, options.audio)
    sigmas = part("infinitetalk_core.sampling.schedule").shifted_sigmas(options.steps, SHIFT)
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(MODELS / small_models.VAE)))
    base = comfy.sd.load_diffusion_model(str(MODELS / small_models.DIFFUSION), model_options={"dtype": torch.float32})
    plain = part("nodes.host.model.audio_adapter").patch_model(base, MODELS / small_models.INFINITETALK, 1.0)
    passes = Passes().watch(plain)
    text = [[paper_videos.text_of_words(""), {}]]
    _, encode = paper_videos.load_vae_and_speech_encoder(MODELS)
    condition = Condition("", options.chunks, steps=options.steps, text=options.text, audio=options.audio)

    def make(job: Any, cached: Callable[[Any], Any]) -> tuple[Any, int]:
        passes.items = 0
        backend = part("nodes.host.sampling.backend").ComfyBackend(
            cached(plain), vae, None, text, text, guidance, comfy.samplers.sampler_object("euler"), sigmas
        )
        with torch.inference_mode():
            return paper_videos.make_video(job, backend).frames, passes.items

    rows: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(UNSEEN, UNSEEN + options.seeds):
        scene = paper_videos.make_scene(condition, seed, encode)
        job = paper_videos.make_job(condition, scene, seed)
        uncached: tuple[Any, int] | None = None
        for name, cached in variants(pack).items():
            if options.only and not name.startswith(("none", *options.only)):
                continue
            frames, items = make(job, cached)
            uncached = uncached or (frames, items)
            heard = sync(mouth_opening(frames), scene.truth).correlation
            near = float("inf") if frames is uncached[0] else paper_videos.psnr(frames, uncached[0])
            rows.setdefault(name, []).append((1 - items / uncached[1], near, heard))
            print(f"# {seed} {name} {rows[name][-1]}", file=sys.stderr, flush=True)
    print(f"{options.steps} steps, {condition.branches} predictions a step, {options.seeds} videos, 96 x 96")
    print("| cache, threshold | predictions left out | PSNR to none | sync |")
    print("|---|---|---|---|")
    for name, found in rows.items():
        left_out, near, heard = (fmean(values) for values in zip(*found, strict=True))
        print(f"| {name} | {left_out:.0%} | {'' if near == float('inf') else f'{near:.1f} dB'} | {heard:.3f} |")


if __name__ == "__main__":
    main()

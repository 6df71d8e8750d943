"""Measure the peak memory of each stage of a chunk at real video sizes: 480p and 720p.

    COMFYUI_DIR=… .venv/bin/python benchmarks/peak_memory.py [--size 480p 720p --chunks 3]
    COMFYUI_DIR=… .venv/bin/python benchmarks/peak_memory.py --real --size 480p

Runs a whole job through the nodes' own code into a real file, and samples the memory of the process: RAM beyond that
before the job, by stage, and for each chunk, to show that it does not grow. Without --real, DiT and VAE are replaced
by functions with outputs of the same shapes that compute nothing, so the result is the memory of the pipeline itself:
source, frames, colors, context frames, encoder. With --real the small random models compute (hours on a CPU at these
sizes). On a GPU, PyTorch's peak memory is printed as well.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import psutil
from in_process import comfyui_folder, enter_comfyui, load_pack
from make_tiny_models import write_tiny_models
from pipeline import make_job

SIZES = {"480p": (480, 832), "720p": (720, 1280), "tiny": (64, 96)}
CHUNK, STEP = 81, 72  # frames of a chunk, and new frames of each chunk after the first


class Watch:
    """Samples the process's memory every few milliseconds, by stage."""

    def __init__(self) -> None:
        self.stage = "other"
        self.most: dict[str, int] = defaultdict(int)
        self.chunks: list[int] = [0]
        self._process = psutil.Process()
        self._stop = threading.Event()
        gc.collect()
        self._before = self._process.memory_info().rss

    def during(self, owner: object, method: str, name: str, instead: Callable | None = None) -> None:
        """Attribute calls of `owner.method` to the stage `name`; `instead` replaces the method."""
        inner = instead or getattr(owner, method)

        def watched(*args, **kwargs):
            outside, self.stage = self.stage, name
            try:
                return inner(*args, **kwargs)
            finally:
                self.stage = outside

        setattr(owner, method, watched)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            now = self._process.memory_info().rss - self._before
            self.most[self.stage] = max(self.most[self.stage], now)
            self.chunks[-1] = max(self.chunks[-1], now)
            time.sleep(0.002)


def stand_in_encode(frames):
    """Return latents (1, 16, T, h, w) of the shape that a VAE gives for frames (F, H, W, 3)."""
    import torch.nn.functional as F

    kept = frames[::4].permute(3, 0, 1, 2)[None, :, :, ::8, ::8]
    return F.pad(kept, (0, 0, 0, 0, 0, 0, 0, 13)).contiguous()


def stand_in_decode(latents):
    """Return frames (1, F, H, W, 3) of the shape that a VAE gives for latents (1, 16, T, h, w)."""
    small = latents[0, :3].permute(1, 2, 3, 0).clamp(0, 1)
    frames = small.repeat_interleave(8, 1).repeat_interleave(8, 2)
    first, later = frames[:1], frames[1:].repeat_interleave(4, 0)
    return import_module("torch").cat([first, later])[None]


def measure(size: str, options: argparse.Namespace, pack: str, models: Path) -> Watch:
    """Measure one job."""
    seconds = (CHUNK + (options.chunks - 1) * STEP) / 25
    height, width = SIZES[size]
    encode_and_plan, model, vae = make_job(seconds, (height, width), options.steps, pack, models)
    job = encode_and_plan()
    run = import_module(f"{pack}.nodes.host.sampling.run")
    watch = Watch()
    real = options.real
    watch.during(model.model, "apply_model", "DiT", None if real else lambda x, *a, **k: x)
    watch.during(vae, "encode", "VAE encode", None if real else stand_in_encode)
    watch.during(vae, "decode", "VAE decode", None if real else stand_in_decode)
    dub = import_module(f"{pack}.infinitetalk_core.chunks.dub")
    watch.during(dub, "hold_color", "colors")
    runner = import_module(f"{pack}.infinitetalk_core.runs.runner")
    watch.during(runner, "measure", "metrics")
    watch.during(import_module(f"{pack}.infinitetalk_core.chunks.assembly").Assembly, "add", "H.264")
    decode = vae.decode

    def next_chunk(latents):
        watch.chunks.append(0)  # a chunk lasts from its decoding to the next chunk's
        return decode(latents)

    vae.decode = next_chunk
    with watch:
        hidden = SimpleNamespace(prompt=None, extra_pnginfo=None)
        run.run_job(job, hidden)
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["480p", "720p"])
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--real", action="store_true", help="compute with the small random models")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    enter_comfyui(comfyui_folder(), cpu=options.device == "cpu")
    import folder_paths
    import torch

    pack = load_pack().__name__
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        folder_paths.set_output_directory(folder)
        write_tiny_models(Path(folder) / "models")
        for size in options.size:
            if options.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            watch = measure(size, options, pack, Path(folder) / "models")
            height, width = SIZES[size]
            print(
                f"{size}, {width} x {height}, {CHUNK} frames of float32 are {CHUNK * height * width * 12 / 1e6:.0f} MB"
            )
            for name, most in sorted(watch.most.items()):
                print(f"  {name:12} {most / 1e6:7.0f} MB")
            print(f"  by chunk     {', '.join(f'{most / 1e6:.0f}' for most in watch.chunks[1:])} MB")
            if options.device == "cuda":
                print(f"  GPU          {torch.cuda.max_memory_allocated() / 1e6:7.0f} MB at most")


if __name__ == "__main__":
    main()

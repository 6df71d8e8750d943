"""Measure the share of a job's time spent in the DiT and the VAE; the rest is this pack's overhead.

    .venv/bin/python benchmarks/pipeline.py [--seconds 10 --size 256 --steps 8]

Runs a portrait on the small models, through the nodes' own code in this process, into a real file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from in_process import REPO, comfyui_folder, enter_comfyui, load_pack
from make_tiny_models import write_tiny_models


class Stopwatch:
    """Times wrapped functions, in seconds, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: object, method: str, name: str) -> None:
        """Replace `owner.method` by a timed version."""
        inner = getattr(owner, method)
        self.seconds[name] = 0.0

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - start

        setattr(owner, method, timed)


def make_job(seconds: float, size: tuple[int, int], steps: int, pack: str, models: Path):
    """Build a job of the small random models like the nodes do. size: height and width of the video.

    Returns (a function that encodes the speech and returns the job, MODEL, VAE).
    """
    import comfy.sd
    import comfy.utils
    import numpy as np
    import torch
    from PIL import Image

    def module(name: str):
        return import_module(f"{pack}.{name}")

    base = comfy.sd.load_diffusion_model(str(models / "diffusion_models" / "tiny_wan2.1_i2v.safetensors"))
    weights = models / "model_patches" / "tiny_infinitetalk_single.safetensors"
    model = module("nodes.host.model.audio_adapter").patch_model(base, weights, 1.0)
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(models / "vae" / "tiny_wan_vae.safetensors")))
    encoder = module("nodes.host.media.audio").load_audio_encoder(
        models / "audio_encoders" / "tiny_wav2vec2.safetensors"
    )
    sound = module("infinitetalk_core.audio.sound").Sound(
        torch.sin(torch.arange(round(seconds * 16000)) / 20)[None] * 0.2, 16000
    )
    picture = torch.from_numpy(np.asarray(Image.open(REPO / "samples" / "portrait.png").convert("RGB"))).float() / 255
    source = module("infinitetalk_core.video.source").PictureBatch(picture[None])
    job = module("infinitetalk_core.chunks.job")
    reference = job.Reference(source, *size)
    guidance = module("infinitetalk_core.sampling.settings").SamplingSettings(steps, 1.0, 1.0)
    components = module("nodes.host.sampling.run").components_of(None, None, model, vae)

    def encode_and_plan():
        speech = module("infinitetalk_core.speech").encode_speech(encoder.encode, sound)
        return job.Job(speech, reference, job.Sampling(settings=guidance), components)

    return encode_and_plan, model, vae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    enter_comfyui(comfyui_folder())
    import folder_paths
    import torch

    pack = load_pack().__name__
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        folder_paths.set_output_directory(folder)
        write_tiny_models(Path(folder) / "models")
        size = (options.size, options.size)
        encode_and_plan, model, vae = make_job(options.seconds, size, options.steps, pack, Path(folder) / "models")
        watch = Stopwatch()
        watch.watch(model.model, "apply_model", "DiT")
        watch.watch(vae, "encode", "VAE encode")
        watch.watch(vae, "decode", "VAE decode")
        start = time.perf_counter()
        job = encode_and_plan()
        encoding = time.perf_counter() - start
        hidden = SimpleNamespace(prompt=None, extra_pnginfo=None)
        import_module(f"{pack}.nodes.host.sampling.run").run_job(job, hidden)
        total = time.perf_counter() - start
    inside = sum(watch.seconds.values())
    print(f"{options.seconds:g} s at {options.size} x {options.size}, {options.steps} steps: {total:.1f} s in all")
    for name, seconds in [*watch.seconds.items(), ("speech encoding", encoding), ("other", total - inside - encoding)]:
        print(f"  {name:16} {seconds:7.1f} s  {seconds / total:6.1%}")
    print(f"inside the DiT and the VAE: {inside / total:.1%} (goal: at least 85 %)")


if __name__ == "__main__":
    main()

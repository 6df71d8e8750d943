"""Measure changes to ComfyUI's Wan VAE that might make it faster, each alone, on the CPU: time and difference.

    COMFYUI_DIR=… OMP_NUM_THREADS=1 .venv/bin/python benchmarks/vae_variants.py [--width 96 --size 64 --frames 9]

Variants: weights with channels last in memory; no copies of the frames that a convolution keeps for the next piece;
torch.compile of encoder and decoder (needs a C++ compiler), timed after it has compiled. Random weights, in float32.
Seconds of CPU time, the least of the repeats, so that other processes matter little.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from in_process import comfyui_folder, enter_comfyui

VARIANTS = ("as it is", "channels last", "no copies", "compiled")
LAYOUT = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [], "temperal_downsample": [False, True, True]}


def without_copies() -> ModuleType:
    """Return ComfyUI's module with what it keeps of each piece as views, not as copies."""
    import comfy.ldm.wan.vae

    source = inspect.getsource(comfy.ldm.wan.vae)
    changed = source.replace(".clone()", "")
    assert changed != source, "this ComfyUI copies nothing"
    module = ModuleType("vae_without_copies")
    module.__dict__["__file__"] = comfy.ldm.wan.vae.__file__
    exec(compile(changed, "vae_without_copies", "exec"), module.__dict__)  # noqa: S102 (ComfyUI's own text)
    return module


def codec_of(variant: str, width: int, weights: dict[str, Any]) -> Any:
    """Return the autoencoder of a variant with these weights."""
    import comfy.ldm.wan.vae
    import torch

    module = without_copies() if variant == "no copies" else comfy.ldm.wan.vae
    codec = module.WanVAE(dim=width, z_dim=16, dropout=0.0, **LAYOUT).eval().requires_grad_(False)
    convolutions = [layer for layer in codec.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Conv3d))]
    if weights:
        codec.load_state_dict(weights)
    else:
        for layer in convolutions:  # ComfyUI's layers are made without values
            torch.nn.init.kaiming_uniform_(layer.weight, a=5**0.5)
            torch.nn.init.zeros_(layer.bias)
    if variant == "channels last":
        for layer in convolutions:
            if isinstance(layer, torch.nn.Conv3d):
                layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
            else:
                layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    if variant == "compiled":
        codec.encoder.forward = torch.compile(codec.encoder.forward)
        codec.decoder.forward = torch.compile(codec.decoder.forward)
    return codec


def least_seconds(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the least CPU seconds of `work`, and what it returned."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        found = work()
        taken.append(time.process_time() - began)
    return min(taken), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="96 is the released model, 16 the small one")
    parser.add_argument("--size", type=int, default=96, help="side of the frames")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    options = parser.parse_args()
    enter_comfyui(comfyui_folder())
    import torch

    torch.manual_seed(0)
    pixels = torch.rand(1, 3, options.frames, options.size, options.size) * 2 - 1
    weights: dict[str, Any] = {}
    first: list[Any] = []
    print("| variant | encode, CPU s | decode, CPU s | difference of latents | of frames |\n|---|---|---|---|---|")
    with torch.inference_mode():
        for variant in options.variants:
            codec = codec_of(variant, options.width, weights)
            weights = weights or codec.state_dict()
            if variant == "compiled":
                codec.decode(codec.encode(pixels))
            encoding, latents = least_seconds(partial(codec.encode, pixels), options.repeats)
            first = first or [latents]
            decoding, frames = least_seconds(partial(codec.decode, first[0]), options.repeats)
            first = [*first, frames][:2]
            apart = [
                "0, equal bits" if torch.equal(a, b) else f"{(a - b).abs().max():.0e}"
                for a, b in zip((latents, frames), first, strict=True)
            ]
            print(f"| {variant} | {encoding:.2f} | {decoding:.2f} | {apart[0]} | {apart[1]} |", flush=True)


if __name__ == "__main__":
    main()

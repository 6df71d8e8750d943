"""Measure the work that is equal in every step of a chunk: its share of a prediction, and the memory to cache it.

    COMFYUI_DIR=… .venv/bin/python benchmarks/step_invariants.py [--layers 3 --rounds 20]
    COMFYUI_DIR=… .venv/bin/python benchmarks/step_invariants.py --size 480p --layers 40 --device cuda

Uses random weights and times every piece alternately with the whole prediction. The share is the upper limit of the
time that computing the piece once per chunk could save; the bytes are the device memory of the cached results, for each
text or voice.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from comparison import AUDIO_WIDTH, PICTURE, SPEECH, TEXT, Sizes, add_arguments, dtype_of, in_turn, sizes_of
from in_process import comfyui_folder, enter_comfyui, load_pack
from step import build, callables


def pieces(b, sizes: Sizes, dtype) -> dict:
    """Return name → (function without arguments, count of numbers to cache)."""
    import torch

    model, adapter = b.model, b.adapter
    device = b.given[0].device
    context = torch.randn(1, PICTURE + TEXT, sizes.dim, device=device, dtype=dtype)
    frames = 4 * (sizes.grid[0] - 1) + 1
    windows = torch.randn(1, frames, 5, 1, AUDIO_WIDTH, device=device, dtype=dtype)

    def embeddings():
        return model.text_embedding(b.given[2]), model.img_emb(b.given[3])

    def context_keys():
        for block in model.blocks:
            a, text, picture = block.cross_attn, context[:, PICTURE:], context[:, :PICTURE]
            a.norm_k(a.k(text)), a.v(text), a.norm_k_img(a.k_img(picture)), a.v_img(picture)

    def speech_keys():
        for block in adapter.blocks:
            block.audio_cross_attn.kv_linear(b.speech.tokens)

    def rotary():
        return model.rope_encode(*b.given[0].shape[2:], device=device, dtype=dtype)

    layers, speech = len(model.blocks), sizes.grid[0] * SPEECH
    return {
        "embeddings of text and picture": (embeddings, (PICTURE + TEXT) * sizes.dim),
        "keys and values of text and picture": (context_keys, layers * 2 * (PICTURE + TEXT) * sizes.dim),
        "keys and values of the speech": (speech_keys, layers * 2 * speech * sizes.dim),
        "rotary tables": (rotary, sizes.tokens * sizes.dim // sizes.heads * 2),
        "speech projection (once a chunk)": (lambda: adapter.speech_tokens(windows), speech * 768),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--layers", type=int, default=3)
    options = parser.parse_args()
    enter_comfyui(comfyui_folder(), cpu=options.device == "cpu")
    import torch

    pack, sizes, dtype = load_pack().__name__, sizes_of(options), dtype_of(options)
    b = build(sizes, options.layers, options.device, dtype, pack, has_native=False)
    _, ours = callables(b, pack, "auto")
    print(f"{options.layers} layers, {sizes.tokens} tokens of {sizes.dim} on {options.device} in {dtype}")
    print("| piece | share of a prediction | kept |")
    print("|---|---|---|")
    with torch.inference_mode():
        for name, (run, numbers) in pieces(b, sizes, dtype).items():
            pair = in_turn(ours, run, options.device, options.rounds)
            print(f"| {name} | {pair.ratio:.2%} | {numbers * dtype.itemsize / 1e6:.1f} MB |", flush=True)


if __name__ == "__main__":
    main()

"""Our audio-conditioned Wan block against ComfyUI's native block with its native audio patch, side by side.

    COMFYUI_DIR=… .venv/bin/python benchmarks/block.py [--dim 512 --heads 4 --ffn 1408 --grid 5 16 16 --rounds 30]

Needs a ComfyUI that has native InfiniteTalk (newer than the 0.3.75 of the demo). Both blocks share one set of
weights and run in turn in one process; the result is the median of the ratio ours / native of each round.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from in_process import comfyui_folder, enter_comfyui, load_pack


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=512, help="5120 in the 14B model")
    parser.add_argument("--heads", type=int, default=4, help="40 in the 14B model")
    parser.add_argument("--ffn", type=int, default=1408, help="13824 in the 14B model")
    parser.add_argument("--grid", type=int, nargs=3, default=[5, 16, 16], help="21 30 52 at 480p")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return parser.parse_args()


def build(options: argparse.Namespace, pack: str):
    """One Wan block, its native audio block, ours with the same weights, and inputs."""
    import comfy.ops
    import torch
    from comfy.ldm.flux.layers import EmbedND
    from comfy.ldm.wan.model import WanAttentionBlock
    from comfy.ldm.wan.model_multitalk import RotaryPositionalEmbedding1D, WanMultiTalkAttentionBlock

    device, dtype = torch.device(options.device), torch.bfloat16 if options.device == "cuda" else torch.float32
    torch.manual_seed(0)
    settings = {"operations": comfy.ops.manual_cast, "device": device, "dtype": dtype}
    block = WanAttentionBlock(
        "i2v_cross_attn",
        options.dim,
        options.ffn,
        options.heads,
        cross_attn_norm=True,
        operation_settings=settings,
    )
    native = WanMultiTalkAttentionBlock(options.dim, 768, device=device, dtype=dtype, operations=comfy.ops.manual_cast)
    # ComfyUI fixes 40 heads here; for other sizes they are set afterwards.
    native.audio_cross_attn.num_heads = options.heads
    native.audio_cross_attn.head_dim = options.dim // options.heads
    native.audio_cross_attn.rope_1d = RotaryPositionalEmbedding1D(options.dim // options.heads)
    audio = import_module(f"{pack}.infinitetalk_core.model.audio_adapter")
    config = audio.AdapterConfig(options.dim, options.heads, 1, audio_width=12 * 768)
    ours = audio.AudioBlock(config, comfy.ops.manual_cast, device=device, dtype=dtype)
    for module in (block, native):
        for name, p in module.named_parameters():
            torch.nn.init.ones_(p) if "norm" in name and p.ndim == 1 else torch.nn.init.normal_(p, std=0.02)
    ours.load_state_dict(native.state_dict())
    frames, height, width = options.grid
    tokens = frames * height * width
    ids = torch.stack(torch.meshgrid(*(torch.arange(n) for n in options.grid), indexing="ij"), -1).float()
    head = options.dim // options.heads
    rope = EmbedND(dim=head, theta=10000.0, axes_dim=[head - 4 * (head // 6)] + 2 * [2 * (head // 6)])

    def randn(*shape: int):
        return torch.randn(*shape, device=device, dtype=dtype)

    return SimpleNamespace(
        block=block,
        native=native,
        ours=ours,
        x=randn(1, tokens, options.dim),
        e=randn(1, 1, 6, options.dim),
        text=randn(1, 257 + 512, options.dim),
        pe=rope(ids.reshape(1, -1, 3).to(device)).movedim(1, 2).to(dtype),
        audio=randn(frames, 64, 768),
        masks=(torch.arange(height * width) * 3 // (height * width) == torch.arange(3)[:, None]).to(device, dtype),
    )


def callables(b: SimpleNamespace, pack: str, speakers: int):
    """(native, ours): each a function without arguments that runs the block once."""
    import torch
    from comfy.ldm.wan import model_multitalk

    adapter = import_module(f"{pack}.nodes.host.adapter")
    tokens = import_module(f"{pack}.infinitetalk_core.model.audio_adapter").SpeechTokens
    masks = b.masks if speakers == 2 else None
    audio = b.audio if speakers == 2 else b.audio[:, :32]
    grid = torch.Size((b.audio.shape[0], 1, b.x.shape[1] // b.audio.shape[0]))
    patch = SimpleNamespace(model=SimpleNamespace(blocks=[b.native]))
    patches = {"attn2_patch": [model_multitalk.MultiTalkCrossAttnPatch(patch)]}
    if speakers == 2:
        patches["attn1_patch"] = [model_multitalk.MultiTalkGetAttnMapPatch(masks)]
    native_options = {"patches": patches, "block_index": 0, "grid_sizes": grid, "audio_embeds": audio}
    call = adapter.SpeechCall(None, [tokens(audio, masks)], 1.0)
    args = {"img": b.x, "txt": b.text, "vec": b.e, "pe": b.pe, "transformer_options": {"cond_or_uncond": [0]}}

    def native():
        options = copy.copy(native_options)
        return b.block(b.x, b.e, b.pe, b.text, context_img_len=257, transformer_options=options)

    def ours():
        return adapter._listening_block(0, b.block, b.ours, call, 257, args, {})["img"]

    return native, ours


def seconds(run, device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def timed(native, ours, device: str, swap: bool) -> tuple[float, float]:
    """Seconds of both; `swap` runs ours first, so that neither always follows the other."""
    if swap:
        second, first = seconds(ours, device), seconds(native, device)
        return first, second
    return seconds(native, device), seconds(ours, device)


def main() -> None:
    options = arguments()
    enter_comfyui(comfyui_folder(), cpu=options.device == "cpu")
    try:
        import_module("comfy.ldm.wan.model_multitalk")
    except ModuleNotFoundError:
        sys.exit("this ComfyUI has no native InfiniteTalk to compare with; set COMFYUI_DIR to a newer one")
    import torch

    pack = load_pack().__name__
    b = build(options, pack)
    for speakers in (1, 2):
        native, ours = callables(b, pack, speakers)
        with torch.inference_mode():
            error = ((ours() - native()).norm() / native().norm()).item()
            pairs = [timed(native, ours, options.device, swap=i % 2 == 1) for i in range(options.rounds)]
        ratio = median(o / n for n, o in pairs)
        print(
            f"{speakers} speaker(s), {b.x.shape[1]} tokens of {options.dim} on {options.device}: "
            f"native {median(n for n, _ in pairs) * 1e3:.1f} ms, ours {median(o for _, o in pairs) * 1e3:.1f} ms, "
            f"ours/native {ratio:.3f}, difference of the results {error:.1e}"
        )


if __name__ == "__main__":
    main()

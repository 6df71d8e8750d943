"""Compare the time of our audio-conditioned Wan block with ComfyUI's native block and its native audio patch.

    COMFYUI_DIR=… .venv/bin/python benchmarks/block.py [--rounds 30]
    COMFYUI_DIR=… .venv/bin/python benchmarks/block.py --size 480p --device cuda [--attention sage]

Needs a ComfyUI that has native InfiniteTalk (newer than the 0.3.75 of the demo). Both blocks share one set of weights
and run alternately in one process. Prints the median over the rounds of the ratio ours / native, and our share of the
device's measured matrix rate. --attention sets another attention for our block; the native block keeps ComfyUI's own
choice.
"""

from __future__ import annotations

import argparse
import copy
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from comparison import (
    AUDIO_WIDTH,
    PICTURE,
    SPEECH,
    SPEECH_WIDTH,
    TEXT,
    Sizes,
    add_arguments,
    dtype_of,
    fill,
    in_turn,
    matrix_rate,
    sizes_of,
)
from in_process import comfyui_folder, enter_comfyui, load_pack


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument(
        "--attention", default="auto", choices=["auto", "sage", "flash", "sdpa"], help="attention of our block"
    )
    parser.add_argument("--speakers", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    return parser.parse_args()


def native_audio_block(sizes: Sizes, **factory):
    """Return ComfyUI's audio block. It fixes 40 heads; for other sizes they are set afterwards."""
    import comfy.ops
    from comfy.ldm.wan.model_multitalk import RotaryPositionalEmbedding1D, WanMultiTalkAttentionBlock

    native = WanMultiTalkAttentionBlock(sizes.dim, SPEECH_WIDTH, operations=comfy.ops.manual_cast, **factory)
    native.audio_cross_attn.num_heads = sizes.heads
    native.audio_cross_attn.head_dim = sizes.dim // sizes.heads
    native.audio_cross_attn.rope_1d = RotaryPositionalEmbedding1D(sizes.dim // sizes.heads)
    return native


def build(sizes: Sizes, device: str, dtype, pack: str) -> SimpleNamespace:
    """Build one Wan block, its native audio block, our block with the same weights, and inputs."""
    import comfy.ops
    import torch
    from comfy.ldm.flux.layers import EmbedND
    from comfy.ldm.wan.model import WanAttentionBlock

    torch.manual_seed(0)
    factory = {"device": torch.device(device), "dtype": dtype}
    settings = {"operations": comfy.ops.manual_cast, **factory}
    block = WanAttentionBlock(
        "i2v_cross_attn", sizes.dim, sizes.ffn, sizes.heads, cross_attn_norm=True, operation_settings=settings
    )
    native = native_audio_block(sizes, **factory)
    audio = import_module(f"{pack}.infinitetalk_core.model.audio_adapter")
    config = audio.AdapterConfig(sizes.dim, sizes.heads, 1, audio_width=AUDIO_WIDTH)
    ours = audio.AudioBlock(config, comfy.ops.manual_cast, **factory)
    fill(block)
    fill(native)
    ours.load_state_dict(native.state_dict())
    frames, height, width = sizes.grid
    ids = torch.stack(torch.meshgrid(*(torch.arange(n) for n in sizes.grid), indexing="ij"), -1).float()
    head = sizes.dim // sizes.heads
    rope = EmbedND(dim=head, theta=10000.0, axes_dim=[head - 4 * (head // 6)] + 2 * [2 * (head // 6)])

    def randn(*shape: int):
        return torch.randn(*shape, **factory)

    return SimpleNamespace(
        block=block,
        native=native,
        ours=ours,
        x=randn(1, sizes.tokens, sizes.dim),
        e=randn(1, 1, 6, sizes.dim),
        text=randn(1, PICTURE + TEXT, sizes.dim),
        pe=rope(ids.reshape(1, -1, 3).to(device)).movedim(1, 2).to(dtype),
        audio=randn(frames, 2 * SPEECH, SPEECH_WIDTH),
        masks=(torch.arange(height * width) * 3 // (height * width) == torch.arange(3)[:, None]).to(device, dtype),
        grid=torch.Size(sizes.grid),
    )


def override(pack: str, attention: str) -> dict:
    """Return the transformer_options that set another attention for our block."""
    if attention == "auto":
        return {}
    import comfy.model_management

    kernels = import_module(f"{pack}.infinitetalk_core.model.kernels")
    choice = kernels.AttentionBackend(attention)
    machine = kernels.Machine.here(comfy.model_management.get_torch_device())
    kernel = None if choice is kernels.AttentionBackend.SDPA else kernels.find_kernel(choice, machine)
    chosen = import_module(f"{pack}.nodes.host.model.attention").ChosenAttention(choice, kernel)
    return {"optimized_attention_override": chosen}


def callables(b: SimpleNamespace, pack: str, speakers: int, attention: str):
    """Return (native, ours): two functions without arguments that run the block once."""
    from comfy.ldm.wan import model_multitalk

    adapter = import_module(f"{pack}.nodes.host.model.wan_wrappers")
    tokens = import_module(f"{pack}.infinitetalk_core.model.audio_adapter").SpeechTokens
    masks = b.masks if speakers == 2 else None
    audio = b.audio if speakers == 2 else b.audio[:, :SPEECH]
    patch = SimpleNamespace(model=SimpleNamespace(blocks=[b.native]))
    patches = {"attn2_patch": [model_multitalk.MultiTalkCrossAttnPatch(patch)]}
    if speakers == 2:
        patches["attn1_patch"] = [model_multitalk.MultiTalkGetAttnMapPatch(masks)]
    native_options = {"patches": patches, "block_index": 0, "grid_sizes": b.grid, "audio_embeds": audio}
    call = adapter.SpeechCall(None, [tokens(audio, masks)], 1.0)
    args = {"img": b.x, "txt": b.text, "vec": b.e, "pe": b.pe, "transformer_options": override(pack, attention)}

    def native():
        options = copy.copy(native_options)
        return b.block(b.x, b.e, b.pe, b.text, context_img_len=PICTURE, transformer_options=options)

    def ours():
        return adapter._audio_block(0, b.block, b.ours, call, PICTURE, args, {})["img"]

    return native, ours


def main() -> None:
    options = arguments()
    enter_comfyui(comfyui_folder(), cpu=options.device == "cpu")
    try:
        import_module("comfy.ldm.wan.model_multitalk")
    except ModuleNotFoundError:
        sys.exit("this ComfyUI has no native InfiniteTalk to compare with; set COMFYUI_DIR to a newer one")
    import torch

    pack, sizes, dtype = load_pack().__name__, sizes_of(options), dtype_of(options)
    b = build(sizes, options.device, dtype, pack)
    with torch.inference_mode():
        rate = matrix_rate(options.device, dtype)
        for speakers in options.speakers:
            native, ours = callables(b, pack, speakers, options.attention)
            error = ((ours() - native()).float().norm() / native().float().norm()).item()
            pair = in_turn(native, ours, options.device, options.rounds)
            rate = max(rate, matrix_rate(options.device, dtype))  # again: the first may have been slowed
            share = sizes.block_operations() / pair.least / rate
            print(
                f"{speakers} speaker(s), {sizes.tokens} tokens of {sizes.dim} on {options.device} in {dtype}: "
                f"native {pair.first * 1e3:.1f} ms, ours {pair.second * 1e3:.1f} ms, ours/native {pair.ratio:.3f}, "
                f"difference of the results {error:.1e}, {share:.0%} of the device's {rate / 1e12:.2f} TFLOP/s"
            )


if __name__ == "__main__":
    main()

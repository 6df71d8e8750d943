"""Compare a whole prediction with our blocks in ComfyUI's Wan model and with the native audio patch in the same model.

    COMFYUI_DIR=… .venv/bin/python benchmarks/step.py [--layers 3 --rounds 10]
    COMFYUI_DIR=… .venv/bin/python benchmarks/step.py --size 480p --layers 40 --device cuda [--attention sage]

Both use one set of random weights and run alternately in one process: embeddings, all blocks with one speaker, head.
Choose as many layers as fit in memory. If ComfyUI has no native InfiniteTalk, ours is compared with the same model
without speech. On a GPU, the peak memory beyond weights and inputs is printed as well.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from block import native_audio_block, override
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
from gpu_bench import peak_bytes
from in_process import comfyui_folder, enter_comfyui, load_pack


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.set_defaults(rounds=10)
    parser.add_argument("--layers", type=int, default=3, help="40 in the 14B model, 0.8 GB each in bfloat16")
    parser.add_argument(
        "--attention", default="auto", choices=["auto", "sage", "flash", "sdpa"], help="attention of our block"
    )
    return parser.parse_args()


def wan_and_adapter(sizes: Sizes, layers: int, pack: str, **factory: Any) -> tuple[Any, Any]:
    """Return ComfyUI's Wan model and our audio adapter for it, without numbers in their weights."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    model = WanModel(
        model_type="i2v",
        in_dim=36,
        dim=sizes.dim,
        ffn_dim=sizes.ffn,
        num_heads=sizes.heads,
        num_layers=layers,
        operations=comfy.ops.manual_cast,
        cross_attn_norm=True,
        **factory,
    )
    audio = import_module(f"{pack}.infinitetalk_core.model.audio_adapter")
    config = audio.AdapterConfig(sizes.dim, sizes.heads, layers, audio_width=AUDIO_WIDTH)
    return model, audio.AudioAdapter(config, comfy.ops.manual_cast, **factory)


def has_native_audio() -> bool:
    """Return whether this ComfyUI has InfiniteTalk itself."""
    return find_spec("comfy.ldm.wan.model_multitalk") is not None


def native_blocks(sizes: Sizes, adapter: Any, dtype: Any) -> list[Any]:
    """Return ComfyUI's own audio blocks with the weights of `adapter`; none where this ComfyUI has none."""
    native = []
    for block in adapter.blocks if has_native_audio() else ():
        native.append(native_audio_block(sizes, device="meta", dtype=dtype))
        native[-1].load_state_dict(block.state_dict(), assign=True)
        rope = native[-1].audio_cross_attn.rope_1d
        native[-1].audio_cross_attn.rope_1d = type(rope)(sizes.dim // sizes.heads)
    return native


def build(sizes: Sizes, layers: int, device: str, dtype, pack: str) -> SimpleNamespace:
    """Build the model, the audio parts (native ones that share our weights), and inputs."""
    import torch

    torch.manual_seed(0)
    factory = {"device": torch.device(device), "dtype": dtype}
    model, adapter = wan_and_adapter(sizes, layers, pack, **factory)
    fill(model)
    fill(adapter)
    native = native_blocks(sizes, adapter, dtype)
    audio = import_module(f"{pack}.infinitetalk_core.model.audio_adapter")
    frames, height, width = sizes.grid
    speech = torch.randn(frames, SPEECH, SPEECH_WIDTH, **factory)
    return SimpleNamespace(
        model=model,
        adapter=adapter,
        native=native,
        speech=audio.SpeechTokens(speech),
        given=(
            torch.randn(1, 36, frames, 2 * height, 2 * width, **factory),
            torch.tensor([500.0], device=device),
            torch.randn(1, TEXT, 4096, **factory),
            torch.randn(1, PICTURE, 1280, **factory),
        ),
    )


def callables(b: SimpleNamespace, pack: str, attention: str):
    """Return (the other, ours): two functions without arguments that predict once."""
    from comfy.patcher_extension import WrappersMP

    adapter = import_module(f"{pack}.nodes.host.model.wan_wrappers")
    wrappers = {WrappersMP.DIFFUSION_MODEL: {adapter.KEY: [adapter.wan_forward_wrapper]}}
    call = adapter.SpeechCall(b.adapter, [b.speech], 1.0)

    def ours():
        options = {"wrappers": wrappers, **override(pack, attention)}
        return b.model(*b.given, transformer_options=options, **{adapter.KEY: call})

    def plain():
        return b.model(*b.given, transformer_options={})

    if not b.native:
        return plain, ours
    from comfy.ldm.wan.model_multitalk import MultiTalkCrossAttnPatch

    patch = MultiTalkCrossAttnPatch(SimpleNamespace(model=SimpleNamespace(blocks=b.native)))

    def native():
        options = {"patches": {"attn2_patch": [patch]}, "audio_embeds": b.speech.tokens}
        return b.model(*b.given, transformer_options=options)

    return native, ours


def main() -> None:
    options = arguments()
    enter_comfyui(comfyui_folder(), cpu=options.device == "cpu")
    import torch

    pack, sizes, dtype = load_pack().__name__, sizes_of(options), dtype_of(options)
    b = build(sizes, options.layers, options.device, dtype, pack)
    with torch.inference_mode():
        rate = matrix_rate(options.device, dtype)
        other, ours = callables(b, pack, options.attention)
        error = ((ours() - other()).float().norm() / other().float().norm()).item()
        pair = in_turn(other, ours, options.device, options.rounds)
        rate = max(rate, matrix_rate(options.device, dtype))  # again: the first may have been slowed
        share = options.layers * sizes.block_operations() / pair.least / rate
        name = "native" if b.native else "without speech"
        print(
            f"{options.layers} layers, {sizes.tokens} tokens of {sizes.dim} on {options.device} in {dtype}: "
            f"{name} {pair.first:.3f} s, ours {pair.second:.3f} s, ours/{name} {pair.ratio:.3f}, "
            f"difference of the results {error:.1e}, {share:.0%} of the device's {rate / 1e12:.2f} TFLOP/s"
        )
        if options.device == "cuda":
            print(
                f"peak beyond weights: {name} {peak_bytes(other) / 2**30:.2f} GiB, ours {peak_bytes(ours) / 2**30:.2f}"
            )


if __name__ == "__main__":
    main()

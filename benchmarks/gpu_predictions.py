"""Section of gpu_report.py: predictions of 4 layers of the released width: time, and memory against the estimate."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from comparison import PICTURE, SIZES, SPEECH, SPEECH_WIDTH, TEXT, Sizes
from gpu_bench import GIB, Bench, peak_bytes
from step import native_blocks, wan_and_adapter

LAYERS = 4
TINY = Sizes(256, 2, 512, (3, 4, 4))
# size, guidance branches in one batch, speakers, with Uni3C
CASES = (
    ("480p", 1, 1, False),
    ("480p", 1, 2, False),
    ("480p", 1, 1, True),
    ("480p", 3, 1, False),
    ("480p", 3, 2, True),
    ("720p", 1, 1, False),
    ("720p", 1, 2, False),
    ("720p", 3, 2, True),
)


def predictions(bench: Bench) -> None:
    """Predict with the speech of one and two speakers, one and three branches, with and without Uni3C."""
    models = build(bench, bench.of(LAYERS, 1))
    for size in ("480p", "720p"):
        inputs = _inputs(sizes_of(bench, size), 1)
        plain = _without_speech(models, inputs)
        rounds = 3 if size == "480p" else 1
        alone = bench.timed(plain, rounds)
        bench.rows.add(
            size=size, what="ComfyUI's model without speech", s=alone, **{"peak GiB": peak_bytes(plain) / GIB}
        )
        if models.native:
            native = _native(models, inputs)
            took, ours = bench.timed(native, rounds), bench.timed(_ours(bench, models, inputs, 1, False), rounds)
            columns = {"times the one without speech": took / alone, "ours / native": ours / took}
            bench.rows.add(size=size, what="ComfyUI's native InfiniteTalk", s=took, **columns)
        for name, branches, speakers, camera in CASES:
            if name == size:
                _case(bench, models, size, (branches, speakers, camera), alone)


def _case(bench: Bench, models: SimpleNamespace, size: str, case: tuple[int, int, bool], alone: float) -> None:
    branches, speakers, camera = case
    sizes = sizes_of(bench, size)
    run = _ours(bench, models, _inputs(sizes, branches), speakers, camera)
    peak = peak_bytes(run)
    took = bench.timed(run, 3 if size == "480p" else 1)
    memory = bench.module("infinitetalk_core.model.memory")
    estimate = memory.BackboneSizes(sizes.dim, sizes.ffn, sizes.heads).activation_bytes(branches, sizes.tokens, 2)
    if camera:
        config = models.uni3c.config
        states = config.blocks if branches > 1 else 1
        estimate += memory.camera_bytes(sizes.tokens, states, config.dim, config.out_dim, 2)
    bench.rows.add(
        size=size,
        what=f"{branches} branch(es), {speakers} speaker(s){', Uni3C' if camera else ''}",
        s=took,
        **{
            "peak GiB": peak / GIB,
            "estimate GiB": estimate / GIB,
            "peak / estimate": peak / estimate,
            "times the one without speech": took / alone / branches,
        },
    )


def sizes_of(bench: Bench, size: str) -> Sizes:
    """Return the sizes of a prediction."""
    return TINY if bench.small else SIZES[size]


def build(bench: Bench, layers: int) -> SimpleNamespace:
    """Build ComfyUI's Wan model, the audio adapter and Uni3C on the GPU in bfloat16, and native blocks if there are."""
    import comfy.ops

    sizes = sizes_of(bench, "480p")
    factory: dict[str, Any] = {"device": torch.device("cuda"), "dtype": torch.bfloat16}
    model, adapter = wan_and_adapter(sizes, layers, bench.pack, **factory)
    control = bench.module("infinitetalk_core.model.uni3c")
    narrow = {"dim": 64, "heads": 2, "ffn_dim": 64, "blocks": 2} if bench.small else {}
    uni3c_config = control.Uni3CConfig(time_dim=sizes.dim, out_dim=sizes.dim, **narrow)
    uni3c = control.Uni3C(uni3c_config, comfy.ops.manual_cast, **factory)
    for module in (model, adapter, uni3c):
        bench.fill(module)
    return SimpleNamespace(
        model=model, adapter=adapter, uni3c=uni3c, native=native_blocks(sizes, adapter, torch.bfloat16)
    )


def _inputs(sizes: Sizes, branches: int) -> SimpleNamespace:
    frames, height, width = sizes.grid
    factory: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    return SimpleNamespace(
        grid=sizes.grid,
        branches=branches,
        audio=torch.randn(frames, 2 * SPEECH, SPEECH_WIDTH, **factory),
        given=(
            torch.randn(branches, 36, frames, 2 * height, 2 * width, **factory),
            torch.full((branches,), 500.0, device="cuda"),
            torch.randn(branches, TEXT, 4096, **factory),
            torch.randn(branches, PICTURE, 1280, **factory),
        ),
    )


def _without_speech(models: SimpleNamespace, inputs: SimpleNamespace) -> Any:
    return lambda: models.model(*inputs.given, transformer_options={})


def _native(models: SimpleNamespace, inputs: SimpleNamespace) -> Any:
    from comfy.ldm.wan.model_multitalk import MultiTalkCrossAttnPatch

    patch = MultiTalkCrossAttnPatch(SimpleNamespace(model=SimpleNamespace(blocks=models.native)))
    options = {"patches": {"attn2_patch": [patch]}, "audio_embeds": inputs.audio[:, :SPEECH]}
    return lambda: models.model(*inputs.given, transformer_options=dict(options))


def _ours(bench: Bench, models: SimpleNamespace, inputs: SimpleNamespace, speakers: int, camera: bool) -> Any:
    from comfy.patcher_extension import WrappersMP

    wrappers = bench.module("nodes.host.model.wan_wrappers")
    tokens = bench.module("infinitetalk_core.model.audio_cross_attention").SpeechTokens
    area = inputs.grid[1] * inputs.grid[2]
    masks = (torch.arange(area) * 3 // area == torch.arange(3)[:, None]).bfloat16().to("cuda")
    speech = tokens(inputs.audio, masks) if speakers == 2 else tokens(inputs.audio[:, :SPEECH])
    items: Sequence[int] = range(inputs.branches)

    def run() -> Any:
        call = wrappers.SpeechCall(
            models.adapter, [speech] * inputs.branches, 1.0, _camera(bench, models, inputs, camera)
        )
        options = {"wrappers": {WrappersMP.DIFFUSION_MODEL: {wrappers.KEY: [wrappers.wan_forward_wrapper]}}}
        return models.model(*inputs.given, transformer_options=options, **{wrappers.KEY: call.of_items(items)})

    return run


def _camera(bench: Bench, models: SimpleNamespace, inputs: SimpleNamespace, camera: bool) -> Any:
    if not camera:
        return None
    step = bench.module("nodes.host.model.uni3c_step").Uni3CStep
    tokens = inputs.grid[0] * inputs.grid[1] * inputs.grid[2]
    view = torch.randn(1, tokens, models.uni3c.config.embed_dim, device="cuda", dtype=torch.bfloat16)
    return step(models.uni3c, inputs.given[0][:1, :16], view, 1.0, inputs.branches)

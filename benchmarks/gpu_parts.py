"""Sections of gpu_report.py: wav2vec 2.0 on the GPU against the CPU, quantized layers, torch.compile."""

from __future__ import annotations

import gc
import time
from functools import partial

import torch
from comparison import SIZES
from gpu_bench import Bench
from gpu_predictions import TINY, _inputs, _ours, build

VOICE_SECONDS = 60


def speech(bench: Bench) -> None:
    """wav2vec 2.0 base with random weights: time, and the features' error against the CPU's, with and without TF32."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    network = Wav2Vec2Model(Wav2Vec2Config(**bench.of({}, {"num_hidden_layers": 1})))
    encoder = bench.module("infinitetalk_core.audio.wav2vec").SpeechEncoder(network.float())
    sound = bench.module("infinitetalk_core.audio.sound").Sound(
        torch.randn(1, 16000 * bench.of(VOICE_SECONDS, 1)).cumsum(-1).sin() * 0.3, 16000
    )
    began = time.perf_counter()
    exact = encoder.encode(sound)
    bench.rows.add(where="CPU", s=time.perf_counter() - began, **{"seconds of speech": bench.of(VOICE_SECONDS, 1)})
    encode = partial(encoder.to("cuda").encode, sound, device=torch.device("cuda"))
    for where, allow in {"GPU, as PyTorch is set": None, "GPU, TF32 allowed everywhere": True}.items():
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        if allow is not None:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow
        took = bench.timed(encode)
        found = encode()
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
        error = float((found.double() - exact.double()).norm() / exact.double().norm())
        bench.rows.add(where=where, s=took, **{"error to the CPU": error})


def quantized(bench: Bench) -> None:
    """GGUF types and scaled fp8: whether the GPU dequantizes as the CPU does, and the time for a layer's weight."""
    blocks = bench.module("infinitetalk_core.checkpoints.gguf_dequant").BLOCKS
    shape = bench.of((5120, 13824), (32, 256))
    rows = bench.of(64, 4)
    generator = torch.Generator().manual_seed(0)
    for name, layout in blocks.items():
        stored = torch.randint(0, 256, layout.stored_shape(shape), dtype=torch.uint8, generator=generator)
        on_gpu = stored.to("cuda")
        same = torch.equal(
            layout.dequantize(stored[:rows], torch.float16).nan_to_num(),
            layout.dequantize(on_gpu[:rows], torch.float16).cpu().nan_to_num(),
        )
        took = bench.timed(lambda layout=layout, on_gpu=on_gpu: layout.dequantize(on_gpu, torch.float16), 3)
        bench.rows.add(layout=name, **{"the CPU's numbers": same, "ms for 5120 x 13824": 1e3 * took})
    weights_file = bench.module("infinitetalk_core.checkpoints.weights_file")
    stored, scale = (torch.randn(shape, generator=generator)).to(torch.float8_e4m3fn), torch.full((1,), 0.02)
    on_gpu, scale_on_gpu = stored.to("cuda"), scale.to("cuda")
    dequantize, layout = weights_file.dequantize, weights_file.SCALED
    same = torch.equal(
        dequantize(stored[:rows], layout, scale, torch.float16),
        dequantize(on_gpu[:rows], layout, scale_on_gpu, torch.float16).cpu(),
    )
    took = bench.timed(lambda: dequantize(on_gpu, layout, scale_on_gpu, torch.float16), 3)
    bench.rows.add(layout="fp8 with a scale", **{"the CPU's numbers": same, "ms for 5120 x 13824": 1e3 * took})


def compiled(bench: Bench) -> None:
    """A prediction of 2 layers at 480p by torch.compile, one and two speakers: error, time, time of compiling."""
    models = build(bench, 2)
    inputs = _inputs(TINY if bench.small else SIZES["480p"], 1)
    eager = models.model.forward
    for speakers in (1, 2):
        run = _ours(bench, models, inputs, speakers, camera=False)
        plain, took = run(), bench.timed(run, 3)
        if bench.small:
            bench.rows.note("Not part of the dry run: torch.compile needs a GPU.")
            return
        models.model.forward = torch.compile(eager)
        try:
            began = time.perf_counter()
            found = run()
            torch.cuda.synchronize()
            compiling = time.perf_counter() - began
            error = float((found.float() - plain.float()).norm() / plain.float().norm())
            fast = bench.timed(run, 3)
        finally:
            models.model.forward = eager
        columns = {"compiled / not": fast / took, "error": error, "s to compile": compiling}
        bench.rows.add(speakers=speakers, **{"ms, not compiled": took * 1e3}, **columns)
    gc.collect()

"""Sections of gpu_report.py: whole jobs with 40 layers in fp8 and a VAE of the released width, and equal bits."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from comparison import AUDIO_WIDTH
from gpu_bench import GIB, Bench, card_of, synchronized_seconds

RELEASED = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40}
TINY = {"dim": 256, "ffn_dim": 512, "num_heads": 2}
SAMPLE_SECONDS = 0.05
CARDS = (24, 16)  # GiB


@dataclass
class Models:
    """Random weights as ComfyUI's loaders hand them over: MODEL with the audio adapter, and VAE."""

    model: Any
    adapter: Any
    vae: Any


@dataclass(frozen=True)
class JobSize:
    """Size and length of a job. pixels: height and width."""

    pixels: tuple[int, int]
    frames: int
    chunks: int
    steps: int
    text_scale: float = 1.0
    audio_scale: float = 1.0

    @property
    def length(self) -> int:
        """Frames of the video."""
        return self.frames + (self.chunks - 1) * (self.frames - 9)


def jobs(bench: Bench) -> None:
    """Two chunks at 480p on the whole card: seconds by stage, and the share of the time in which the GPU idles."""
    models = _models(bench)
    bench.rows.add(**_run(bench, models, _job_size(bench), "the whole card"))


def smaller_cards(bench: Bench) -> None:
    """The same on cards of 24 and 16 GB, where part of the weights waits in RAM."""
    models = _models(bench)
    for gib in CARDS:
        with card_of(gib):
            try:
                bench.rows.add(**_run(bench, models, _job_size(bench), f"{gib} GiB"))
            except Exception as error:
                bench.rows.add(card=f"{gib} GiB", s=f"failed: {str(error)[:200]}")


def bits(bench: Bench) -> None:
    """Whether a chunk is the same to the bit: again, with weights in RAM, with a LoRA, with fewer branches at once."""
    bench.state.clear()
    models = build(bench, layers=bench.of(4, 1))
    lora = replace(models, model=_with_lora(models.model))
    size = replace(_job_size(bench), frames=bench.of(33, 13), chunks=1, steps=2)
    three = replace(size, text_scale=5.0, audio_scale=4.0)
    plain = _latents(bench, models, size)
    _compare(bench, "again, all weights on the GPU", plain, lambda: _latents(bench, models, size))
    _compare(bench, "weights wait in RAM", plain, lambda: _latents(bench, models, size, streamed=True))
    _compare(bench, "weights wait in RAM, again", plain, lambda: _latents(bench, models, size, streamed=True))
    resident = _latents(bench, lora, size)
    _compare(bench, "with a LoRA, again", resident, lambda: _latents(bench, lora, size))
    _compare(bench, "with a LoRA, weights in RAM", resident, lambda: _latents(bench, lora, size, streamed=True))
    together = _latents(bench, models, three)
    _compare(bench, "three branches, one at a time", together, lambda: _latents(bench, models, three, singly=True))


def _compare(bench: Bench, what: str, first: torch.Tensor, make: Callable[[], torch.Tensor]) -> None:
    second = make()
    error = float((second.double() - first.double()).norm() / first.double().norm())
    bench.rows.add(case=what, equal=bool(torch.equal(first, second)), error=error)


def _job_size(bench: Bench) -> JobSize:
    return JobSize(bench.of((480, 832), (64, 96)), bench.of(81, 17), chunks=2, steps=bench.of(4, 1))


def _models(bench: Bench) -> Models:
    if "models" not in bench.state:
        bench.state["models"] = build(bench, layers=bench.of(40, 2))
    return bench.state["models"]


def build(bench: Bench, layers: int) -> Models:
    """Make the models as ComfyUI makes them from files in fp8 (MODEL) and fp16 (adapter)."""
    import comfy.ldm.wan.vae
    import comfy.model_management
    import comfy.ops
    import comfy.sd

    wan = wan_model(bench, layers)
    sizes = bench.of(RELEASED, TINY)
    audio = bench.module("infinitetalk_core.model.audio_adapter")
    config = audio.AdapterConfig(sizes["dim"], sizes["num_heads"], layers, audio_width=AUDIO_WIDTH)
    network = audio.AudioAdapter(config, comfy.ops.manual_cast, device="cpu", dtype=torch.float16)
    bench.fill(network)
    adapter = bench.module("nodes.host.model.patchers").model_patcher(network)
    width = bench.of(96, 16)
    layout = {
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_scales": [],
        "temperal_downsample": [False, True, True],
    }
    codec = comfy.ldm.wan.vae.WanVAE(dim=width, z_dim=16, dropout=0.0, **layout)
    bench.fill(codec)
    vae = comfy.sd.VAE(sd=codec.state_dict())
    return Models(_attached(bench, wan, adapter), adapter, vae)


def wan_model(bench: Bench, layers: int) -> Any:
    """Return ComfyUI's MODEL of Wan 2.1 I2V with random weights in fp8."""
    import comfy.model_management
    import comfy.supported_models

    config = comfy.supported_models.WAN21_I2V(
        {
            "image_model": "wan2.1",
            "model_type": "i2v",
            **bench.of(RELEASED, TINY),
            "num_layers": layers,
            "in_dim": 36,
            "out_dim": 16,
            "patch_size": (1, 2, 2),
            "freq_dim": 256,
            "window_size": (-1, -1),
            "qk_norm": True,
            "cross_attn_norm": True,
            "eps": 1e-6,
            "text_dim": 4096,
            "text_len": 512,
        }
    )
    device = comfy.model_management.get_torch_device()
    cast = comfy.model_management.unet_manual_cast(torch.float8_e4m3fn, device, config.supported_inference_dtypes)
    config.set_inference_dtype(torch.float8_e4m3fn, cast)
    model = config.get_model({}, "").to(comfy.model_management.unet_offload_device())
    bench.fill(model.diffusion_model)
    return bench.module("nodes.host.model.patchers").model_patcher(model)


def _attached(bench: Bench, wan: Any, adapter: Any) -> Any:
    """Attach the adapter as the Model Loader does."""
    from comfy.patcher_extension import WrappersMP

    wrappers = bench.module("nodes.host.model.wan_wrappers")
    model = wan.clone()
    model.set_additional_models(wrappers.KEY, [adapter])
    model.set_attachments(wrappers.KEY, 1.0)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, wrappers.KEY, wrappers.apply_model_wrapper)
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, wrappers.KEY, wrappers.wan_forward_wrapper)
    memory = bench.module("nodes.host.model.memory")
    model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, wrappers.KEY, memory.request_memory)
    return model


def _with_lora(model: Any) -> Any:
    """Return `model` with a LoRA of rank 32 on every linear layer of its blocks."""
    from comfy.weight_adapter.lora import LoRAAdapter

    patches = {}
    for name, weight in model.model.state_dict().items():
        if name.endswith("weight") and weight.ndim == 2 and "blocks" in name:
            up, down = (torch.randn(*shape) * 0.02 for shape in ((weight.shape[0], 32), (32, weight.shape[1])))
            patches[name] = LoRAAdapter(set(), (up.half(), down.half(), 32.0, None, None, None))
    patched = model.clone()
    patched.add_patches(patches, 1.0)
    return patched


def _job(bench: Bench, models: Models, size: JobSize) -> Any:
    """Return a job with random speech and a still picture."""
    job = bench.module("infinitetalk_core.chunks.job")
    component = bench.module("infinitetalk_core.fingerprint").Component
    settings = bench.module("infinitetalk_core.sampling.settings").SamplingSettings
    reference = bench.module("infinitetalk_core.chunks.reference")
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 8, 8, generator=generator)
    picture = torch.nn.functional.interpolate(picture, size.pixels, mode="bicubic").clamp(0, 1).movedim(1, -1)
    silent = bench.module("infinitetalk_core.audio.sound").Sound(torch.zeros(1, size.length * 640), 16000)
    voice = torch.randn(size.length, 12, 768, generator=generator)
    policy = reference.ReferenceSettings(policy=reference.Policy.STILL)
    source = bench.module("infinitetalk_core.video.source").PictureBatch(picture)
    return job.Job(
        speech=bench.module("infinitetalk_core.speech").Speech((voice,), silent),
        reference=job.Reference(source, *size.pixels, policy),
        sampling=job.Sampling(
            settings=settings(steps=size.steps, text_scale=size.text_scale, audio_scale=size.audio_scale),
            chunk_frames=size.frames,
        ),
        components=job.Components(component(models.model, "random"), component(models.vae, "random")),
    )


def _run(bench: Bench, models: Models, size: JobSize, card: str) -> dict[str, Any]:
    """Run a job through the pack's `run_job`; return its row."""
    import folder_paths

    stages: Counter[str] = Counter()
    resident: dict[str, float] = {}
    torch.cuda.reset_peak_memory_stats()
    run = bench.module("nodes.host.sampling.run")
    backend = bench.module("nodes.host.sampling.backend").ComfyBackend
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder_paths.set_output_directory(folder)
        folder_paths.set_temp_directory(folder)
        for owner, method, stage in (
            (models.vae, "encode", "VAE encode"),
            (models.vae, "decode", "VAE decode"),
            (backend, "denoise", "denoise"),
        ):
            stack.enter_context(_counted(owner, method, stages, stage))
        stack.enter_context(_after(backend, "denoise", lambda: resident.update(_resident(models))))
        hidden = SimpleNamespace(prompt=None, extra_pnginfo=None)
        busy = stack.enter_context(_busy_share())
        took = synchronized_seconds(lambda: run.run_job(_job(bench, models, size), hidden))
    rest = took - sum(stages.values())
    return {
        "card": card,
        "s": took,
        **{f"{stage} s": seconds for stage, seconds in stages.items()},
        "rest s": rest,
        "GPU idle": busy(),
        "peak GiB": torch.cuda.max_memory_allocated() / GIB,
        "resident": ", ".join(f"{n} {r:.0%}" for n, r in resident.items()),
    }


def _resident(models: Models) -> dict[str, float]:
    """Return the share of the weights of the models that denoise which is on the GPU."""
    named = {"MODEL": models.model, "adapter": models.adapter}
    return {name: patcher.loaded_size() / max(1, patcher.model_size()) for name, patcher in named.items()}


def _counted(owner: Any, method: str, seconds: Counter[str], stage: str) -> Any:
    """Add the time of each call of a method to `seconds`, while the context lasts."""

    def around(inner: Callable[[], Any]) -> Any:
        found = []
        seconds[stage] += synchronized_seconds(lambda: found.append(inner()))
        return found[0]

    return _around(owner, method, around)


def _after(owner: Any, method: str, then: Callable[[], Any]) -> Any:
    """Call `then` after each call of a method, while the context lasts."""

    def around(inner: Callable[[], Any]) -> Any:
        found = inner()
        then()
        return found

    return _around(owner, method, around)


@contextlib.contextmanager
def _around(owner: Any, method: str, around: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    inner = getattr(owner, method)
    setattr(owner, method, lambda *args, **kwargs: around(lambda: inner(*args, **kwargs)))
    try:
        yield
    finally:
        setattr(owner, method, inner) if isinstance(owner, type) else delattr(owner, method)


@contextlib.contextmanager
def _busy_share() -> Iterator[Callable[[], str]]:
    """Sample how busy the GPU is; the yielded function returns the share of idle time so far, as text."""
    samples: list[int] = []
    stop = threading.Event()
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:  # no driver, or no package
        yield lambda: "unknown"
        return

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            samples.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: f"{1 - sum(samples) / 100 / max(1, len(samples)):.0%}"
    finally:
        stop.set()
        thread.join()


def _latents(bench: Bench, models: Models, size: JobSize, streamed: bool = False, singly: bool = False) -> torch.Tensor:
    """Return the latents of the job's first chunk. streamed: all weights wait in RAM; singly: one branch at a time."""
    import comfy.model_management as management

    backend = bench.module("nodes.host.sampling.backend").ComfyBackend
    dub = bench.module("infinitetalk_core.chunks.dub").dub
    run = bench.module("nodes.host.sampling.run")
    made: list[torch.Tensor] = []
    inner, before = backend.denoise, management.vram_state

    def denoise(self: Any, *args: Any) -> torch.Tensor:
        made.append(inner(self, *args).cpu())
        raise _EnoughError

    management.unload_all_models()
    management.vram_state = management.VRAMState.NO_VRAM if streamed else before
    backend.denoise = denoise
    free = management.get_free_memory
    if singly:
        # ComfyUI batches the branches that fit into the free memory.
        management.get_free_memory = lambda *args, **kw: 0 if _from_samplers() else free(*args, **kw)
    try:
        job = _job(bench, models, size)
        next(iter(dub(job, run._backend(job))))
    except _EnoughError:
        pass
    finally:
        backend.denoise, management.vram_state, management.get_free_memory = inner, before, free
        management.unload_all_models()
    return made[0]


class _EnoughError(Exception):
    """The latents are known: the rest of the chunk is not needed."""


def _from_samplers() -> bool:
    import sys

    frame = sys._getframe(2)
    return frame.f_code.co_filename.endswith("samplers.py")

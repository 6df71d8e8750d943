"""Memory: what a chunk asks for is what it takes, all models come in one request, and shortage has a way out."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import comfy.ldm.wan.model
import comfy.model_management
import comfy.ops
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from memory_peak import MemoryPeak
from test_equality import load_model, make_backend, make_conditioning
from test_uni3c import conditioning as with_camera
from test_uni3c import make_backend as make_uni3c_backend

RELEASED = SimpleNamespace(dim=5120, ffn_dim=13824, heads=40)
P480, P720, SHORT = (21, 60, 104), (21, 90, 160), (6, 60, 104)  # latent frames, height, width


@pytest.fixture(scope="module")
def more(pack, core):
    """Modules beside those of `core`."""
    names = {"memory": "nodes.host.model.memory", "sizes": "infinitetalk_core.model.memory"}
    return SimpleNamespace(**{k: import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


def no_attention(function, q, k, v, heads, *args, **kwargs):
    """Attention takes its result and nothing else, as all fast ones; on `meta` PyTorch would choose the slow one."""
    return torch.empty_like(q)


def peak_of_a_prediction(
    core, sizes, latent, items, dtype, device="meta", speakers=1, camera=None, attention=None, blocks=2
):
    """The peak in bytes of one forward of ComfyUI's Wan model whose blocks have audio cross-attention."""
    ops = comfy.ops.manual_cast
    wan = comfy.ldm.wan.model.WanModel(
        model_type="i2v",
        in_dim=36,
        dim=sizes.dim,
        ffn_dim=sizes.ffn_dim,
        num_heads=sizes.heads,
        num_layers=blocks,
        device=device,
        dtype=dtype,
        operations=ops,
    )
    config = core.audio.AdapterConfig(sizes.dim, sizes.heads, blocks, 12 * 768)
    adapter = core.audio.AudioAdapter(config, ops, device=device, dtype=dtype)
    frames, height, width = latent
    given = {"device": device, "dtype": dtype}
    masks = torch.ones(3, height * width // 4, device=device) if speakers == 2 else None
    heard = core.cross_attention.SpeechTokens(torch.zeros(frames, speakers * 32, 768, **given), masks)
    call = core.wrappers.SpeechCall(adapter, [heard] * items, 1.0, camera, branches=tuple(range(items)))
    options = {
        "cond_or_uncond": list(range(items)),
        "wrappers": {WrappersMP.DIFFUSION_MODEL: {core.wrappers.KEY: [core.wrappers.wan_forward_wrapper]}},
    }
    if attention:
        options["optimized_attention_override"] = attention
    x = torch.zeros(items, 36, *latent, **given)
    text, picture = torch.zeros(items, 512, 4096, **given), torch.zeros(items, 257, 1280, **given)
    with torch.inference_mode(), MemoryPeak() as found:
        told = {"clip_fea": picture, "transformer_options": options, core.wrappers.KEY: call}
        wan(x, torch.zeros(items, device=device), text, **told)
    return found.peak


def tokens_of(latent):
    return latent[0] * latent[1] * latent[2] // 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("latent", "items"), [(P480, 1), (P480, 3), (P720, 2), (SHORT, 1)])
@pytest.mark.parametrize("speakers", [1, 2])
def test_the_estimate_is_what_a_prediction_takes(core, more, dtype, latent, items, speakers):
    measured = peak_of_a_prediction(core, RELEASED, latent, items, dtype, speakers=speakers, attention=no_attention)
    sizes = more.sizes.BackboneSizes(RELEASED.dim, RELEASED.ffn_dim, RELEASED.heads)
    estimate = sizes.activation_bytes(items, tokens_of(latent), dtype.itemsize)
    assert 1 / 1.15 < estimate / measured < 1.15, (estimate, measured)


def test_the_camera_is_in_the_estimate(core, more):
    """Branch by branch, Uni3C's states are kept; at the released size."""
    dtype, blocks = torch.bfloat16, 20
    config = core.network.Uni3CConfig(blocks=blocks)
    network = core.network.Uni3C(config, comfy.ops.manual_cast, device="meta", dtype=dtype)
    given = {"device": "meta", "dtype": dtype}
    view = torch.zeros(1, tokens_of(P480), config.embed_dim, **given)
    step = core.uni3c_step.Uni3CStep(network, torch.zeros(1, 16, *P480, **given), view, 1.0, branches=2)
    peaks = [
        peak_of_a_prediction(core, RELEASED, P480, 1, dtype, camera=camera, attention=no_attention, blocks=blocks)
        for camera in (None, step)
    ]
    sizes = more.sizes.BackboneSizes(RELEASED.dim, RELEASED.ffn_dim, RELEASED.heads)
    estimate = sizes.activation_bytes(1, tokens_of(P480), 2)
    # What it was told of the camera was there before, so the measure does not see it.
    camera = more.sizes.camera_bytes(tokens_of(P480), blocks, config.dim, 0, 2)
    assert peaks[1] - peaks[0] > camera / 2, "the camera must matter, or the test shows nothing"
    assert 1 / 1.15 < (estimate + camera) / peaks[1] < 1.15, (estimate, camera, peaks)


def test_the_measure_is_what_the_allocator_gives_out(core):
    """On the CPU, where PyTorch's profiler sees every byte, and what is taken inside an operation too."""

    def work():
        x = torch.ones(256, 256)
        y = torch.relu(torch.nn.functional.layer_norm(x, (256,)) @ x)
        z = torch.cat([y, y]).reshape(128, -1)
        del y
        return torch.nn.functional.gelu(z) + z

    with torch.inference_mode(), MemoryPeak() as found:
        work()
    with torch.inference_mode(), torch.profiler.profile(profile_memory=True) as profile:
        work()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    assert found.peak == pytest.approx(most, rel=0.02)


@torch.inference_mode()
def test_all_models_are_loaded_by_one_request_of_the_estimated_memory(core, files, own, more, monkeypatch):
    requests = []
    load = comfy.model_management.load_models_gpu

    def spy(models, memory_required=0, **kwargs):
        requests.append((models, memory_required, kwargs["minimum_memory_required"]))
        return load(models, memory_required=memory_required, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", spy)
    model = load_model(core, files)
    c = make_conditioning(core, own)
    make_backend(core, model, core.guidance.Guidance(1, 1), steps=1).denoise(c, lambda s, x: None)
    ((models, wanted, least),) = requests
    assert {type(patcher.model).__name__ for patcher in models} == {"WAN21", "AudioAdapter"}
    needed = more.memory.needed_bytes(model, c.noise.shape)
    assert least == pytest.approx(needed) and wanted == pytest.approx(2 * needed)
    assert needed > more.memory.IN_PASSING_BYTES


@torch.inference_mode()
def test_a_single_branch_asks_for_one_state_of_the_camera(core, files, own, more, monkeypatch):
    """On an H200 those of all blocks made up a third of the estimate at 480p, and were never there at once."""
    asked = []
    load = comfy.model_management.load_models_gpu

    def spy(models, memory_required=0, **kwargs):
        asked.append(kwargs["minimum_memory_required"])
        return load(models, memory_required=memory_required, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", spy)
    loaded = SimpleNamespace(
        model=load_model(core, files), patcher=core.uni3c.load_uni3c_patcher(files.uni3c), adapter=own.adapter
    )
    c = with_camera(core, loaded, view=True)
    for text_scale in (1, 5):
        made = make_uni3c_backend(core, loaded, text_scale, text_scale, strength=1.0, start=0.0, end=1.0)
        made.denoise(c, lambda s, x: None)
    single, several = asked
    assert several == pytest.approx(more.memory.needed_bytes(made.model, c.noise.shape))
    assert single == pytest.approx(more.memory.needed_bytes(made.model, c.noise.shape, branches=1))
    assert single < several


@torch.inference_mode()
@pytest.mark.parametrize("budget", [1, 400_000])
def test_a_chunk_on_partly_loaded_models_is_the_same_to_the_bit(core, files, own, monkeypatch, budget):
    """MODEL, speech and camera, as on a card that is too small for them."""
    loaded = SimpleNamespace(
        model=load_model(core, files), patcher=core.uni3c.load_uni3c_patcher(files.uni3c), adapter=own.adapter
    )
    c = with_camera(core, loaded, view=True)
    made = make_uni3c_backend(core, loaded, 5, 4, strength=1.0, start=0.0, end=1.0)
    want = made.denoise(c, lambda s, x: None)
    comfy.model_management.unload_all_models()
    left_out = []

    def load(models, **kwargs):
        for patcher in models:
            patcher.load(patcher.load_device, lowvram_model_memory=budget)
            left_out.append(patcher.model.model_lowvram)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)
    got = made.denoise(c, lambda s, x: None)
    assert len(left_out) == 3 and any(left_out) and (budget > 1 or all(left_out))
    assert torch.equal(got, want)


class Unlucky:
    """Runs out of memory the first `times` it samples, and notes what was asked for."""

    def __init__(self, monkeypatch, times, error=None):
        self.times, self.error = times, error or torch.OutOfMemoryError("made up by a test\nwith details")
        self.margins, self.unloaded = [], 0
        plain, unload = comfy.samplers.CFGGuider.sample, comfy.model_management.unload_all_models

        def sample(guider, *args, **kwargs):
            self.margins.append(guider.model_patcher.get_attachment("infinitetalk_memory"))
            if len(self.margins) <= self.times:
                raise self.error
            return plain(guider, *args, **kwargs)

        def unload_all():
            self.unloaded += 1
            unload()

        monkeypatch.setattr(comfy.samplers.CFGGuider, "sample", sample)
        monkeypatch.setattr(comfy.model_management, "unload_all_models", unload_all)


@torch.inference_mode()
def test_out_of_memory_is_tried_once_more_with_more_room(core, files, own, more, monkeypatch, caplog):
    c = make_conditioning(core, own)
    made = make_backend(core, load_model(core, files), core.guidance.Guidance(1, 1), steps=1)
    want = made.denoise(c, lambda s, x: None)
    unlucky = Unlucky(monkeypatch, times=1)
    with caplog.at_level("WARNING"):
        got = made.denoise(c, lambda s, x: None)
    assert torch.equal(got, want), "the same video to the bit"
    assert unlucky.margins == [None, more.memory.RETRY_FACTOR] and unlucky.unloaded == 1
    assert "out of memory (made up by a test); once more" in caplog.text
    made.denoise(c, lambda s, x: None)
    assert unlucky.margins[-1] == more.memory.RETRY_FACTOR, "the chunks after it do not run into it again"


@torch.inference_mode()
def test_out_of_memory_twice_is_said_with_the_numbers(core, files, own, monkeypatch):
    c = make_conditioning(core, own)
    made = make_backend(core, load_model(core, files), core.guidance.Guidance(1, 1), steps=1)
    unlucky = Unlucky(monkeypatch, times=9)
    words = r"chunk of 13 frames at 96 x 64 needs about 0\.5 GB .* of \d+\.\d GB are free .*; lower chunk_frames"
    with pytest.raises(RuntimeError, match=words):
        made.denoise(c, lambda s, x: None)
    assert len(unlucky.margins) == unlucky.unloaded == 2


def accelerator_error(text, code=None):
    error = getattr(torch, "AcceleratorError", RuntimeError)(text)
    if code is not None:
        error.error_code = code
    return error


def raised_from(error, cause):
    error.__cause__ = cause
    return error


def raised_beside(error, other):
    """`error` as it is when raised while `other` is handled."""
    error.__context__ = other
    return error


HINT = "\nCUDA kernel errors might be asynchronously reported at some other API call"
ILLEGAL = "CUDA error: an illegal memory access was encountered" + HINT
SHORTAGES = {
    "allocator": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "accelerator, by text": lambda: accelerator_error("CUDA error: out of memory" + HINT),
    "accelerator, by code": lambda: accelerator_error("CUDA error: (text of another language)", 2),
    "before AcceleratorError": lambda: RuntimeError("CUDA error: out of memory" + HINT),
    "driver": lambda: RuntimeError("CUDA driver error: out of memory"),
    "hip": lambda: accelerator_error("HIP error: out of memory"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cublas handle": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(h)`"),
    "cudnn": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cudnn 9": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "cusolver": lambda: RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate`"),
    "cufft": lambda: RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 17.0 GB)"),
    "xpu": lambda: RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    "chained": lambda: raised_from(ValueError("the sampler failed"), torch.OutOfMemoryError("x")),
    "chained twice": lambda: raised_beside(
        KeyError("x"), raised_beside(RuntimeError("y"), accelerator_error("CUDA", 2))
    ),
}
OTHERS = {
    "value": lambda: ValueError("something else"),
    "illegal access": lambda: accelerator_error(ILLEGAL, 700),
    "illegal access, before AcceleratorError": lambda: RuntimeError(ILLEGAL),
    "assertion": lambda: accelerator_error("CUDA error: device-side assert triggered" + HINT, 710),
    "illegal access after a shortage": lambda: raised_beside(accelerator_error(ILLEGAL), torch.OutOfMemoryError("x")),
    "a shortage after an illegal access": lambda: raised_beside(
        torch.OutOfMemoryError("x"), accelerator_error(ILLEGAL)
    ),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
    "cudnn": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    "ram": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "registers of a kernel": lambda: RuntimeError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
    "shared memory of a kernel": lambda: RuntimeError("out of resource: shared memory, Required: 2, Hardware limit: 1"),
    "interrupt": lambda: raised_beside(
        comfy.model_management.InterruptProcessingException(), torch.OutOfMemoryError("made up")
    ),
}


@pytest.mark.parametrize("kind", SHORTAGES)
@torch.inference_mode()
def test_every_kind_of_shortage_is_tried_once_more(core, files, own, monkeypatch, kind):
    c = make_conditioning(core, own)
    made = make_backend(core, load_model(core, files), core.guidance.Guidance(1, 1), steps=1)
    unlucky = Unlucky(monkeypatch, times=1, error=SHORTAGES[kind]())
    made.denoise(c, lambda s, x: None)
    assert len(unlucky.margins) == 2 and unlucky.unloaded == 1


@pytest.mark.parametrize("kind", OTHERS)
@torch.inference_mode()
def test_another_error_is_not_tried_again(core, files, own, monkeypatch, kind):
    c = make_conditioning(core, own)
    made = make_backend(core, load_model(core, files), core.guidance.Guidance(1, 1), steps=1)
    error = OTHERS[kind]()
    unlucky = Unlucky(monkeypatch, times=9, error=error)
    with pytest.raises(type(error)) as raised:
        made.denoise(c, lambda s, x: None)
    assert raised.value is error and len(unlucky.margins) == 1


def test_what_comfyui_takes_for_a_shortage_is_one(more, monkeypatch):
    class ComfyUIError(Exception):
        pass

    assert not more.memory.is_out_of_memory(ComfyUIError())
    monkeypatch.setattr(comfy.model_management, "OOM_EXCEPTION", ComfyUIError)
    assert more.memory.is_out_of_memory(ComfyUIError())
    monkeypatch.setattr(comfy.model_management, "OOM_EXCEPTION", Exception)  # of a torch without the class
    assert not more.memory.is_out_of_memory(ComfyUIError())


@pytest.mark.parametrize("way", ["encode", "decode", "encode_image"])
@torch.inference_mode()
def test_the_smaller_models_are_tried_again_with_the_others_unloaded(core, models_dir, monkeypatch, caplog, way):
    """CUDA's own errors, of which ComfyUI 0.3.75 does not think that the VAE could go on in tiles."""
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(models_dir / "vae" / "tiny_wan_vae.safetensors")))
    vision = SimpleNamespace(
        patcher=vae.patcher,
        load_device=torch.device("cpu"),
        image_size=32,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        model=lambda pixel_values, intermediate_output: (None, pixel_values.mean() * torch.ones(1, 257, 1280)),
    )
    made = SimpleNamespace(vae=vae, clip_vision=vision)
    given = {
        "encode": torch.rand(9, 64, 96, 3),
        "decode": torch.randn(1, 16, 3, 8, 12),
        "encode_image": torch.rand(64, 96, 3),
    }[way]
    run = getattr(core.backend.ComfyBackend, way)
    want = run(made, given)
    owner, name = (vision, "model") if way == "encode_image" else (vae.first_stage_model, way)
    plain, calls, unloaded = getattr(owner, name), [], []
    unload = comfy.model_management.unload_all_models

    def short_of_memory(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return plain(*args, **kwargs)

    monkeypatch.setattr(owner, name, short_of_memory)
    monkeypatch.setattr(comfy.model_management, "unload_all_models", lambda: (unloaded.append(1), unload()))
    with caplog.at_level("WARNING"):
        got = run(made, given)
    assert unloaded == [1] and "out of memory (cuDNN error" in caplog.text
    if way == "encode_image":
        got, want = got.penultimate_hidden_states, want.penultimate_hidden_states
    torch.testing.assert_close(got, want, atol=0.05, rtol=0.05)


@torch.inference_mode()
def test_the_request_does_not_depend_on_how_a_patcher_reckons(core, files, own, more, monkeypatch):
    """ComfyUI 0.33's dynamic patcher pads its own estimate, which is not the one that ComfyUI asks with."""
    asked = []
    load = comfy.model_management.load_models_gpu

    def spy(models, memory_required=0, **kwargs):
        asked.append((memory_required, kwargs["minimum_memory_required"]))
        return load(models, memory_required=memory_required, **kwargs)

    model = load_model(core, files)

    class Padded(type(model)):
        def memory_required(self, input_shape):
            return super().memory_required(input_shape) * 1.3 + 1024**3

    model.__class__ = Padded
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", spy)
    c = make_conditioning(core, own)
    make_backend(core, model, core.guidance.Guidance(1, 1), steps=1).denoise(c, lambda s, x: None)
    needed = more.memory.needed_bytes(model, c.noise.shape)
    ((wanted, least),) = asked
    assert least == pytest.approx(needed) and wanted == pytest.approx(2 * needed)


@pytest.mark.parametrize("way", ["encode", "decode"])
@torch.inference_mode()
def test_the_vae_goes_on_in_tiles_where_memory_is_short_and_says_so(core, models_dir, monkeypatch, caplog, way):
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(models_dir / "vae" / "tiny_wan_vae.safetensors")))
    made = SimpleNamespace(vae=vae)
    given = torch.rand(9, 64, 96, 3) if way == "encode" else torch.randn(1, 16, 3, 8, 12)
    run = getattr(core.backend.ComfyBackend, way)
    want = run(made, given)
    plain, calls = getattr(vae.first_stage_model, way), []

    def short_of_memory(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("made up by a test")
        return plain(*args, **kwargs)

    monkeypatch.setattr(vae.first_stage_model, way, short_of_memory)
    with caplog.at_level("WARNING"):
        got = run(made, given)
    assert got.shape == want.shape and len(calls) >= 2
    assert f"retrying with tiled VAE {way[:-1]}ing" in caplog.text
    torch.testing.assert_close(got, want, atol=0.05, rtol=0.05)

"""ComfyUI's Wan model with our adapter predicts what the engine's own backbone predicts, and samples the same."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comparing import relative
from safetensors.torch import load_file, save_file


def load_model(core, files, strength: float = 1.0):
    """A MODEL as the two loader nodes make it."""
    base = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
    return core.adapter.patch_model(base, files.infinitetalk, strength)


def make_conditioning(core, own, speakers: int = 1, context: int = 2):
    """A chunk of 13 frames at 64 x 96, random in everything."""
    torch.manual_seed(3)
    chunk = core.plan.plan_chunks(13, 13, 5)[0]
    config = own.adapter.config
    masks = None
    if speakers == 2:
        masks = torch.zeros(3, 4 * 6)
        masks[0, :10], masks[1, 14:], masks[2, 10:14] = 1, 1, 1
    return core.conditioning.ChunkConditioning(
        chunk=chunk,
        seed=chunk.index,
        noise=torch.randn(1, 16, 4, 8, 12),
        context=torch.randn(1, 16, context, 8, 12),
        reference=torch.randn(1, 16, 4, 8, 12),
        mask=core.conditioning.reference_mask(4, 8, 12),
        clip=None,
        audio_windows=torch.randn(speakers, 13, config.window, 1, config.audio_width),
        masks=masks,
    )


def predict_on_host(core, model, x, t, text, picture, items):
    """One forward of ComfyUI's WanModel with the items' speech."""
    adapter = core.adapter.adapter_of(model)
    call = core.wrappers.SpeechCall(adapter, items, model.get_attachment(core.wrappers.KEY))
    options = {"wrappers": {WrappersMP.DIFFUSION_MODEL: {core.wrappers.KEY: [core.wrappers.wan_forward_wrapper]}}}
    given = {"transformer_options": options, core.wrappers.KEY: call}
    return model.model.diffusion_model(x, t, text, clip_fea=picture, **given)


@pytest.mark.parametrize("speakers", [1, 2])
@torch.inference_mode()
def test_one_prediction(core, files, own, speakers):
    model = load_model(core, files)
    c = make_conditioning(core, own, speakers)
    x = core.wan.model_input(c.noise, c.mask, c.reference).expand(2, -1, -1, -1, -1)
    text, picture = torch.randn(2, 512, 4096), torch.randn(2, 257, 1280)
    t = torch.tensor([612.3, 612.3])
    heard = [own.adapter.speech_tokens(c.audio_windows, c.masks), own.adapter.silence(c.audio_windows)]
    want = own.backbone(x, t, text, picture, own.adapter, heard)
    got = predict_on_host(core, model, x, t, text, picture, heard)
    assert relative(got, want) < 1e-5
    deaf = own.backbone(x, t, text, picture, own.adapter, heard[::-1])
    assert relative(deaf, want) > 1e-4, "the speech must matter, or the test shows nothing"


def test_strength_zero_is_the_model_without_speech(core, files, own):
    c = make_conditioning(core, own)
    x = core.wan.model_input(c.noise, c.mask, c.reference)
    text, picture, t = torch.randn(1, 512, 4096), torch.randn(1, 257, 1280), torch.tensor([500.0])
    heard = [own.adapter.speech_tokens(c.audio_windows)]
    with torch.inference_mode():
        silenced = predict_on_host(core, load_model(core, files, 0.0), x, t, text, picture, heard)
        plain = load_model(core, files).model.diffusion_model(x, t, text, clip_fea=picture)
    torch.testing.assert_close(silenced, plain, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_with_dynamic_vram_the_same_weights_are_loaded(core, files, own, monkeypatch):
    """Newer ComfyUI on NVIDIA: layers have no weights until they are loaded, and a missing one would be zeros."""
    memory = pytest.importorskip("comfy.memory_management", reason="this ComfyUI has no dynamic VRAM")
    if not hasattr(memory, "aimdo_enabled"):
        pytest.skip("this ComfyUI has no dynamic VRAM")
    c = make_conditioning(core, own)
    x = core.wan.model_input(c.noise, c.mask, c.reference)
    text, picture, t = torch.randn(1, 512, 4096), torch.randn(1, 257, 1280), torch.tensor([500.0])
    heard = [own.adapter.speech_tokens(c.audio_windows)]
    want = predict_on_host(core, load_model(core, files), x, t, text, picture, heard)
    base = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
    monkeypatch.setattr(memory, "aimdo_enabled", True)
    model = core.adapter.patch_model(base, files.infinitetalk, 1.0)
    holed = {k: v for k, v in load_file(files.infinitetalk).items() if k != "blocks.1.audio_cross_attn.proj.weight"}
    with pytest.raises(ValueError, match=r"lacks 1 tensor, first blocks\.1\.audio_cross_attn\.proj\.weight"):
        core.patchers.load_strictly(
            lambda ops: core.audio.AudioAdapter(own.adapter.config, ops, device="meta"), holed, "a file"
        )
    monkeypatch.setattr(memory, "aimdo_enabled", False)
    assert torch.equal(predict_on_host(core, model, x, t, text, picture, heard), want)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.bfloat16, 5e-3), (torch.float16, 1e-3), (torch.float8_e4m3fn, 4e-2)]
)
@torch.inference_mode()
def test_weights_in_other_types_stay_as_they_are_and_predict_nearly_the_same(core, files, own, dtype, limit, tmp_path):
    weights = {k: v.to(dtype) for k, v in load_file(files.infinitetalk).items()}
    save_file(weights, tmp_path / "weights.safetensors")
    model = load_model(core, replace_file(files, infinitetalk=tmp_path / "weights.safetensors"))
    assert {p.dtype for p in core.adapter.adapter_of(model).parameters()} == {dtype}
    c = make_conditioning(core, own)
    x = core.wan.model_input(c.noise, c.mask, c.reference)
    text, picture, t = torch.randn(1, 512, 4096), torch.randn(1, 257, 1280), torch.tensor([500.0])
    heard = [own.adapter.speech_tokens(c.audio_windows)]
    want = predict_on_host(core, load_model(core, files), x, t, text, picture, heard)
    assert relative(predict_on_host(core, model, x, t, text, picture, heard), want) < limit


def replace_file(files, **changed):
    return SimpleNamespace(**{**vars(files), **changed})


def make_backend(core, model, guidance, sampler: str = "euler", steps: int = 3):
    text = torch.Generator().manual_seed(5)
    return core.backend.ComfyBackend(
        model=model,
        vae=None,
        clip_vision=None,
        positive=[[torch.randn(1, 512, 4096, generator=text), {}]],
        negative=[[torch.randn(1, 512, 4096, generator=text), {}]],
        guidance=guidance,
        sampler=comfy.samplers.sampler_object(sampler),
        sigmas=core.schedule.shifted_sigmas(steps, 7.0),
    )


def sample_with_own_loop(core, own, made, model, c):
    """The engine's Euler loop on its own backbone, in the latent scale of ComfyUI's model."""
    scale_in, scale_out = model.model.process_latent_in, model.model.process_latent_out
    heard, silence = own.adapter.speech_tokens(c.audio_windows, c.masks), own.adapter.silence(c.audio_windows)
    combine = core.guidance.guided(made.guidance)
    z2 = scale_in(c.reference)

    def velocity(x, sigma):
        def branch(b):
            text = (made.positive if b.uses_text else made.negative)[0][0]
            z = core.wan.model_input(x, c.mask, z2)
            speech = heard if b.uses_audio else silence
            # Without CLIP tokens ComfyUI gives the text to the image attention as well.
            return own.backbone(z, (sigma * 1000).reshape(1), text, None, own.adapter, [speech])

        return combine({b: branch(b) for b in made.guidance.branches_at(float(sigma), made.sigmas)})

    return scale_out(core.euler.euler(velocity, c.noise, made.sigmas, scale_in(c.context)))


@pytest.mark.usefixtures("text_attention_as_in_comfyui")
@pytest.mark.parametrize("speakers", [1, 2])
@pytest.mark.parametrize(("text", "audio", "apg"), [(1, 1, False), (1, 2, False), (5, 4, False), (5, 4, True)])
@torch.inference_mode()
def test_host_sampling_equals_our_own_loop(core, files, own, speakers, text, audio, apg):
    model = load_model(core, files)
    c = make_conditioning(core, own, speakers)
    guidance = core.guidance.Guidance(text, audio, core.guidance.Apg() if apg else None)
    made = make_backend(core, model, guidance)
    seen = []
    got = made.denoise(c, lambda step, denoised: seen.append(step))
    want = sample_with_own_loop(core, own, made, model, c)
    assert seen == [0, 1, 2]
    assert relative(got, want) < 5e-5
    held = c.context.shape[2]
    torch.testing.assert_close(got[:, :, :held], c.context, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("text_attention_as_in_comfyui")
@pytest.mark.parametrize(("text", "audio", "apg"), [(1, 4, False), (5, 4, True)])
@torch.inference_mode()
def test_guidance_in_a_range_equals_our_own_loop(core, files, own, text, audio, apg):
    model, c = load_model(core, files), make_conditioning(core, own)
    apg = core.guidance.Apg() if apg else None
    steps = 4
    made = make_backend(core, model, core.guidance.Guidance(text, audio, apg, start=0.25, end=0.5), steps=steps)
    got = made.denoise(c, lambda step, denoised: None)
    assert relative(got, sample_with_own_loop(core, own, made, model, c)) < 5e-5
    always = make_backend(core, model, core.guidance.Guidance(text, audio, apg), steps=steps)
    assert relative(always.denoise(c, lambda step, denoised: None), got) > 1e-3


@pytest.mark.usefixtures("text_attention_as_in_comfyui")
@torch.inference_mode()
def test_sdedit_starts_from_the_noised_source_at_exactly_its_strength(core, files, own):
    """ComfyUI's sampler does the noising: the same as the formula and our own loop from there."""
    c = make_conditioning(core, own)
    c = replace(c, source=torch.randn_like(c.noise), strength=0.6)
    model = load_model(core, files)
    made = make_backend(core, model, core.guidance.Guidance(1, 2))
    got = made.denoise(c, lambda s, x: None)
    begun = core.sdedit.noised(model.model.process_latent_in(c.source), c.noise, 0.6)
    from_there = replace(made, sigmas=core.sdedit.start_at(made.sigmas, 0.6))
    want = sample_with_own_loop(core, own, from_there, model, replace(c, noise=begun))
    assert from_there.sigmas[0] == torch.tensor(0.6)
    assert relative(got, want) < 5e-5


@pytest.mark.parametrize(
    "sampler",
    ["dpmpp_2m", "uni_pc", "heun", "euler_ancestral", "euler_cfg_pp", "dpmpp_2m_cfg_pp", "gradient_estimation"],
)
@torch.inference_mode()
def test_any_sampler_keeps_the_context(core, files, own, sampler):
    c = make_conditioning(core, own)
    made = make_backend(core, load_model(core, files), core.guidance.Guidance(1, 1), sampler, 4)
    latents = made.denoise(c, lambda step, denoised: None)
    assert torch.isfinite(latents).all()
    torch.testing.assert_close(latents[:, :, : c.context.shape[2]], c.context, atol=1e-5, rtol=1e-5)


def merged(own, lora):
    """`own` with all that the LoRA file says (low-rank products, differences of weights and biases) added."""
    both = deepcopy(own)
    weights = both.backbone.state_dict()
    for key, value in lora.items():
        name = key.removeprefix("diffusion_model.")
        if name.endswith(".lora_up.weight"):
            stem = key.removesuffix(".lora_up.weight")
            down = lora[f"{stem}.lora_down.weight"].float()
            scale = lora[f"{stem}.alpha"].item() / down.shape[0]
            weights[stem.removeprefix("diffusion_model.") + ".weight"] += scale * (value.float() @ down)
        elif name.endswith(".diff"):
            weights[name.removesuffix(".diff") + ".weight"] += value.float()
        elif name.endswith(".diff_b"):
            weights[name.removesuffix(".diff_b") + ".bias"] += value.float()
    return both


@pytest.mark.usefixtures("text_attention_as_in_comfyui")
@torch.inference_mode()
def test_a_lora_from_comfyui_acts_as_merged_weights_do(core, files, own, monkeypatch):
    """The core node LoraLoaderModelOnly, after ours."""
    import folder_paths

    from nodes import LoraLoaderModelOnly

    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, name: str(files.lora))
    c = make_conditioning(core, own)
    guidance = core.guidance.Guidance(1, 1)
    model = load_model(core, files)
    (with_lora,) = LoraLoaderModelOnly().load_lora_model_only(model, files.lora.name, 1.0)
    made = make_backend(core, with_lora, guidance)
    got = made.denoise(c, lambda s, x: None)
    plain = make_backend(core, model, guidance).denoise(c, lambda s, x: None)
    want = sample_with_own_loop(core, merged(own, load_file(files.lora)), made, model, c)
    assert relative(got, plain) > 1e-3, "the LoRA must matter"
    assert relative(got, want) < 5e-5


@torch.inference_mode()
def test_partly_loaded_models_predict_the_same(core, files, own):
    """What does not fit stays behind and is cast layer by layer: same numbers to the bit."""
    c = make_conditioning(core, own)
    x = core.wan.model_input(c.noise, c.mask, c.reference)
    text, picture, t = torch.randn(1, 512, 4096), torch.randn(1, 257, 1280), torch.tensor([500.0])
    heard = [own.adapter.speech_tokens(c.audio_windows)]
    whole = predict_on_host(core, load_model(core, files), x, t, text, picture, heard)
    for budget in (1, 300_000):
        model = load_model(core, files)
        patchers = [model, *model.get_additional_models_with_key(core.wrappers.KEY)]
        for patcher in patchers:
            patcher.load(patcher.load_device, lowvram_model_memory=budget)
        assert any(p.model.model_lowvram for p in patchers)
        part = predict_on_host(core, model, x, t, text, picture, heard)
        assert torch.equal(part, whole)


@torch.inference_mode()
def test_attention_overrides_reach_all_attention_but_the_audios(core, files, own):
    """A node that overrides attention on the MODEL sees the attention to the video, the text and the picture."""
    c = make_conditioning(core, own)
    model = load_model(core, files)
    shapes = []

    def override(function, q, k, v, *args, **kwargs):
        shapes.append(tuple(k.shape))
        return function(q, k, v, *args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = override
    make_backend(core, model, core.guidance.Guidance(1, 1), steps=1).denoise(c, lambda s, x: None)
    assert len(shapes) == 3 * len(own.backbone.blocks)
    assert all(len(k) == 3 and k[0] == 1 for k in shapes), "the audio's has a batch item per latent frame"


@torch.inference_mode()
def test_what_other_nodes_do_after_guidance_is_done(core, files, own):
    c = make_conditioning(core, own)
    model = load_model(core, files)
    calls = []
    model.set_model_sampler_post_cfg_function(lambda args: calls.append(sorted(args)) or args["denoised"])
    guidance = core.guidance.Guidance(5, 4)
    got = make_backend(core, model, guidance).denoise(c, lambda s, x: None)
    assert len(calls) == 3
    assert {"denoised", "cond_denoised", "uncond_denoised", "input", "sigma"} <= set(calls[0])
    torch.testing.assert_close(got, make_backend(core, load_model(core, files), guidance).denoise(c, lambda s, x: None))


def test_a_model_with_another_guidance_rule_and_odd_sigmas_are_refused(core, files):
    model = load_model(core, files)
    core.run.check_guidance(model)
    model.set_model_sampler_cfg_function(lambda args: args["cond"])
    with pytest.raises(ValueError, match="another node has changed the guidance"):
        core.run.check_guidance(model)
    good = torch.tensor([1.0, 0.5, 0.0])
    assert core.run.check_sigmas(good, False) is good
    for bad, words in (
        (good[:2], "end at 0"),
        (good[:1], "at least 2"),
        (good.flip(0), "must fall"),
        (good[1:], "start"),
    ):
        with pytest.raises(ValueError, match=words):
            core.run.check_sigmas(bad, False)
    core.run.check_sigmas(good[1:], True)


@torch.inference_mode()
def test_another_nodes_block_replacement_stays_outermost(core, files, own):
    c = make_conditioning(core, own)
    model = load_model(core, files)
    calls = []

    def other(args, extra):
        calls.append(1)
        return extra["original_block"](args)

    model.set_model_patch_replace(other, "dit", "double_block", 0)
    guidance = core.guidance.Guidance(1, 1)
    got = make_backend(core, model, guidance).denoise(c, lambda s, x: None)
    want = make_backend(core, load_model(core, files), guidance).denoise(c, lambda s, x: None)
    assert calls
    torch.testing.assert_close(got, want)


@torch.inference_mode()
def test_a_chunk_can_be_made_again_alone(core, files, own):
    """Nothing is kept inside between chunks: the same conditioning gives the same bits."""
    c = make_conditioning(core, own)
    made = make_backend(core, load_model(core, files), core.guidance.Guidance(5, 4, core.guidance.Apg()))
    first = made.denoise(c, lambda s, x: None)
    made.denoise(replace(c, noise=c.noise.flip(2)), lambda s, x: None)
    assert torch.equal(made.denoise(c, lambda s, x: None), first)

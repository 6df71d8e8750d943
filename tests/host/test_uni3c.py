"""Uni3C in ComfyUI adds what the engine's own backbone adds, once a step, where the schedule says."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.samplers
import comfy.sd
import pytest
import torch
from comparing import relative
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def loaded(core, files, own):
    """A MODEL with speech, the Uni3C patcher, and the engine's own models with the same weights."""
    base = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
    control = {k: v.float() for k, v in load_file(files.uni3c).items()}
    network = core.network.Uni3C(core.network.Uni3CConfig.from_shapes({k: v.shape for k, v in control.items()}))
    network.load_state_dict(control)
    return SimpleNamespace(
        model=core.adapter.patch_model(base, files.infinitetalk, 1.0),
        patcher=core.uni3c.load_uni3c_patcher(files.uni3c),
        network=network.eval(),
        **vars(own),
    )


def conditioning(core, loaded, view: bool):
    torch.manual_seed(1)
    config = loaded.adapter.config
    camera = core.camera.CameraConditioning(
        latents=torch.randn(1, 16, 4, 8, 12),
        mask=(torch.rand(1, 1, 13, 64, 96) > 0.5).float() if view else None,
        rays=torch.randn(1, 6, 13, 64, 96) if view else None,
    )
    return core.conditioning.ChunkConditioning(
        chunk=core.plan.plan_chunks(13, 13, 5)[0],
        seed=0,
        noise=torch.randn(1, 16, 4, 8, 12),
        context=torch.randn(1, 16, 2, 8, 12),
        reference=torch.randn(1, 16, 4, 8, 12),
        mask=core.conditioning.reference_mask(4, 8, 12),
        clip=None,
        audio_windows=torch.randn(1, 13, config.window, 1, config.audio_width),
        masks=None,
        camera=camera,
    )


def known(core, patcher):
    return core.fingerprint.Component(patcher, "Uni3C")


def make_backend(core, loaded, text: float, audio: float, **camera):
    control = core.camera.CameraControl(known(core, loaded.patcher), None, **camera) if camera else None
    generator = torch.Generator().manual_seed(5)
    model = loaded.model
    if control is not None:
        # As the run does: loaded by ComfyUI together with the MODEL.
        model = model.clone()
        model.set_additional_models(core.uni3c.KEY, [loaded.patcher])
    return core.backend.ComfyBackend(
        model=model,
        vae=None,
        clip_vision=None,
        positive=[[torch.randn(1, 512, 4096, generator=generator), {}]],
        negative=[[torch.randn(1, 512, 4096, generator=generator), {}]],
        guidance=core.guidance.Guidance(text, audio),
        sampler=comfy.samplers.sampler_object("euler"),
        sigmas=core.schedule.shifted_sigmas(4, 7.0),
        camera=control,
    )


def own_loop(core, loaded, made, c):
    """The engine's Euler loop with the ControlNet's residuals after its own blocks."""
    scale_in, scale_out = loaded.model.model.process_latent_in, loaded.model.model.process_latent_out
    speech, silence = loaded.adapter.speech_tokens(c.audio_windows), loaded.adapter.silence(c.audio_windows)
    combine, control, z2 = core.guidance.guided(made.guidance), made.camera, scale_in(c.reference)
    render = scale_in(c.camera.latents)

    def velocity(x, sigma):
        z, t = core.wan.model_input(x, c.mask, z2), (sigma * 1000).reshape(1)
        after = None
        if control.acts_at(float(sigma), made.sigmas):
            temb = loaded.backbone.time_embedding(core.wan.time_frequencies(t, loaded.backbone.config.freq_dim))
            residuals = loaded.network(z[:, :20], render, temb, c.camera.mask, c.camera.rays)

            def after(i, h):
                return h + control.strength * residuals[i] if i < len(residuals) else h

        def branch(b):
            text = (made.positive if b.uses_text else made.negative)[0][0]
            heard = [speech if b.uses_audio else silence]
            return loaded.backbone(z, t, text, None, loaded.adapter, heard, after_block=after)

        return combine({b: branch(b) for b in made.guidance.branches})

    return scale_out(core.euler.euler(velocity, c.noise, made.sigmas, scale_in(c.context)))


@pytest.mark.usefixtures("text_attention_as_in_comfyui")
@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize(("text", "audio"), [(1, 1), (5, 4)])
@torch.inference_mode()
def test_sampling_with_a_camera_equals_our_own_loop(core, loaded, view, text, audio):
    c = conditioning(core, loaded, view)
    made = make_backend(core, loaded, text, audio, strength=0.8, start=0.0, end=0.6)
    got = made.denoise(c, lambda s, x: None)
    want = own_loop(core, loaded, made, c)
    assert relative(got, want) < 5e-5
    without = make_backend(core, loaded, text, audio).denoise(c, lambda s, x: None)
    assert relative(without, want) > 1e-3, "the camera must matter, or the test shows nothing"


@torch.inference_mode()
def test_the_network_runs_once_a_step_whatever_the_guidance(core, loaded, monkeypatch):
    calls = []
    states = core.network.Uni3C.states
    monkeypatch.setattr(core.network.Uni3C, "states", lambda *a, **k: calls.append(1) or states(*a, **k))
    c = conditioning(core, loaded, True)
    make_backend(core, loaded, 5, 4, strength=1.0, start=0.0, end=1.0).denoise(c, lambda s, x: None)
    assert len(calls) == 4


@torch.inference_mode()
def test_it_acts_only_in_the_asked_part_of_the_schedule(core, loaded, monkeypatch):
    calls = []
    states = core.network.Uni3C.states
    monkeypatch.setattr(core.network.Uni3C, "states", lambda *a, **k: calls.append(1) or states(*a, **k))
    c = conditioning(core, loaded, False)
    for start, end, want in ((0.0, 0.25, 2), (0.5, 1.0, 2), (0.0, 0.0, 1), (0.3, 0.4, 0)):
        calls.clear()
        make_backend(core, loaded, 1, 1, strength=1.0, start=start, end=end).denoise(c, lambda s, x: None)
        assert len(calls) == want, (start, end)


@torch.inference_mode()
def test_strength_zero_changes_nothing(core, loaded):
    c = conditioning(core, loaded, False)
    got = make_backend(core, loaded, 1, 1, strength=0.0, start=0.0, end=1.0).denoise(c, lambda s, x: None)
    torch.testing.assert_close(got, make_backend(core, loaded, 1, 1).denoise(c, lambda s, x: None))


def test_another_width_and_a_wrong_order_are_refused(core, loaded):
    control = core.camera.CameraControl(known(core, loaded.patcher), None, 1.0, 0.0, 1.0)
    core.uni3c.check_camera(control, 256)
    with pytest.raises(ValueError, match="made for a model of width 256, but the MODEL's is 5120"):
        core.uni3c.check_camera(control, 5120)
    with pytest.raises(ValueError, match=r"got 0\.6 and 0\.3"):
        core.camera.CameraControl(known(core, loaded.patcher), None, 1.0, 0.6, 0.3)

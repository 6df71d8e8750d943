"""Our autoencoder for whole clips gives what ComfyUI's gives chunk by chunk, and ComfyUI opens our files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import comfy.latent_formats
import comfy.sd
import pytest
import torch
from comfy.ldm.wan.vae import WanVAE
from comparing import relative
from safetensors.torch import load_file

CLOSE = 2e-5
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def core(pack):
    """The modules under test, from the pack as ComfyUI loads it."""
    return import_module(f"{pack.__name__}.infinitetalk_core.model.vae")


@pytest.fixture(scope="module")
def both(core):
    """The same random weights in our module and in ComfyUI's."""
    torch.manual_seed(0)
    ours = core.WanVae(8).eval().requires_grad_(False)
    for parameter in ours.parameters():
        if parameter.ndim == 1:
            parameter.normal_(0.0, 0.2)
    theirs = WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True]).eval().requires_grad_(False)
    theirs.load_state_dict(ours.state_dict())
    return SimpleNamespace(ours=ours, theirs=theirs)


@pytest.mark.parametrize("frames", [1, 5, 9, 21])
def test_encoding_equals_comfyui(both, frames):
    pixels = torch.rand(1, 3, frames, 32, 48) * 2 - 1
    assert relative(both.ours.raw_means(pixels), both.theirs.encode(pixels)) < CLOSE


@pytest.mark.parametrize("latents", [1, 2, 3, 6])
def test_decoding_equals_comfyui(both, latents):
    raw = torch.randn(1, 16, latents, 4, 6)
    assert relative(both.ours.decoder(both.ours.conv2(raw)), both.theirs.decode(raw)) < CLOSE


def test_latents_are_scaled_as_comfyuis_latent_format_does(both):
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    theirs = comfy.latent_formats.Wan21().process_in(both.theirs.encode(pixels))
    assert relative(both.ours.means(pixels), theirs) < CLOSE


def test_comfyui_opens_our_file(core, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "vae.safetensors"
    core.save_vae(core.WanVae(8), path)
    vae = comfy.sd.VAE(sd=load_file(path))
    vae.throw_exception_if_invalid()
    frames = torch.rand(5, 32, 32, 3)
    latents = comfy.latent_formats.Wan21().process_in(vae.encode(frames).float())
    assert relative(core.load_vae(path).encode(frames[None]), latents) < 2e-2


@pytest.mark.parametrize("broken", [None, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_decoded_frames_that_are_no_numbers_are_refused(pack, broken, dtype):
    backend = import_module(f"{pack.__name__}.nodes.host.sampling.backend").ComfyBackend
    frames = torch.rand(1, 5, 16, 24, 3).to(dtype)
    if broken is not None:
        frames[0, 3, 7, 9, 1] = broken
    vae = SimpleNamespace(decode=lambda latents: frames)
    made = backend(None, vae, None, [], [], None, None, torch.ones(2))
    if broken is None:
        assert torch.equal(made.decode(torch.zeros(1)), frames[0].float())
    else:
        with pytest.raises(RuntimeError, match="the VAE gave not-a-number"):
            made.decode(torch.zeros(1))


@pytest.mark.parametrize("trained", [True, False])
def test_comfyuis_vae_encodes_the_gray_after_a_reference_until_it_has_settled(pack, core, tmp_path, trained):
    chunks = f"{pack.__name__}.infinitetalk_core.chunks"
    reference = import_module(f"{chunks}.reference")
    path = REPO / "small_models" / "vae" / "small_wan_vae.safetensors"
    if not trained:
        torch.manual_seed(0)
        path = tmp_path / "vae.safetensors"
        core.save_vae(core.WanVae(8), path)
    vae, encoded = comfy.sd.VAE(sd=load_file(path)), []
    plain = vae.encode

    def encode(frames):
        encoded.append(len(frames))
        return plain(frames)

    vae.encode = encode
    pictures = torch.rand(3, 24, 32, 3)
    plan = [
        reference.PlannedChunk(chunk, reference.ReferenceChoice((chunk.index,)), chunk.index)
        for chunk in import_module(f"{chunks}.plan").plan_chunks(200)
    ]
    backend = import_module(f"{pack.__name__}.nodes.host.sampling.backend").ComfyBackend
    encoder = import_module(f"{chunks}.encoded_reference").ReferenceEncoder(
        SimpleNamespace(plan=plan, reference=SimpleNamespace(picture=lambda frame: pictures[frame])),
        backend(None, vae, None, [], [], None, None, torch.ones(2)),
    )
    found = [encoder.encode(planned, None, None).latents for planned in plan]
    assert encoded[0] == 81 and all(frames < 40 if trained else frames == 81 for frames in encoded[1:])
    frames = import_module(f"{chunks}.conditioning").reference_video(pictures[2], 81)
    whole = plain(frames)
    if not trained:
        assert torch.equal(found[2], whole)
    count = 1 + (encoded[-1] - 1) // 4
    assert torch.equal(found[2][:, :, :count], whole[:, :, :count]), "it encodes piece by piece"
    assert relative(found[2], whole) < 2e-3

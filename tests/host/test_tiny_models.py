"""The small models are what ComfyUI's and transformers' loaders take for the real thing."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WAN = "diffusion_models/tiny_wan2.1_i2v.safetensors"
VAE = "vae/tiny_wan_vae.safetensors"
PATCH = "model_patches/tiny_infinitetalk_single.safetensors"
SPEECH = "audio_encoders/tiny_wav2vec2.safetensors"
LORA = "loras/tiny_lora.safetensors"
UNI3C = "controlnet/tiny_uni3c.safetensors"


@pytest.fixture(scope="module")
def wan(models_dir: Path):
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(models_dir / WAN))


def test_the_same_seed_gives_the_same_bytes(models_dir: Path, tmp_path: Path) -> None:
    from make_tiny_models import FILES, write_tiny_models

    write_tiny_models(tmp_path)
    for file in FILES:
        first, second = ((d / file).read_bytes() for d in (models_dir, tmp_path))
        assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest(), file


def test_all_of_them_are_small(tmp_path: Path) -> None:
    from make_tiny_models import write_tiny_models

    write_tiny_models(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < 20e6


def test_diffusion_model_is_detected_as_wan_i2v_and_complete(models_dir: Path, caplog) -> None:
    import comfy.sd

    with caplog.at_level(logging.INFO):
        patcher = comfy.sd.load_diffusion_model(str(models_dir / WAN))
    config = patcher.model.model_config.unet_config
    assert (config["image_model"], config["model_type"], config["in_dim"]) == ("wan2.1", "i2v", 36)
    _no_complaints(caplog)
    file = load_file(models_dir / WAN)
    assert patcher.model.diffusion_model.state_dict().keys() == file.keys()


def test_vae_is_complete_and_makes_pictures(models_dir: Path, caplog) -> None:
    import comfy.sd
    import comfy.utils

    with caplog.at_level(logging.INFO), torch.inference_mode():
        weights, metadata = comfy.utils.load_torch_file(str(models_dir / VAE), return_metadata=True)
        keys = set(weights)
        vae = comfy.sd.VAE(sd=weights, metadata=metadata)
        frames = torch.linspace(0, 1, 9 * 64 * 64 * 3).reshape(9, 64, 64, 3)
        latent = vae.encode(frames)
        decoded = vae.decode(latent)
    _no_complaints(caplog)
    assert vae.first_stage_model.state_dict().keys() == keys
    assert latent.shape == (1, 16, 3, 8, 8) and 0.1 < latent.std() < 3
    assert decoded.shape == (1, 9, 64, 64, 3)
    assert 0.3 < decoded.mean() < 0.7 and decoded.std() > 0.05, "neither black, white nor flat"


def test_diffusion_model_predicts_finite_numbers_of_sane_size(wan) -> None:
    model = wan.model.diffusion_model
    x = torch.randn(1, 36, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    context = torch.zeros(1, 512, 4096)
    with torch.inference_mode():
        out = model(x.to(model.dtype), torch.tensor([500.0]), context=context.to(model.dtype), clip_fea=None)
    assert out.shape == (1, 16, 3, 8, 8)
    assert torch.isfinite(out).all() and 0.3 < out.float().std() < 3


def test_wav2vec2_loads_strictly_with_transformers(models_dir: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    weights = {name.removeprefix("wav2vec2."): value for name, value in load_file(models_dir / SPEECH).items()}
    config = Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=1, intermediate_size=256, conv_dim=[32] * 7
    )
    model = Wav2Vec2Model(config).eval()
    # transformers keeps the positional convolution's weight normalization under torch's newer names.
    new_names = {
        "weight_g": "parametrizations.weight.original0",
        "weight_v": "parametrizations.weight.original1",
    }
    for old, new in new_names.items():
        weights[f"encoder.pos_conv_embed.conv.{new}"] = weights.pop(f"encoder.pos_conv_embed.conv.{old}")
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True)
    sound = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        states = model(sound, output_hidden_states=True).hidden_states
    assert len(states) == 5 and all(torch.isfinite(s).all() for s in states)
    assert states[-1].std(dim=1).mean() > 0.05, "speech features change over time"


def test_infinitetalk_weights_fit_the_other_two(models_dir: Path, wan) -> None:
    weights, speech = load_file(models_dir / PATCH), load_file(models_dir / SPEECH)
    layers = len({k.split(".")[3] for k in speech if k.startswith("wav2vec2.encoder.layers.")})
    channels = speech["wav2vec2.feature_projection.projection.weight"].shape[0]
    assert weights["audio_proj.proj1.weight"].shape[1] == 5 * layers * channels
    assert weights["audio_proj.proj1_vf.weight"].shape[1] == 8 * layers * channels
    for i, block in enumerate(wan.model.diffusion_model.blocks):
        dim = block.self_attn.q.weight.shape[1]
        assert weights[f"blocks.{i}.audio_cross_attn.q_linear.weight"].shape == (dim, dim)
        assert weights[f"blocks.{i}.norm_x.weight"].shape == (dim,)


def test_uni3c_fits_the_diffusion_model(models_dir: Path, wan) -> None:
    weights, model = load_file(models_dir / UNI3C), wan.model.diffusion_model
    dim = model.time_embedding[2].weight.shape[0]
    blocks = {k.split(".")[1] for k in weights if k.startswith("controlnet_blocks.")}
    assert 0 < len(blocks) < len(model.blocks)
    for i in blocks:
        for norm in ("norm1", "norm2"):
            assert weights[f"controlnet_blocks.{i}.{norm}.linear.weight"].shape[1] == dim
        assert weights[f"proj_out.{i}.weight"].shape[0] == dim
    assert weights["controlnet_patch_embedding.weight"].shape[1:] == model.patch_embedding.weight.shape[1:]
    assert weights["controlnet_mask_embedding.mask_proj.0.weight"].shape[1] == 1 + 6
    assert (models_dir / UNI3C).stat().st_size < 1.5e6


def test_lora_reaches_the_diffusion_model_whole(models_dir: Path, wan, caplog) -> None:
    import comfy.sd
    import comfy.utils

    with caplog.at_level(logging.INFO):
        lora = comfy.utils.load_torch_file(str(models_dir / LORA))
        patched, _ = comfy.sd.load_lora_for_models(wan, None, lora, 1.0, 0.0)
    _no_complaints(caplog)
    assert "diffusion_model.blocks.0.self_attn.q.weight" in patched.patches
    assert "diffusion_model.blocks.0.self_attn.q.bias" in patched.patches


def _no_complaints(caplog) -> None:
    words = ("missing", "unexpected", "unet missing", "left over", "not loaded", "error")
    # ComfyUI mentions an absent torchaudio on import; that is about other models.
    complaints = [
        record.getMessage()
        for record in caplog.records
        if any(word in record.getMessage().lower() for word in words) and "torchaudio" not in record.getMessage()
    ]
    assert not complaints

"""Golden cases that need ComfyUI's own VAE and CLIP vision: driven through our backend they match the reference."""

from __future__ import annotations

import json
import re
from importlib import import_module
from types import SimpleNamespace

import comfy.clip_model
import comfy.latent_formats
import comfy.model_management
import comfy.ops
import pytest
import torch
from comfy.ldm.wan.vae import WanVAE
from comparing import relative
from safetensors.torch import load_file


def load_case(folder, name, word=""):
    """Config, tensors and the tolerance of a case, from the phrase of the manifest that contains `word`."""
    if not (folder / f"{name}.json").exists():
        pytest.skip(f"{folder} has no case {name}")
    words = json.loads((folder / "manifest.json").read_text())["suggested_tolerances"][name]
    phrase = next(p for p in words.split(",") if word in p)
    limit = float(re.findall(r"\d(?:\.\d+)?e-\d+", phrase)[0])
    config = json.loads((folder / f"{name}.json").read_text())["config"]
    return config, load_file(folder / f"{name}.safetensors"), limit


@torch.inference_mode()
def test_vae(golden_dir):
    config, tensors, limit = load_case(golden_dir, "vae")
    vae = WanVAE(**config["vae_config"]).eval()
    vae.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("weights/")})
    scale = comfy.latent_formats.Wan21()
    for row in config["cases"]:
        n = row["frames"]
        video = tensors[f"inputs/{n}/video_u8"].permute(3, 0, 1, 2)[None] / 127.5 - 1
        latents = scale.process_in(vae.encode(video))
        assert relative(latents[0], tensors[f"outputs/{n}/latent"].view_as(latents[0])) < limit
        frames = vae.decode(scale.process_out(latents)).clamp(-1, 1)
        assert relative(frames[0], tensors[f"outputs/{n}/decoded"].view_as(frames[0])) < limit


@torch.inference_mode()
def test_clip_tokens(golden_dir, pack):
    """The picture goes through ComfyBackend.encode_image; only the token count check is for the real model's size."""
    config, tensors, limit = load_case(golden_dir, "clip_vision", "tokens")
    vit = config["vit_config"]
    vision = comfy.clip_model.CLIPVision(
        {
            "num_hidden_layers": vit["num_layers"],
            "hidden_size": vit["dim"],
            "num_attention_heads": vit["num_heads"],
            "intermediate_size": vit["dim"] * vit["mlp_ratio"],
            "hidden_act": vit["activation"],
            "model_type": "clip_vision_model",
            "num_channels": 3,
            "patch_size": vit["patch_size"],
            "image_size": vit["image_size"],
        },
        torch.float32,
        torch.device("cpu"),
        comfy.ops.manual_cast,
    )
    vision.load_state_dict(hugging_face_names(tensors, vit["num_layers"]))
    backend_module = import_module(f"{pack.__name__}.nodes.host.sampling.backend")
    host = SimpleNamespace(
        patcher=import_module("comfy.model_patcher").ModelPatcher(vision, torch.device("cpu"), torch.device("cpu")),
        load_device=torch.device("cpu"),
        image_size=vit["image_size"],
        image_mean=config["mean"],
        image_std=config["std"],
        model=vision,
    )
    backend = backend_module.ComfyBackend(None, None, host, [], [], None, None, None)
    tokens = 1 + (vit["image_size"] // vit["patch_size"]) ** 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend_module, "CLIP_TOKENS", (tokens, vit["dim"]))
        names = sorted(k.split("/")[1] for k in tensors if k.endswith("image_u8"))
        assert names
        for name in names:
            seen = backend.encode_image(tensors[f"inputs/{name}/image_u8"] / 255)
            want = tensors[f"outputs/{name}/tokens"]
            assert relative(seen["penultimate_hidden_states"], want) < limit


def hugging_face_names(tensors, layers: int) -> dict[str, torch.Tensor]:
    """The reference's own ViT under the names that ComfyUI's CLIP vision has."""
    w = {k[8:]: v for k, v in tensors.items() if k.startswith("weights/")}
    named = {
        "embeddings.class_embedding": w["cls_embedding"].flatten(),
        "embeddings.patch_embedding.weight": w["patch_embedding.weight"],
        "embeddings.position_embedding.weight": w["pos_embedding"][0],
    }
    for kind in ("weight", "bias"):
        named[f"pre_layrnorm.{kind}"] = w[f"pre_norm.{kind}"]
        named[f"post_layernorm.{kind}"] = w[f"post_norm.{kind}"]
        for i in range(layers):
            ours, theirs = f"encoder.layers.{i}.", f"transformer.{i}."
            for part, rows in zip("qkv", w[f"{theirs}attn.to_qkv.{kind}"].chunk(3), strict=True):
                named[f"{ours}self_attn.{part}_proj.{kind}"] = rows
            named[f"{ours}self_attn.out_proj.{kind}"] = w[f"{theirs}attn.proj.{kind}"]
            named[f"{ours}layer_norm1.{kind}"] = w[f"{theirs}norm1.{kind}"]
            named[f"{ours}layer_norm2.{kind}"] = w[f"{theirs}norm2.{kind}"]
            named[f"{ours}mlp.fc1.{kind}"] = w[f"{theirs}mlp.0.{kind}"]
            named[f"{ours}mlp.fc2.{kind}"] = w[f"{theirs}mlp.2.{kind}"]
    return named

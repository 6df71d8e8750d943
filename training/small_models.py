"""Define the small models: sizes, file names in a models folder, and untrained models to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from infinitetalk_core import standalone
from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter
from infinitetalk_core.model.infinitetalk import InfiniteTalkModel
from infinitetalk_core.model.uni3c import Uni3C
from infinitetalk_core.model.wan import WanBackbone, WanConfig
from infinitetalk_core.standalone import HEAD_SIZE

from .captions import TOKENS

DIFFUSION = "diffusion_models/small_wan2.1_i2v.safetensors"
INFINITETALK = "model_patches/small_infinitetalk_single.safetensors"
VAE = "vae/small_wan_vae.safetensors"
SPEECH = "audio_encoders/small_wav2vec2.safetensors"
UNI3C = "controlnet/small_uni3c.safetensors"


@dataclass(frozen=True)
class SmallSizes:
    """The widths of the small models.

    The head size, and the sizes that ComfyUI's loaders require, are those of the real models.
    """

    dim: int = 256
    ffn_dim: int = 384
    layers: int = 4
    audio_width: int = 256  # speech features per frame: layers x channels of the speech encoder
    hidden: int = 128
    tokens: int = 8  # audio tokens per latent frame
    token_dim: int = 64


def new_model(sizes: SmallSizes, seed: int = 0) -> InfiniteTalkModel:
    """Return an untrained model. Its head's weights are zero, so it predicts no velocity at first."""
    torch.manual_seed(seed)
    heads = sizes.dim // HEAD_SIZE
    backbone = WanBackbone(
        WanConfig(dim=sizes.dim, ffn_dim=sizes.ffn_dim, heads=heads, layers=sizes.layers, text_len=TOKENS)
    )
    adapter = AudioAdapter(
        AdapterConfig(
            dim=sizes.dim,
            heads=heads,
            blocks=sizes.layers,
            audio_width=sizes.audio_width,
            hidden=sizes.hidden,
            tokens=sizes.tokens,
            token_dim=sizes.token_dim,
        )
    )
    torch.nn.init.zeros_(backbone.head.head.weight)
    torch.nn.init.zeros_(backbone.head.head.bias)
    for block in backbone.blocks:
        # Without CLIP vision ComfyUI gives the image attention the text; zero values make its output zero.
        torch.nn.init.zeros_(block.cross_attn.v_img.weight)  # type: ignore[union-attr, arg-type]
        torch.nn.init.zeros_(block.cross_attn.v_img.bias)  # type: ignore[union-attr, arg-type]
    return InfiniteTalkModel(backbone, adapter)


def save_model(model: InfiniteTalkModel, models: Path) -> list[Path]:
    """Write backbone and adapter in the released format (float16, released tensor names) into a models folder."""
    return [
        save_half(model.backbone.state_dict(), models / DIFFUSION),
        save_half(model.adapter.state_dict(), models / INFINITETALK),
    ]


def save_half(weights: dict[str, Tensor], path: Path) -> Path:
    """Write `weights` as float16. The file appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({k: v.detach().half().cpu().contiguous() for k, v in weights.items()}, part)
    part.replace(path)
    return path


def load_model(models: Path) -> InfiniteTalkModel:
    """Load the model that `save_model` wrote into a models folder, in float32 and trainable."""
    model = standalone.load_model(models / DIFFUSION, models / INFINITETALK, dtype=torch.float32, text_tokens=TOKENS)
    for part in (model.backbone, model.adapter):
        part.requires_grad_(True)
    return model


def load_uni3c(models: Path) -> Uni3C:
    """Load the small Uni3C from a models folder, in float32 and trainable."""
    return standalone.load_uni3c(models / UNI3C, dtype=torch.float32).requires_grad_(True)

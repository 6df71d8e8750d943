"""Write small models with random weights in the formats of the real ones.

    python tools/make_tiny_models.py MODELS_DIR

Every file has the key names, the relations between shapes and the dtype (float16) of the published InfiniteTalk files,
with fewer layers and channels, so that ComfyUI's loaders and this pack's loaders accept it like the real one. The
pictures are noise: the models serve to run every part of the pipeline in seconds, on any machine.

The bytes are the same on every machine: each tensor's numbers come from a generator seeded by the file's seed and the
tensor's name, using only integer draws and exact scaling (no transcendental functions).
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SEED = 20250814
Shape = tuple[int, ...]
StateDict = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sizes:
    """Widths and depths of the small models. Sizes that ComfyUI's loaders require are those of the real models."""

    wan_dim: int = 256  # a multiple of 128, Wan's head size
    wan_layers: int = 3
    wan_ffn: int = 512
    text_width: int = 4096
    clip_width: int = 1280
    latent_channels: int = 16
    vae_dim: int = 8
    speech_layers: int = 4
    speech_channels: int = 64
    speech_ffn: int = 256
    speech_conv: int = 32
    audio_hidden: int = 128
    audio_tokens: int = 32
    audio_width: int = 64
    lora_rank: int = 4
    control_dim: int = 96  # 16 heads (not stored in the file) of 6, the minimum for three axes of positions
    control_layers: int = 2
    control_ffn: int = 192
    control_view: int = 16


@dataclass(frozen=True)
class Weight:
    """The distribution of one tensor: uniform with a standard deviation, around a center."""

    shape: Shape
    std: float = 0.0
    center: float = 0.0

    def values(self, name: str) -> np.ndarray:
        """Return float16 numbers, a function of the name only."""
        if self.std == 0.0:
            return np.full(self.shape, self.center, dtype=np.float16)
        digest = hashlib.sha256(f"{SEED}:{name}".encode()).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
        unit = generator.random(self.shape) * 2.0 - 1.0
        return (self.center + unit * (self.std * math.sqrt(3.0))).astype(np.float16)


Weights = Iterator[tuple[str, Weight]]


def _layer(name: str, out: int, inner: Shape, gain: float = 1.0, bias: bool = True) -> Weights:
    """Return a linear or convolution layer whose output has about `gain` times the input's standard deviation."""
    yield f"{name}.weight", Weight((out, *inner), gain / math.sqrt(math.prod(inner)))
    if bias:
        yield f"{name}.bias", Weight((out,), 0.02)


def _norm(name: str, width: int, bias: bool = True) -> Weights:
    yield f"{name}.weight", Weight((width,), 0.02, 1.0)
    if bias:
        yield f"{name}.bias", Weight((width,), 0.02)


def wan_weights(s: Sizes) -> Weights:
    """Return Wan 2.1 I2V: 36 input channels (noise 16, mask 4, image 16), patches of 1x2x2."""
    dim = s.wan_dim
    yield from _layer("patch_embedding", dim, (2 * s.latent_channels + 4, 1, 2, 2))
    yield from _layer("text_embedding.0", dim, (s.text_width,))
    yield from _layer("text_embedding.2", dim, (dim,))
    yield from _layer("time_embedding.0", dim, (256,))
    yield from _layer("time_embedding.2", dim, (dim,))
    yield from _layer("time_projection.1", dim * 6, (dim,), gain=0.3)
    yield from _norm("img_emb.proj.0", s.clip_width)
    yield from _layer("img_emb.proj.1", s.clip_width, (s.clip_width,))
    yield from _layer("img_emb.proj.3", dim, (s.clip_width,))
    yield from _norm("img_emb.proj.4", dim)
    for i in range(s.wan_layers):
        yield from _wan_block(f"blocks.{i}", s)
    yield "head.modulation", Weight((1, 2, dim), 1 / math.sqrt(dim))
    yield from _layer("head.head", s.latent_channels * 4, (dim,))


def _wan_block(block: str, s: Sizes) -> Weights:
    dim = s.wan_dim
    yield f"{block}.modulation", Weight((1, 6, dim), 1 / math.sqrt(dim))
    for part in ("q", "k", "v", "o"):
        yield from _layer(f"{block}.self_attn.{part}", dim, (dim,))
    for part in ("q", "k", "v", "o", "k_img", "v_img"):
        yield from _layer(f"{block}.cross_attn.{part}", dim, (dim,))
    for norm in ("self_attn.norm_q", "self_attn.norm_k", "cross_attn.norm_q", "cross_attn.norm_k"):
        yield from _norm(f"{block}.{norm}", dim, bias=False)
    yield from _norm(f"{block}.cross_attn.norm_k_img", dim, bias=False)
    yield from _norm(f"{block}.norm3", dim)
    yield from _layer(f"{block}.ffn.0", s.wan_ffn, (dim,))
    yield from _layer(f"{block}.ffn.2", dim, (s.wan_ffn,))


def vae_weights(s: Sizes) -> Weights:
    """Return the Wan 2.1 VAE: 8x smaller in space, 4x in time, causal; widths 1, 2, 4, 4 times `vae_dim`."""
    dim, z = s.vae_dim, s.latent_channels
    widths = [dim, dim, 2 * dim, 4 * dim, 4 * dim]
    yield from _layer("encoder.conv1", widths[0], (3, 3, 3, 3))
    at = 0
    for level in range(4):
        for block in range(2):
            inner = widths[level] if block == 0 else widths[level + 1]
            yield from _vae_block(f"encoder.downsamples.{at}", inner, widths[level + 1])
            at += 1
        if level < 3:
            width = widths[level + 1]
            yield from _layer(f"encoder.downsamples.{at}.resample.1", width, (width, 3, 3))
            if level > 0:
                yield from _layer(f"encoder.downsamples.{at}.time_conv", width, (width, 3, 1, 1))
            at += 1
    yield from _vae_middle("encoder.middle", widths[-1])
    yield "encoder.head.0.gamma", Weight((widths[-1], 1, 1, 1), 0.0, 1.0)
    yield from _layer("encoder.head.2", 2 * z, (widths[-1], 3, 3, 3), gain=2.0)
    yield from _layer("conv1", 2 * z, (2 * z, 1, 1, 1))
    yield from _layer("conv2", z, (z, 1, 1, 1))
    yield from _vae_decoder(dim, z)


def _vae_decoder(dim: int, z: int) -> Weights:
    widths = [4 * dim, 4 * dim, 4 * dim, 2 * dim, dim]
    yield from _layer("decoder.conv1", widths[0], (z, 3, 3, 3))
    yield from _vae_middle("decoder.middle", widths[0])
    at = 0
    for level in range(4):
        # Each upsampling layer halves the width, so the next level's input has half of the previous level's width.
        inner = widths[level] if level == 0 else widths[level] // 2
        for block in range(3):
            yield from _vae_block(
                f"decoder.upsamples.{at}", inner if block == 0 else widths[level + 1], widths[level + 1]
            )
            at += 1
        if level < 3:
            width = widths[level + 1]
            yield from _layer(f"decoder.upsamples.{at}.resample.1", width // 2, (width, 3, 3))
            if level < 2:
                yield from _layer(f"decoder.upsamples.{at}.time_conv", 2 * width, (width, 3, 1, 1))
            at += 1
    yield "decoder.head.0.gamma", Weight((dim, 1, 1, 1), 0.0, 1.0)
    # SiLU of unit-variance values has a standard deviation near 0.6: this gain keeps pictures in [-1, 1], around gray.
    yield from _layer("decoder.head.2", 3, (dim, 3, 3, 3), gain=0.6)


def _vae_middle(name: str, width: int) -> Weights:
    yield from _vae_block(f"{name}.0", width, width)
    yield f"{name}.1.norm.gamma", Weight((width, 1, 1), 0.0, 1.0)
    yield from _layer(f"{name}.1.to_qkv", 3 * width, (width, 1, 1))
    yield from _layer(f"{name}.1.proj", width, (width, 1, 1), gain=0.5)
    yield from _vae_block(f"{name}.2", width, width)


def _vae_block(name: str, inner: int, outer: int) -> Weights:
    yield f"{name}.residual.0.gamma", Weight((inner, 1, 1, 1), 0.0, 1.0)
    yield from _layer(f"{name}.residual.2", outer, (inner, 3, 3, 3))
    yield f"{name}.residual.3.gamma", Weight((outer, 1, 1, 1), 0.0, 1.0)
    yield from _layer(f"{name}.residual.6", outer, (outer, 3, 3, 3), gain=0.3)
    if inner != outer:
        yield from _layer(f"{name}.shortcut", outer, (inner, 1, 1, 1))


def infinitetalk_weights(s: Sizes) -> Weights:
    """Return InfiniteTalk: audio projection (windows of 5 and 8 frames), audio cross-attention per block."""
    frame = s.speech_layers * s.speech_channels
    yield from _layer("audio_proj.proj1", s.audio_hidden, (5 * frame,))
    yield from _layer("audio_proj.proj1_vf", s.audio_hidden, (8 * frame,))
    yield from _layer("audio_proj.proj2", s.audio_hidden, (s.audio_hidden,))
    yield from _layer("audio_proj.proj3", s.audio_tokens * s.audio_width, (s.audio_hidden,))
    yield from _norm("audio_proj.norm", s.audio_width)
    for i in range(s.wan_layers):
        attention = f"blocks.{i}.audio_cross_attn"
        yield from _layer(f"{attention}.q_linear", s.wan_dim, (s.wan_dim,))
        yield from _layer(f"{attention}.kv_linear", 2 * s.wan_dim, (s.audio_width,))
        yield from _layer(f"{attention}.proj", s.wan_dim, (s.wan_dim,))
        yield from _norm(f"blocks.{i}.norm_x", s.wan_dim)


def wav2vec2_weights(s: Sizes) -> Weights:
    """Return wav2vec 2.0 "base" (group norm in the first convolution), named as in a pre-training checkpoint."""
    root, width, conv = "wav2vec2", s.speech_channels, s.speech_conv
    yield f"{root}.masked_spec_embed", Weight((width,), 0.5)
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        inner = 1 if i == 0 else conv
        name = f"{root}.feature_extractor.conv_layers.{i}.conv"
        yield from _layer(name, conv, (inner, kernel), gain=2.0, bias=False)
    yield from _norm(f"{root}.feature_extractor.conv_layers.0.layer_norm", conv)
    yield from _norm(f"{root}.feature_projection.layer_norm", conv)
    yield from _layer(f"{root}.feature_projection.projection", width, (conv,))
    # Weight normalization over the kernel's taps: g is the length of v's slice at each tap, v its direction.
    yield f"{root}.encoder.pos_conv_embed.conv.weight_g", Weight((1, 1, 128), 0.02, 0.5)
    yield f"{root}.encoder.pos_conv_embed.conv.weight_v", Weight((width, width // 16, 128), 0.1)
    yield f"{root}.encoder.pos_conv_embed.conv.bias", Weight((width,), 0.02)
    yield from _norm(f"{root}.encoder.layer_norm", width)
    for i in range(s.speech_layers):
        layer = f"{root}.encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from _layer(f"{layer}.attention.{part}", width, (width,))
        yield from _norm(f"{layer}.layer_norm", width)
        yield from _layer(f"{layer}.feed_forward.intermediate_dense", s.speech_ffn, (width,))
        yield from _layer(f"{layer}.feed_forward.output_dense", width, (s.speech_ffn,))
        yield from _norm(f"{layer}.final_layer_norm", width)


def lora_weights(s: Sizes) -> Weights:
    """Return a LoRA like the step-distillation ones: down, up and alpha of linear layers, plus `diff` and `diff_b`."""
    for i in range(s.wan_layers):
        for part, inner in (("self_attn.q", s.wan_dim), ("cross_attn.v", s.wan_dim), ("ffn.2", s.wan_ffn)):
            name = f"diffusion_model.blocks.{i}.{part}"
            yield f"{name}.lora_down.weight", Weight((s.lora_rank, inner), 1 / math.sqrt(inner))
            yield f"{name}.lora_up.weight", Weight((s.wan_dim, s.lora_rank), 0.25)
            yield f"{name}.alpha", Weight((), 0.0, float(s.lora_rank))
            yield f"{name}.diff_b", Weight((s.wan_dim,), 0.02)
        yield f"diffusion_model.blocks.{i}.norm3.diff", Weight((s.wan_dim,), 0.05)


def uni3c_weights(s: Sizes) -> Weights:
    """Return the Uni3C ControlNet: 36 input channels (noise 16, mask 4, guide video 16), render mask 1 and camera 6."""
    yield from _layer("controlnet_patch_embedding", s.wan_dim, (2 * s.latent_channels + 4, 1, 2, 2))
    yield from _layer("controlnet_mask_embedding.mask_proj.0", s.control_view, (1 + 6, 4, 8, 8))
    yield from _norm("controlnet_mask_embedding.mask_proj.1", s.control_view)
    yield from _layer("controlnet_mask_embedding.mask_zero_proj", s.wan_dim, (s.control_view, 1, 2, 2))
    yield from _layer("proj_in", s.control_dim, (s.wan_dim,))
    for i in range(s.control_layers):
        yield from _control_block(f"controlnet_blocks.{i}", s)
        yield from _layer(f"proj_out.{i}", s.wan_dim, (s.control_dim,), gain=0.5)


def _control_block(block: str, s: Sizes) -> Weights:
    dim = s.control_dim
    for norm in ("norm1", "norm2"):
        yield from _layer(f"{block}.{norm}.linear", 3 * dim, (s.wan_dim,))
        yield from _norm(f"{block}.{norm}.norm", dim)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from _layer(f"{block}.self_attn.{part}", dim, (dim,))
    for norm in ("norm_q", "norm_k"):
        yield from _norm(f"{block}.self_attn.{norm}", dim, bias=False)
    yield from _layer(f"{block}.ffn.0", s.control_ffn, (dim,))
    yield from _layer(f"{block}.ffn.2", dim, (s.control_ffn,))


FILES = {
    "diffusion_models/tiny_wan2.1_i2v.safetensors": wan_weights,
    "vae/tiny_wan_vae.safetensors": vae_weights,
    "model_patches/tiny_infinitetalk_single.safetensors": infinitetalk_weights,
    "audio_encoders/tiny_wav2vec2.safetensors": wav2vec2_weights,
    "loras/tiny_lora.safetensors": lora_weights,
    "controlnet/tiny_uni3c.safetensors": uni3c_weights,
}


def state_dict(file: str, sizes: Sizes | None = None) -> StateDict:
    """Return the tensors of one of FILES, by key."""
    return {key: weight.values(f"{file}:{key}") for key, weight in FILES[file](sizes or Sizes())}


def write_tiny_models(models: Path, sizes: Sizes | None = None) -> list[Path]:
    """Write FILES into ComfyUI's models folder, replacing existing ones; return the paths."""
    written = []
    for file in FILES:
        path = models / file
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state_dict(file, sizes), path)
        written.append(path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Write small random models in the formats of the real ones.")
    parser.add_argument("models", type=Path, help="ComfyUI's models folder")
    for path in write_tiny_models(parser.parse_args().models):
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path}")


if __name__ == "__main__":
    main()

"""Small speech encoders with random weights, and the names of their weights in files."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2Model

from infinitetalk_core.audio.encoder_files import inference_config
from infinitetalk_core.audio.wav2vec import Limits, SpeechEncoder

POSITION = "encoder.pos_conv_embed.conv.weight"
HUGGING_FACE_STYLES = ("weight_norm", "parametrized", "plain")


def tiny_settings(*, layers: int = 2, hidden: int = 32, conv: int = 8, by_layer: bool = False) -> Wav2Vec2Config:
    """Return settings with wav2vec 2.0's strides and kernels and few channels; `by_layer`: with LayerNorm."""
    return inference_config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        intermediate_size=2 * hidden,
        conv_dim=(conv,) * 7,
        conv_kernel=(10, 3, 3, 3, 3, 2, 2),
        conv_stride=(5, 2, 2, 2, 2, 2, 2),
        conv_bias=by_layer,
        feat_extract_norm="layer" if by_layer else "group",
        do_stable_layer_norm=by_layer,
        num_conv_pos_embeddings=128,
        num_conv_pos_embedding_groups=16,
        layer_norm_eps=1e-5,
    )


def tiny_wav2vec(
    *,
    layers: int = 2,
    hidden: int = 32,
    conv: int = 8,
    by_layer: bool = False,
    normalize_input: bool = False,
    limits: Limits | None = None,
    seed: int = 0,
) -> SpeechEncoder:
    """Return a SpeechEncoder with random weights that gives (F, layers, hidden)."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = Wav2Vec2Model(tiny_settings(layers=layers, hidden=hidden, conv=conv, by_layer=by_layer))
        torch.manual_seed(seed)  # after construction, since the library's initialization differs between versions
        for name, value in network.named_parameters():
            if "norm" in name:  # random, since the effect of a missing norm would be small with ones and zeros
                value.copy_(("weight" in name) + 0.2 * torch.randn_like(value))
            elif "parametrizations" not in name:
                value.copy_(_random_as(value))
        position = network.encoder.pos_conv_embed.conv
        position.weight = _random_as(position.weight)
    return SpeechEncoder(network, normalize_input=normalize_input, limits=limits)


def _random_as(value: Tensor) -> Tensor:
    """Return random numbers at the scale of PyTorch's default initialization.

    The library's standard deviation of 0.02 would make small layers ineffective, and its biases are 0.
    """
    return torch.randn_like(value) * ((3 * value[0].numel()) ** -0.5 if value.dim() > 1 else 0.1)


def file_tensors(encoder: SpeechEncoder, *, style: str = "weight_norm", prefix: str = "") -> dict[str, Tensor]:
    """Return the encoder's weights under the names in files; `style` is that of the positional convolution."""
    tensors = {n: value.clone() for n, value in encoder.network.state_dict().items() if "parametrizations" not in n}
    weight = encoder.network.encoder.pos_conv_embed.conv.weight.detach()
    if style == "plain":
        tensors[POSITION] = weight
    else:
        magnitude = weight.norm(dim=(0, 1), keepdim=True)
        stem = POSITION.removesuffix("weight")
        first, second = {
            "weight_norm": ("weight_g", "weight_v"),
            "parametrized": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        }[style]
        tensors[stem + first] = magnitude
        tensors[stem + second] = weight * 3.0  # weight norm ignores the length of the direction
    return {prefix + name: value.contiguous() for name, value in tensors.items()}

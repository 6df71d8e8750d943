"""Small speech encoders with random weights, and the names under which files hold such weights."""

from __future__ import annotations

import torch
from torch import Tensor

from infinitetalk_core.audio.wav2vec import Limits, SpeechEncoder
from infinitetalk_core.audio.wav2vec_network import Sizes, Wav2VecNetwork

POSITION = "encoder.pos_conv_embed.conv.weight"
HUGGING_FACE_STYLES = ("weight_norm", "parametrized", "plain")


def tiny_sizes(*, layers: int = 2, hidden: int = 32, conv: int = 8, by_layer: bool = False) -> Sizes:
    """wav2vec 2.0's strides and kernels, few channels; `by_layer`: the kind with LayerNorm (large)."""
    return Sizes(
        channels=hidden,
        layers=layers,
        heads=max(1, hidden // 64),
        ffn=2 * hidden,
        conv_channels=(conv,) * 7,
        conv_kernels=(10, 3, 3, 3, 3, 2, 2),
        conv_strides=(5, 2, 2, 2, 2, 2, 2),
        conv_bias=by_layer,
        conv_layer_norm=by_layer,
        norm_first=by_layer,
        position_kernel=128,
        position_groups=16,
    )


def tiny_wav2vec(
    *,
    layers: int = 2,
    hidden: int = 32,
    conv: int = 8,
    by_layer: bool = False,
    normalise_input: bool = False,
    limits: Limits | None = None,
    seed: int = 0,
) -> SpeechEncoder:
    """A SpeechEncoder with random weights that gives (F, layers, hidden)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Wav2VecNetwork(tiny_sizes(layers=layers, hidden=hidden, conv=conv, by_layer=by_layer))
        for name, value in network.state_dict().items():
            if "norm" in name:  # ones and zeros would hide a norm that is left out
                value.add_(0.2 * torch.randn_like(value))
    return SpeechEncoder(network, normalise_input=normalise_input, limits=limits)


def file_tensors(encoder: SpeechEncoder, *, style: str = "weight_norm", prefix: str = "") -> dict[str, Tensor]:
    """The encoder's weights under the names that files use; `style` is that of the positional convolution."""
    tensors = {name: value.clone() for name, value in encoder.network.state_dict().items()}
    if style != "plain":
        weight = tensors.pop(POSITION)
        magnitude = weight.norm(dim=(0, 1), keepdim=True)
        stem = POSITION.removesuffix("weight")
        first, second = {
            "weight_norm": ("weight_g", "weight_v"),
            "parametrized": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        }[style]
        tensors[stem + first] = magnitude
        tensors[stem + second] = weight * 3.0  # weight norm ignores the length of the direction
    return {prefix + name: value.contiguous() for name, value in tensors.items()}

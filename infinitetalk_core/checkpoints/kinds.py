"""What is this file? Told from the names and shapes of its tensors, never from its name."""

from __future__ import annotations

import enum
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


class Kind(enum.Enum):
    """Kinds of files that people have next to each other on disk; the value is how a sentence names them."""

    INFINITETALK = "InfiniteTalk weights"
    QUANTO = "a whole model in the optimum-quanto layout"
    LORA = "a LoRA"
    UNI3C = "a Uni3C ControlNet"
    WAV2VEC = "a wav2vec 2.0 audio encoder"
    WHISPER = "a Whisper audio encoder"
    VAE = "a VAE"
    TEXT_ENCODER = "a text encoder"
    CLIP_VISION = "a CLIP vision model"
    WAN_INFINITETALK = "a whole Wan model with InfiniteTalk weights merged in"
    WAN_VACE = "a Wan VACE model"
    WAN_S2V = "a Wan 2.2 S2V model"
    WAN_FLF2V = "a Wan 2.1 first-last-frame model"
    WAN_I2V = "a Wan 2.1 I2V model"
    WAN_I2V_22 = "a Wan 2.2 I2V model"
    WAN_5B = "a Wan 2.2 5B model"
    WAN_T2V = "a Wan T2V model"
    WAN_OTHER = "another Wan model"
    UNKNOWN = "a file of an unknown kind"


def kind_of(shapes: Shapes) -> Kind:
    """The kind of the file whose tensors have these names (without a common prefix) and shapes."""
    names = set(shapes)
    for kind, tells in _TELLS:
        if tells(names):
            return kind
    if "head.modulation" in names and "patch_embedding.weight" in names:
        return _kind_of_wan(shapes)
    return Kind.UNKNOWN


def _has(*parts: str):
    return lambda names: any(all(p in n for p in parts) for n in names)


def _is_infinitetalk(names: set[str]) -> bool:
    return "audio_proj.proj1_vf.weight" in names and "blocks.0.audio_cross_attn.q_linear.weight" in names


# In order: the first that fits.
_TELLS = (
    (Kind.QUANTO, _has("weight._data")),
    (Kind.LORA, lambda n: any(k.endswith((".lora_down.weight", ".lora_A.weight", ".lora_up.weight")) for k in n)),
    (Kind.LORA, lambda n: bool(n) and all(k.endswith((".diff", ".diff_b", ".alpha")) for k in n)),
    (Kind.UNI3C, _has("controlnet_patch_embedding")),
    (Kind.WAN_INFINITETALK, lambda n: _is_infinitetalk(n) and "patch_embedding.weight" in n),
    (Kind.INFINITETALK, _is_infinitetalk),
    (Kind.WAV2VEC, _has("feature_extractor.conv_layers.")),
    (Kind.WHISPER, _has("encoder.conv1.weight")),
    (Kind.CLIP_VISION, _has("vision_model.embeddings")),
    (Kind.TEXT_ENCODER, _has("SelfAttention.relative_attention_bias")),
    (Kind.TEXT_ENCODER, _has("text_model.encoder.layers")),
    (Kind.VAE, _has("decoder.middle.0.residual.0.gamma")),
    (Kind.VAE, _has("decoder.conv_in.weight")),
)


def _kind_of_wan(shapes: Shapes) -> Kind:
    channels = shapes["patch_embedding.weight"][1]
    if any(k.startswith("vace_blocks.") for k in shapes):
        return Kind.WAN_VACE
    if "casual_audio_encoder.weights" in shapes:
        return Kind.WAN_S2V
    if "img_emb.emb_pos" in shapes:
        return Kind.WAN_FLF2V
    if channels == 36:
        return Kind.WAN_I2V if "img_emb.proj.0.bias" in shapes else Kind.WAN_I2V_22
    return {16: Kind.WAN_T2V, 48: Kind.WAN_5B}.get(channels, Kind.WAN_OTHER)

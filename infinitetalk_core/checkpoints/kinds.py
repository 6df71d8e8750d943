"""Detect what a checkpoint file contains from the names and shapes of its tensors, never from its file name.

The names are those of the modules in the authors' repositories; of the models that speak besides InfiniteTalk:
FlashTalk (flash_talk/infinite_talk/modules/multitalk_model.py: InfiniteTalk's own, with its backbone), FlashHead
(flash_head/src/modules/flash_head_model.py), LongCat-Video-Avatar (longcat_video/modules/avatar/
longcat_video_dit_avatar.py), StableAvatar (wan/models/wan_fantasy_transformer3d_1B.py), EchoMimic V3
(src/wan_transformer3d_audio.py and …_2512.py), OmniAvatar (OmniAvatar/models/wan_video_dit.py).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import InputError
from .opened import shown

Shapes = Mapping[str, tuple[int, ...]]
Detector = Callable[[set[str]], bool]

LOAD_DIFFUSION = "Load Diffusion Model or a GGUF loader takes it from models/diffusion_models"
NOT_HERE = "it does not work with InfiniteTalk"
ADAPTER_TENSOR = r"audio_proj\.|blocks\.\d+\.(audio_cross_attn|norm_x)\."


class CheckpointKind(enum.Enum):
    """The checkpoint kinds that can be told apart.

    label: the kind's name in a sentence, with its article; use: which loader takes it, or why none does.
    """

    label: str
    use: str

    INFINITETALK = ("InfiniteTalk weights", "the InfiniteTalk Model Loader takes it from models/model_patches")
    UNI3C = ("a Uni3C ControlNet", "the InfiniteTalk Uni3C Loader takes it from models/controlnet")
    WAV2VEC = (
        "a wav2vec 2.0 audio encoder",
        "the InfiniteTalk Audio Encoder Loader takes it from models/audio_encoders",
    )
    WAV2VEC_FAIRSEQ = ("a wav2vec 2.0 checkpoint in fairseq's own layout", "transformers cannot read it")
    WAVLM = ("a WavLM audio encoder", NOT_HERE)
    HUBERT = ("a HuBERT audio encoder", NOT_HERE)
    DATA2VEC = ("a data2vec audio encoder", NOT_HERE)
    CONFORMER = ("a wav2vec 2.0 conformer", NOT_HERE)
    WHISPER = ("a Whisper audio encoder", NOT_HERE)
    FANTASYTALKING = ("a file of FantasyTalking weights", NOT_HERE)
    STABLEAVATAR = ("a StableAvatar model", NOT_HERE)
    ECHOMIMIC = ("an EchoMimic V3 model", NOT_HERE)
    OMNIAVATAR = ("a file of OmniAvatar weights", NOT_HERE)
    LONGCAT_AVATAR = ("a LongCat-Video-Avatar model, which is no Wan", NOT_HERE)
    FLASHHEAD = ("a SoulX-FlashHead model", NOT_HERE)
    QUANTO = ("a whole model in the optimum-quanto layout", "ComfyUI has no loader for it")
    LORA = ("a LoRA", "LoraLoaderModelOnly takes it from models/loras")
    VAE = ("a VAE", "Load VAE takes it from models/vae")
    TEXT_ENCODER = ("a text encoder", "Load CLIP takes it from models/text_encoders")
    CLIP_VISION = ("a CLIP vision model", "Load CLIP Vision takes it from models/clip_vision")
    WAN_INFINITETALK = (
        "a whole Wan model with InfiniteTalk weights merged in",
        "the InfiniteTalk Model Loader and Load Diffusion Model or a GGUF loader take it, each its part, from "
        "models/diffusion_models",
    )
    WAN_VACE_PART = ("the VACE part of a Wan model, without the model", NOT_HERE)
    WAN_VACE = ("a Wan VACE model", NOT_HERE)
    WAN_FUN_CAMERA = ("a Wan Fun camera model", NOT_HERE)
    WAN_FUN_CONTROL = ("a Wan Fun control model", NOT_HERE)
    WAN_S2V = ("a Wan 2.2 S2V model", NOT_HERE)
    WAN_HUMO = ("a HuMo model", NOT_HERE)
    WAN_ANIMATE = ("a Wan 2.2 Animate model", NOT_HERE)
    WAN_FLF2V = ("a Wan 2.1 first-last-frame model", NOT_HERE)
    WAN_I2V = ("a Wan 2.1 I2V model", LOAD_DIFFUSION)
    WAN_I2V_SMALL = ("a Wan 2.1 I2V model of 1.3B", "InfiniteTalk needs the 14B one")
    WAN_I2V_22 = ("a Wan 2.2 I2V model, high or low noise", NOT_HERE)
    WAN_5B = ("a Wan 2.2 5B model", NOT_HERE)
    WAN_T2V = ("a Wan 2.1 or 2.2 T2V model of 14B", NOT_HERE)
    WAN_T2V_SMALL = ("a Wan 2.1 T2V model of 1.3B", NOT_HERE)
    WAN_OTHER = ("another Wan model", NOT_HERE)
    WAN_INFINITETALK_SHARD = (
        "one of several files that together are a Wan model with InfiniteTalk weights merged in",
        "python client/split_model.py in this pack's folder makes of all of them two files that can be loaded",
    )
    WAN_SHARD = ("a part of a Wan model that is split into several files", "the file in one piece is needed")
    WAN_DIFFUSERS = ("a Wan model in the diffusers layout", "ComfyUI's own layout is needed")
    OTHER_DIFFUSION = ("a diffusion model that is not Wan", NOT_HERE)
    LANGUAGE_MODEL = ("a language model", NOT_HERE)
    UNKNOWN = ("a file of an unknown kind", "")

    def __init__(self, label: str, use: str):
        self.label = label
        self.use = use


@dataclass(frozen=True)
class ExpectedCheckpoint:
    """The kind of file that a loader expects, and an example of one: file name, where to download it, target folder."""

    kind: CheckpointKind
    file: str
    source: str
    folder: str

    @property
    def advice(self) -> str:
        """How to get such a file, as the second half of a sentence."""
        return f"get {self.kind.label}, for example {self.file} from {self.source}, into {self.folder}"


WANT_INFINITETALK = ExpectedCheckpoint(
    CheckpointKind.INFINITETALK,
    "wan2.1_infiniteTalk_single_fp16.safetensors",
    "huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged",
    "models/model_patches",
)
WANT_BASE = ExpectedCheckpoint(
    CheckpointKind.WAN_I2V,
    "wan2.1_i2v_480p_14B_fp8_scaled.safetensors",
    "huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged",
    "models/diffusion_models",
)
WANT_UNI3C = ExpectedCheckpoint(
    CheckpointKind.UNI3C,
    "Wan21_Uni3C_controlnet_fp16.safetensors",
    "huggingface.co/Kijai/WanVideo_comfy",
    "models/controlnet",
)
WANT_WAV2VEC = ExpectedCheckpoint(
    CheckpointKind.WAV2VEC,
    "wav2vec2-chinese-base_fp16.safetensors",
    "huggingface.co/Kijai/wav2vec2_safetensors",
    "models/audio_encoders",
)


def check_kind(name: str, shapes: Shapes, wanted: ExpectedCheckpoint) -> None:
    """Raise InputError unless the file `name`, with tensors of these names (without prefix), is of the wanted kind."""
    kind = kind_of(shapes)
    if kind is wanted.kind:
        return
    if kind is CheckpointKind.UNKNOWN:
        use = (
            f" (it holds {', '.join(shown(name) for name in sorted(shapes)[:3])} …)"
            if shapes
            else " (it holds no tensors)"
        )
    else:
        use = f" ({kind.use})"
    raise InputError(f"{name} is {kind.label}{use}, not {wanted.kind.label}; {wanted.advice}")


def kind_of(shapes: Shapes) -> CheckpointKind:
    """Return the kind of a file from the names (without their common prefix) and shapes of its tensors."""
    names = set(shapes)
    for kind, matches in DETECTORS:
        if matches(names):
            return kind
    if "head.modulation" in names and "patch_embedding.weight" in names:
        dim, channels = [*shapes["patch_embedding.weight"], 0, 0][:2]
        return kind_of_wan(
            dim,
            channels,
            has_image_embedding="img_emb.proj.0.bias" in names,
            first_last_frame="img_emb.emb_pos" in names,
        )
    for kind, matches in WEAK_DETECTORS:
        if matches(names):
            return kind
    return CheckpointKind.UNKNOWN


def kind_of_wan(dim: int, channels: int, has_image_embedding: bool, first_last_frame: bool) -> CheckpointKind:
    """Return the kind of a plain Wan model.

    dim: width; channels: input channels; has_image_embedding: whether it has layers for CLIP image tokens (I2V of 2.1);
    first_last_frame: whether it takes two CLIP images.
    """
    small = dim == 1536
    if first_last_frame:
        return CheckpointKind.WAN_FLF2V
    if channels == 36:
        return (
            (CheckpointKind.WAN_I2V_SMALL if small else CheckpointKind.WAN_I2V)
            if has_image_embedding
            else CheckpointKind.WAN_I2V_22
        )
    if channels == 16:
        return CheckpointKind.WAN_T2V_SMALL if small else CheckpointKind.WAN_T2V
    if channels == 48:
        return CheckpointKind.WAN_5B if dim == 3072 else CheckpointKind.WAN_FUN_CONTROL
    return CheckpointKind.WAN_OTHER


def _has(*parts: str) -> Detector:
    """Match if one tensor name contains all `parts`."""
    return lambda names: any(all(p in n for p in parts) for n in names)


def _named(*wanted: str) -> Detector:
    """Match if all `wanted` names are present."""
    return lambda names: names.issuperset(wanted)


def _ends(*ends: str) -> Detector:
    """Match if one tensor name ends with one of `ends`."""
    return lambda names: any(n.endswith(ends) for n in names)


def is_adapter_tensor(name: str) -> bool:
    """Return whether a tensor of a merged file, or a scale or note beside one, belongs to its InfiniteTalk weights."""
    return re.match(ADAPTER_TENSOR, name) is not None


def _is_infinitetalk_shard(names: set[str]) -> bool:
    """Match a part of a merged file that is split by size: layers of InfiniteTalk beside the backbone's."""
    backbone = any(n.startswith(("head.", "img_emb.")) or ".self_attn." in n for n in names)
    return backbone and any(".audio_cross_attn.q_linear." in n or n.startswith("audio_proj.proj1_vf.") for n in names)


_is_infinitetalk = _named("audio_proj.proj1_vf.weight", "blocks.0.audio_cross_attn.q_linear.weight")
_is_wan = _named("head.modulation", "patch_embedding.weight")
_LORA_ENDS = (
    *(".lora_down.weight", ".lora_up.weight", ".lora_A.weight", ".lora_A.default.weight", ".lora_A"),
    *(".hada_w1_a", ".lokr_w1", ".lokr_w1_a"),
)

# The first match decides.
DETECTORS: tuple[tuple[CheckpointKind, Detector], ...] = (
    (CheckpointKind.QUANTO, _ends(".weight._data")),
    (CheckpointKind.OMNIAVATAR, _has("audio_cond_projs.")),
    (CheckpointKind.LORA, _ends(*_LORA_ENDS)),
    (CheckpointKind.LORA, lambda n: bool(n) and all(k.endswith((".diff", ".diff_b", ".alpha")) for k in n)),
    (CheckpointKind.UNI3C, _has("controlnet_patch_embedding")),
    (CheckpointKind.LONGCAT_AVATAR, _has(".audio_adaLN_modulation.")),
    (CheckpointKind.WAN_INFINITETALK, lambda n: _is_infinitetalk(n) and _is_wan(n)),
    (CheckpointKind.INFINITETALK, _is_infinitetalk),
    (CheckpointKind.FANTASYTALKING, _named("proj_model.proj.weight")),
    (CheckpointKind.STABLEAVATAR, lambda n: _has("vocal_projector.")(n) or _has("cross_attn.k_vocal.")(n)),
    (CheckpointKind.ECHOMIMIC, lambda n: _has("audio2token.")(n) or _has("audio_injection.proj1")(n)),
    (CheckpointKind.FLASHHEAD, lambda n: _has("audio_proj.proj1_vf.")(n) and _has("audio_emb.proj.")(n)),
    (CheckpointKind.WAN_VACE, lambda n: _is_wan(n) and "vace_blocks.0.after_proj.weight" in n),
    (CheckpointKind.WAN_VACE_PART, _named("vace_blocks.0.after_proj.weight")),
    (CheckpointKind.WAN_FUN_CAMERA, lambda n: _is_wan(n) and "control_adapter.conv.weight" in n),
    (CheckpointKind.WAN_S2V, lambda n: _is_wan(n) and _has("casual_audio_encoder.")(n)),
    (CheckpointKind.WAN_HUMO, lambda n: _is_wan(n) and _has("audio_proj.audio_proj_glob_1.")(n)),
    (CheckpointKind.WAN_ANIMATE, lambda n: _is_wan(n) and _has("face_adapter.fuser_blocks.")(n)),
    (CheckpointKind.WAN_FUN_CONTROL, lambda n: _is_wan(n) and "ref_conv.weight" in n),
    (CheckpointKind.WAVLM, _has("gru_rel_pos_linear")),
    (CheckpointKind.HUBERT, lambda n: any(k.startswith("hubert.") for k in n)),
    (CheckpointKind.DATA2VEC, _has("pos_conv_embed.layers.")),
    (CheckpointKind.CONFORMER, _has("self_attn.linear_q.")),
    (CheckpointKind.WAV2VEC_FAIRSEQ, _has("feature_extractor.conv_layers.0.0.weight")),
    (CheckpointKind.WAV2VEC, _has("feature_extractor.conv_layers.")),
    (
        CheckpointKind.WHISPER,
        lambda n: _has("encoder.embed_positions")(n) or _named("encoder.conv1.weight", "encoder.conv2.weight")(n),
    ),
    (CheckpointKind.CLIP_VISION, lambda n: _has("vision_model.embeddings")(n) or _has("visual.patch_embedding")(n)),
    (CheckpointKind.CLIP_VISION, _named("visual.conv1.weight")),
    (CheckpointKind.TEXT_ENCODER, _has("SelfAttention.relative_attention_bias")),
    (CheckpointKind.TEXT_ENCODER, _has("pos_embedding.embedding.weight")),
    (CheckpointKind.TEXT_ENCODER, _has("text_model.encoder.layers")),
    (CheckpointKind.TEXT_ENCODER, _has("enc.blk.0.attn_q.weight")),
    (CheckpointKind.VAE, _has("decoder.middle.0.residual.0.gamma")),
    (CheckpointKind.VAE, lambda n: _has("decoder.conv_in.")(n) and _has("decoder.mid")(n)),
    (CheckpointKind.VAE, _has("decoder.conv_in.weight")),
)
# Kinds whose tensors the kinds above may contain too: tried only when none of those matches.
WEAK_DETECTORS: tuple[tuple[CheckpointKind, Detector], ...] = (
    (CheckpointKind.WAN_DIFFUSERS, _has("condition_embedder.time_embedder")),
    (CheckpointKind.WAN_INFINITETALK_SHARD, _is_infinitetalk_shard),
    (CheckpointKind.WAN_SHARD, lambda n: "head.modulation" in n or "patch_embedding.weight" in n),
    (CheckpointKind.WAN_SHARD, lambda n: _has("self_attn.norm_q.")(n) and _has("cross_attn.norm_k")(n)),
    (CheckpointKind.OTHER_DIFFUSION, _has("double_blocks.0.")),
    (CheckpointKind.OTHER_DIFFUSION, _has("transformer_blocks.0.")),
    (CheckpointKind.OTHER_DIFFUSION, _has("input_blocks.0.0.weight")),
    (CheckpointKind.LANGUAGE_MODEL, lambda n: _has("token_embd.weight")(n) or _has("embed_tokens.weight")(n)),
)

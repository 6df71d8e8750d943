"""A wrong file is recognised from its tensors and refused in one sentence, before its weights are read."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from infinitetalk_core.checkpoints.files import read_header
from infinitetalk_core.checkpoints.infinitetalk import load_infinitetalk, read_infinitetalk_header
from infinitetalk_core.checkpoints.kinds import Kind, kind_of
from infinitetalk_core.errors import InputError
from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter

CONFIG = AdapterConfig(dim=32, heads=2, blocks=2, audio_width=24, hidden=8, tokens=4, token_dim=16)


def wan(channels: int, *more: str) -> dict[str, tuple[int, ...]]:
    return {
        "head.modulation": (1, 2, 8),
        "patch_embedding.weight": (8, channels, 1, 2, 2),
        "blocks.0.self_attn.q.weight": (8, 8),
    } | dict.fromkeys(more, (1,))


NEAR_MISSES = {
    Kind.WAN_I2V: wan(36, "img_emb.proj.0.bias"),
    Kind.WAN_I2V_22: wan(36),
    Kind.WAN_FLF2V: wan(36, "img_emb.proj.0.bias", "img_emb.emb_pos"),
    Kind.WAN_T2V: wan(16),
    Kind.WAN_5B: wan(48),
    Kind.WAN_OTHER: wan(32),
    Kind.WAN_VACE: wan(16, "vace_blocks.0.after_proj.weight"),
    Kind.WAN_S2V: wan(16, "casual_audio_encoder.weights"),
    Kind.WAN_INFINITETALK: wan(36, "audio_proj.proj1_vf.weight", "blocks.0.audio_cross_attn.q_linear.weight"),
    Kind.LORA: {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": (4, 8)},
    Kind.UNI3C: {"controlnet_patch_embedding.weight": (8, 36, 1, 2, 2)},
    Kind.QUANTO: {"blocks.0.audio_cross_attn.q_linear.weight._data": (8, 8)},
    Kind.WAV2VEC: {"wav2vec2.feature_extractor.conv_layers.0.conv.weight": (8, 1, 10)},
    Kind.WHISPER: {"encoder.conv1.weight": (8, 80, 3)},
    Kind.VAE: {"decoder.middle.0.residual.0.gamma": (8, 1, 1, 1)},
    Kind.TEXT_ENCODER: {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, 64)},
    Kind.CLIP_VISION: {"vision_model.embeddings.class_embedding": (8,)},
    Kind.UNKNOWN: {"something": (1,)},
}


@pytest.mark.parametrize("kind", NEAR_MISSES, ids=lambda k: k.name)
def test_near_misses_are_named(kind, tmp_path):
    assert kind_of(NEAR_MISSES[kind]) is kind
    path = tmp_path / "infinitetalk_really.safetensors"
    save_file({k: torch.zeros(s) for k, s in NEAR_MISSES[kind].items()}, path)
    with pytest.raises(InputError, match=r"is .*not InfiniteTalk weights; get InfiniteTalk weights") as refused:
        read_infinitetalk_header(path)
    assert kind.value in str(refused.value)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "model."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_load_from_every_plain_layout(prefix, dtype, tmp_path):
    torch.manual_seed(0)
    adapter = AudioAdapter(CONFIG)
    path = tmp_path / "weights.safetensors"
    save_file({prefix + k: v.to(dtype) for k, v in adapter.state_dict().items()}, path)
    header = read_infinitetalk_header(path)
    assert AdapterConfig.from_shapes(header.shapes, heads=2) == CONFIG
    loaded = load_infinitetalk(path, header)
    for name, tensor in adapter.state_dict().items():
        torch.testing.assert_close(loaded[name].float(), tensor.to(dtype).float(), atol=0, rtol=0)


def test_fp8_with_scales_is_refused_until_it_can_be_read(tmp_path):
    weights = {k: v.to(torch.float8_e4m3fn) for k, v in AudioAdapter(CONFIG).state_dict().items()}
    path = tmp_path / "scaled.safetensors"
    save_file(weights | {"scaled_fp8": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="fp8 with scales"):
        read_infinitetalk_header(path)


def write(path, data: bytes):
    path.write_bytes(data)
    return path


def test_files_that_are_no_safetensors(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file({"a": torch.zeros(100)}, whole)
    data = whole.read_bytes()
    cases = {
        "there is no file": tmp_path / "missing.safetensors",
        "incomplete": write(tmp_path / "cut.safetensors", data[:-10]),
        "not a complete safetensors": write(tmp_path / "tiny.safetensors", data[:20]),
        "GGUF": write(tmp_path / "x.gguf", b"GGUF" + bytes(100)),
        "pickle, which can run code": write(tmp_path / "x.pt", pickle.dumps({"a": 1})),
        "header cannot be read": write(tmp_path / "y.safetensors", struct.pack("<Q", 8) + b"notjson!" + bytes(8)),
    }
    for words, path in cases.items():
        with pytest.raises(InputError, match=words):
            read_header(path)
    with pytest.raises(InputError, match="not a complete safetensors"):
        read_header(write(tmp_path / "empty.safetensors", b""))


def test_a_wrong_file_is_refused_without_reading_it(tmp_path):
    """A sparse file of 100 GB: only its header can have been read."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [25_000_000_000], "data_offsets": [0, 100_000_000_000]}})
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header.encode())
        file.truncate(8 + len(header) + 100_000_000_000)
    with pytest.raises(InputError, match="unknown kind"):
        read_infinitetalk_header(path)


def test_features_of_another_encoder_are_refused():
    CONFIG.check_features(2, 12)
    with pytest.raises(InputError, match=r"24 layers of 1024.* take 24 values"):
        CONFIG.check_features(24, 1024)

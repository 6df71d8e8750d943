"""A wrong file is recognized from its tensors and refused in one sentence, before its weights are read."""

from __future__ import annotations

import json
import pickle
import struct
import time
from math import prod

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import save_file

from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.checkpoints.header import read_header
from infinitetalk_core.checkpoints.kinds import CheckpointKind, kind_of
from infinitetalk_core.checkpoints.loaders import open_infinitetalk, open_uni3c
from infinitetalk_core.errors import InputError
from infinitetalk_core.model.audio_adapter import AdapterConfig
from tools.near_misses import NEAR_MISSES, wan

CONFIG = AdapterConfig(dim=32, heads=2, blocks=2, audio_width=24, hidden=8, tokens=4, token_dim=16)
LOADERS = {
    CheckpointKind.INFINITETALK: (open_infinitetalk, "models/model_patches"),
    CheckpointKind.UNI3C: (open_uni3c, "models/controlnet"),
    CheckpointKind.WAV2VEC: (load_speech_encoder, "models/audio_encoders"),
}


def sparse(path, shapes):
    """A safetensors file that says it has these tensors in float16, its data a hole in the disk."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return path


@pytest.mark.parametrize("what", NEAR_MISSES)
def test_every_loader_says_what_the_file_is_and_what_to_get_where(what, tmp_path):
    kind, shapes = NEAR_MISSES[what]
    assert kind_of(shapes) is kind
    path = tmp_path / "infinitetalk_really.safetensors"
    save_file({k: torch.zeros(4) for k in shapes} | {k: torch.zeros(s) for k, s in shapes.items() if len(s) < 5}, path)
    if any(len(s) == 5 for s in shapes.values()):
        save_file({k: torch.zeros(s, dtype=torch.uint8) for k, s in shapes.items()}, path)
    for wanted, (load, folder) in LOADERS.items():
        # What merges Wan and InfiniteTalk is no wrong file there: test_merged_files.py.
        if kind is wanted or (kind, wanted) == (CheckpointKind.WAN_INFINITETALK, CheckpointKind.INFINITETALK):
            continue
        with pytest.raises(InputError) as refused:
            load(path)
        said = str(refused.value)
        for part in (f"{path.name} is {kind.label}", f"not {wanted.label}; get", "huggingface.co/", folder):
            assert part in said
        assert said.count(". ") == 0, "one sentence"


def test_no_two_kinds_have_the_same_words():
    assert len({kind.label for kind in CheckpointKind}) == len(CheckpointKind)


@pytest.mark.parametrize("wanted", LOADERS)
def test_28_gb_of_something_else_are_refused_within_a_second(wanted, tmp_path):
    blocks = {f"blocks.{i}.ffn.0.weight": (14_000_000,) for i in range(1000)}
    path = sparse(tmp_path / "large.safetensors", wan(16) | blocks)
    assert path.stat().st_size > 28e9
    begin = time.process_time()
    with pytest.raises(InputError, match="T2V model of 14B"):
        LOADERS[wanted][0](path)
    assert time.process_time() - begin < 1


def test_a_large_gguf_of_something_else_is_refused_within_a_second(tmp_path):
    """A text encoder with its whole vocabulary in the header, and 5 GB of tensors behind it."""
    path = tmp_path / "umt5.gguf"
    writer = GGUFWriter(path, "t5encoder")
    writer.add_token_list([f"word{i}" for i in range(256_384)])
    writer.add_token_scores([0.5] * 256_384)
    writer.add_tensor_info("enc.blk.0.attn_q.weight", (50_000, 50_000), np.dtype(np.float16), 5_000_000_000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 64 + 5_000_000_000)
    for load, _ in LOADERS.values():
        begin = time.process_time()
        with pytest.raises(InputError, match="is a text encoder"):
            load(path)
        assert time.process_time() - begin < 1


def test_a_gguf_of_a_whole_wan_is_refused_by_what_it_is(tmp_path):
    path = tmp_path / "wan2.1-i2v-14b-Q4_K_M.gguf"
    writer = GGUFWriter(path, "wan")
    for name, shape in wan(36, "img_emb.proj.0.bias", dim=64).items():
        value = np.zeros(shape, np.float32)
        if value.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(shape))
            value = value.reshape(shape[0], -1)
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"is a Wan 2.1 I2V model \(Load Diffusion Model or a GGUF loader"):
        open_infinitetalk(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is incomplete: it has"):
        open_infinitetalk(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="GGUF file whose header is cut off"):
        open_infinitetalk(path)


def write(path, data: bytes):
    path.write_bytes(data)
    return path


def test_files_that_are_no_safetensors(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file({"a": torch.zeros(100)}, whole)
    data = whole.read_bytes()
    broken = b'{"a": {"dtype": "F32"}}'
    cases = {
        "there is no file": tmp_path / "missing.safetensors",
        "incomplete": write(tmp_path / "cut.safetensors", data[:-10]),
        "not a complete safetensors": write(tmp_path / "tiny.safetensors", data[:20]),
        "GGUF file of version 0": write(tmp_path / "x.gguf", b"GGUF" + bytes(100)),
        "pickle, which can run code": write(tmp_path / "x.pt", pickle.dumps({"a": 1})),
        "only a Git LFS pointer": write(tmp_path / "l.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "is a web page": write(tmp_path / "w.safetensors", b"<!DOCTYPE html><html>Sign in</html>"),
        "header cannot be read": write(tmp_path / "y.safetensors", struct.pack("<Q", 8) + b"{otjson!" + bytes(8)),
        "its header cannot": write(tmp_path / "z.safetensors", struct.pack("<Q", len(broken)) + broken + bytes(8)),
    }
    for label, path in cases.items():
        with pytest.raises(InputError, match=label):
            read_header(path)
    with pytest.raises(InputError, match=r"is empty \(0 bytes\): the download failed; download it again"):
        read_header(write(tmp_path / "empty.safetensors", b""))


def test_features_of_another_encoder_are_refused():
    CONFIG.check_features(2, 12)
    with pytest.raises(InputError, match=r"24 layers of 1024.* take 24 values"):
        CONFIG.check_features(24, 1024)

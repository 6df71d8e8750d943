"""Crafted weights files through what the nodes call: one sentence, whatever the file, and nothing left in the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def shared(pack):
    return import_module(f"{pack.__name__}.nodes.host.model.shared_models").SharedModels(10**9)


@pytest.fixture(scope="module")
def base(files):
    return comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})


@pytest.fixture
def load(core, models_dir, shared, base) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """A right file of each kind, and what its node calls."""
    audio = import_module(f"{core.adapter.__package__.removesuffix('.model')}.media.audio")
    return {
        "infinitetalk": (
            models_dir / "model_patches" / "tiny_infinitetalk_single.safetensors",
            lambda path: core.adapter.patch_model(base, path, 1.0, models=shared),
        ),
        "uni3c": (
            models_dir / "controlnet" / "tiny_uni3c.safetensors",
            lambda path: core.uni3c.load_uni3c_patcher(path, shared),
        ),
        "encoder": (
            models_dir / "audio_encoders" / "tiny_wav2vec2.safetensors",
            lambda path: audio.load_audio_encoder(path, shared),
        ),
    }


def nested(right: Path, path: Path) -> None:
    header = b'{"a":' + b"[" * 100_000
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def many(right: Path, path: Path) -> None:
    header = (
        b"{" + b",".join(b'"%d":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}' % i for i in range(200_000)) + b"}"
    )
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def with_nan(right: Path, path: Path) -> None:
    tensors = load_file(right)
    name = next(name for name, value in tensors.items() if value.ndim == 2)
    tensors[name].view(-1)[3] = float("nan")
    save_file(tensors, path)


def another_shape(right: Path, path: Path) -> None:
    tensors = load_file(right)
    name = next(name for name, value in sorted(tensors.items()) if value.ndim == 2)
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, path)


def too_many(right: Path, path: Path) -> None:
    prefix = "wav2vec2.encoder.layers" if "wav2vec" in right.name else "blocks"
    prefix = "controlnet_blocks" if "uni3c" in right.name else prefix
    save_file(load_file(right) | {f"{prefix}.1000000000.a": torch.zeros(1)}, path)


CRAFTED: dict[str, Callable[[Path, Path], Any]] = {
    "cut off": lambda right, path: path.write_bytes(right.read_bytes()[:-100]),
    "a page": lambda right, path: path.write_bytes(b"<!DOCTYPE html><html>Sign in</html>"),
    "a length of 2^63": lambda right, path: path.write_bytes((1 << 63).to_bytes(8, "little") + right.read_bytes()[8:]),
    "GGUF of many tensors": lambda right, path: path.write_bytes(b"GGUF\x03\0\0\0" + bytes([255]) * 16),
    "a folder": lambda right, path: path.mkdir(),
    "a pipe": lambda right, path: os.mkfifo(path),
    "a link to itself": lambda right, path: path.symlink_to(path),
    "missing": lambda right, path: None,
    "nested": nested,
    "many tensors": many,
    "not a number": with_nan,
    "another shape": another_shape,
    "a block too far": too_many,
}


@pytest.mark.parametrize("kind", ["infinitetalk", "uni3c", "encoder"])
@pytest.mark.parametrize("what", CRAFTED)
def test_a_crafted_file_is_answered_in_one_sentence(core, load, shared, what, kind, tmp_path):
    right, loader = load[kind]
    path = tmp_path / "crafted.safetensors"
    CRAFTED[what](right, path)
    with pytest.raises((ValueError, RuntimeError)) as refused:
        loader(path)
    said = str(refused.value)
    assert type(refused.value).__name__ in ("InputError", "RunError"), said
    assert said.isprintable() and ". " not in said and len(said) < 600
    assert "crafted.safetensors" in said or what == "a folder"
    assert shared.cache.contents().entries == ()

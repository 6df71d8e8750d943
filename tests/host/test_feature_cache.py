"""A long voice is heard once by this encoder, on this machine: anything that changes what is heard is another one."""

from __future__ import annotations

import shutil
from importlib import import_module
from types import SimpleNamespace

import folder_paths
import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def ear(pack, models_dir, tmp_path, monkeypatch):
    """The host's encoder, with `heard` = how often it computed."""
    audio = import_module(f"{pack.__name__}.nodes.host.media.audio")
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    encoder = audio.load_audio_encoder(models_dir / "audio_encoders" / "tiny_wav2vec2.safetensors")
    network = encoder.patcher.model
    plain, found = network.encode, SimpleNamespace(encoder=encoder, heard=0, audio=audio, folder=tmp_path)

    def encode(*args, **kwargs):
        found.heard += 1
        return plain(*args, **kwargs)

    monkeypatch.setattr(network, "encode", encode)
    return found


def sound(pack, seconds: float):
    module = import_module(f"{pack.__name__}.infinitetalk_core.audio.sound")
    return module.Sound(torch.randn(1, int(16000 * seconds), generator=torch.Generator().manual_seed(1)) * 0.1, 16000)


def test_a_long_voice_is_heard_once(ear, pack):
    voice = sound(pack, 61)
    first = ear.encoder.encode(voice)
    again = ear.encoder.encode(voice)
    rows = torch.arange(len(first.features))
    assert ear.heard == 1 and torch.equal(first.features[rows], again.features[rows]) and first.key == again.key
    voice.waveform[0, 500_000] += 0.01
    ear.encoder.encode(voice)
    assert ear.heard == 2, "a sample is another voice"
    ear.encoder.patcher.model.double()
    ear.encoder.encode(voice)
    assert ear.heard == 3, "and other arithmetic gives other features"
    ear.encoder.patcher.model.float()
    assert len(list((ear.folder / "infinitetalk_runs" / "voices").iterdir())) == 3


def test_a_short_voice_leaves_nothing(ear, pack):
    ear.encoder.encode(sound(pack, 2))
    assert not list(ear.folder.iterdir())


def test_what_was_encoded_is_known_by_its_key(ear, pack, models_dir, tmp_path):
    """Whatever the encoder's file is called, and however long ago it was read."""
    voice, short = sound(pack, 2), sound(pack, 1)
    key = ear.encoder.encode(voice).key
    copy = tmp_path / "copy.safetensors"
    shutil.copyfile(models_dir / "audio_encoders" / "tiny_wav2vec2.safetensors", copy)
    assert ear.audio.load_audio_encoder(copy).encode(voice).key == key
    weights = load_file(copy)
    name = next(name for name in weights if name.endswith("attention.q_proj.weight"))
    weights[name].view(-1)[7] *= 1.01
    save_file(weights, copy)
    others = [ear.encoder.encode(short).key, ear.audio.load_audio_encoder(copy).encode(voice).key]
    ear.encoder.patcher.model.double()
    others.append(ear.encoder.encode(voice).key)
    ear.encoder.patcher.model.float()
    assert len({key, *others}) == 4, "another voice, other weights, other arithmetic"


def test_both_speakers_have_a_key(ear, pack):
    speech = import_module(f"{pack.__name__}.infinitetalk_core.speech")
    sounds = [sound(pack, 1), sound(pack, 2)]
    found = speech.encode_speakers(ear.encoder.encode, sounds, speech.Timing.TOGETHER)
    again = speech.encode_speakers(ear.encoder.encode, sounds[::-1], speech.Timing.TOGETHER)
    assert len(set(found.voice_keys)) == 2 and again.voice_keys == found.voice_keys[::-1]

"""Speech features equal the reference's, step by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.audio.loudness import normalize_loudness
from infinitetalk_core.audio.sound import Sound, lay_out, mix, pad_to
from infinitetalk_core.audio.voice import SAMPLE_RATE_HZ
from infinitetalk_core.audio.wav2vec import (
    SpeechEncoder,
    convolution_statistics,
    convolve,
    frames_of,
    standardize,
)


@pytest.fixture
def case(golden):
    return golden("wav2vec")


@pytest.fixture
def encoders(case, tmp_path: Path) -> dict[str, SpeechEncoder]:
    """The reference's encoder from a Hugging Face folder, with and without do_normalize."""
    save_file(case.under("weights"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(case.config["hf_config"]))
    found = {}
    for mode in ("norm", "raw"):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": mode == "norm"}))
        found[mode] = load_speech_encoder(tmp_path)
    return found


def test_loudness_is_the_references(case, assert_close):
    outputs = [name for name in case.tensors if name.endswith("/loudness_normed")]
    assert outputs
    for name in outputs:
        number = name.split("/")[1]
        got = normalize_loudness(case[f"inputs/{number}/wave"].numpy(), SAMPLE_RATE_HZ)
        assert_close(torch.from_numpy(got), case[name], case.tolerance(), name)


@pytest.mark.parametrize("mode", ["norm", "raw"])
def test_features_are_the_references_at_every_step(case, encoders, assert_close, mode):
    encoder, limit = encoders[mode], case.tolerance()
    assert encoder.normalize_input == (mode == "norm")
    for entry in case.config["cases"]:
        number = entry["id"]
        wave = case[f"inputs/{number}/wave"]
        want = {
            key.rsplit("/", 1)[1]: value
            for key, value in case.tensors.items()
            if key.startswith(f"outputs/{number}/{mode}/")
        }
        assert frames_of(len(wave)) == entry["video_length"]
        samples = normalize_loudness(wave.numpy(), SAMPLE_RATE_HZ)
        if mode == "norm":
            samples = standardize(samples)
        if "input_values" in want:
            assert_close(torch.from_numpy(samples), want["input_values"], limit, "standardized samples")

        extractor = encoder.network.feature_extractor
        mean, variance = convolution_statistics(samples, extractor.conv_layers[0].conv)
        with torch.inference_mode():
            found = convolve(extractor, torch.from_numpy(samples)[None, None], (mean.float(), variance.float()))
        assert_close(found.transpose(1, 2), want["conv_features"], limit, "convolution features")

        wanted = want["interp_features"][0]
        with torch.inference_mode():
            hidden = torch.cat(list(encoder._convolve(samples, len(wanted), torch.device("cpu"))))
        assert_close(hidden, wanted, limit, "features at 25 a second")

        got = encoder.encode(Sound(wave[None], SAMPLE_RATE_HZ))
        assert_close(got, want["embedding"], limit, "speech features")


def test_two_tracks_in_turn_are_laid_out_as_in_the_reference(case):
    prepared = case.config["audio_prepare_multi"]
    a, b = (Sound(torch.tensor([prepared["inputs"][name]]), SAMPLE_RATE_HZ) for name in "ab")
    starts, length = lay_out([a, b], in_turn=True)
    got = [pad_to(a, starts[0], length), pad_to(b, starts[1], length), mix([a, b], in_turn=True)]
    assert [sound.waveform[0].tolist() for sound in got] == prepared["results"]["add:a,b"]

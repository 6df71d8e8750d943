"""Every layout in which people have a wav2vec 2.0 file loads; everything else is refused with what it is."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from infinitetalk_core.audio.encoder_files import load_speech_encoder, wav2vec2
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.errors import InputError, RunError
from tests.support.speech import HUGGING_FACE_STYLES, file_tensors, tiny_wav2vec

CONFIG = {"model_type": "wav2vec2", "num_attention_heads": 1, "conv_stride": [5, 2, 2, 2, 2, 2, 2]}


def voice() -> Sound:
    return Sound(0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)), 16000)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        load_speech_encoder(path)
    said = str(refused.value)
    assert "\n" not in said
    assert str(path.name) in said
    return said


def assert_same(path: Path, encoder, limit: float = 1e-5) -> None:
    got, want = load_speech_encoder(path).encode(voice()), encoder.encode(voice())
    assert (got - want).norm() <= limit * want.norm()


@pytest.mark.parametrize("style", HUGGING_FACE_STYLES)
@pytest.mark.parametrize("prefix", ["", "wav2vec2."])
@pytest.mark.parametrize("ending", ["safetensors", "bin", "pt"])
def test_a_single_file_loads_in_every_layout(tmp_path, style, prefix, ending):
    encoder = tiny_wav2vec()
    tensors = file_tensors(encoder, style=style, prefix=prefix)
    path = tmp_path / f"speech.{ending}"
    if ending == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    assert_same(path, encoder)


@pytest.mark.parametrize("old_zip_format", [False, True])
def test_a_pickle_of_the_old_kind_and_one_in_a_wrapper_load(tmp_path, old_zip_format):
    encoder = tiny_wav2vec()
    path = tmp_path / "pytorch_model.bin"
    torch.save(
        {"state_dict": file_tensors(encoder), "epoch": 3},
        path,
        _use_new_zipfile_serialization=not old_zip_format,
    )
    assert_same(path, encoder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "chinese_base_fp16.safetensors"])
@pytest.mark.parametrize("normalize_input", [False, True])
def test_a_folder_of_hugging_face_loads_with_its_settings(tmp_path, name, normalize_input):
    encoder = tiny_wav2vec(normalize_input=normalize_input)
    save = save_file if name.endswith("safetensors") else torch.save
    save(file_tensors(encoder), tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalize_input}))
    assert load_speech_encoder(tmp_path).normalize_input is normalize_input
    assert_same(tmp_path, encoder)


def test_the_weights_of_a_folder_may_be_chosen_directly(tmp_path):
    save_file(file_tensors(tiny_wav2vec()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "num_attention_heads": 4}))
    encoder = load_speech_encoder(tmp_path / "model.safetensors")
    assert encoder.network.config.num_attention_heads == 4


def test_a_file_with_a_name_of_its_own_does_not_take_its_neighbors_settings(tmp_path):
    encoder = tiny_wav2vec()
    save_file(file_tensors(encoder), tmp_path / "speech.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_attention_heads": 7}))
    assert_same(tmp_path / "speech.safetensors", encoder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_computed_in_float32(tmp_path, dtype):
    encoder = tiny_wav2vec()
    path = tmp_path / "speech.safetensors"
    save_file({name: value.to(dtype) for name, value in file_tensors(encoder).items()}, path)
    assert {value.dtype for value in load_speech_encoder(path).parameters()} == {torch.float32}
    assert_same(path, encoder, limit=0.05)


@pytest.mark.parametrize(("layers", "hidden"), [(1, 16), (3, 64), (2, 128), (4, 192)])
@pytest.mark.parametrize("by_layer", [False, True])
def test_sizes_come_from_the_tensors(tmp_path, layers, hidden, by_layer):
    encoder = tiny_wav2vec(layers=layers, hidden=hidden, by_layer=by_layer, normalize_input=by_layer)
    path = tmp_path / "speech.safetensors"
    save_file(file_tensors(encoder), path)
    loaded = load_speech_encoder(path)
    assert (loaded.layers, loaded.channels) == (layers, hidden)
    assert loaded.network.config.to_dict() == encoder.network.config.to_dict()
    assert loaded.normalize_input is by_layer
    assert_same(path, encoder)


@pytest.mark.parametrize("by_layer", [False, True])
def test_a_network_is_loaded_without_a_word_and_ready_to_run(tmp_path, by_layer, capfd, recwarn, caplog):
    path = tmp_path / "speech.safetensors"
    save_file(file_tensors(tiny_wav2vec(by_layer=by_layer)), path)
    recwarn.clear()
    capfd.readouterr()
    caplog.clear()
    loaded = load_speech_encoder(path)
    loaded.encode(voice())
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert not caplog.records
    assert not any(module.training for module in loaded.modules())
    assert not any(value.requires_grad for value in loaded.parameters())
    assert {value.device.type for value in loaded.state_dict().values()} == {"cpu"}
    assert loaded.network.config._attn_implementation == "sdpa"  # eager attention holds an (F, F) matrix


def test_what_a_training_file_holds_besides_is_ignored(tmp_path):
    encoder = tiny_wav2vec()
    extra = {
        "wav2vec2.masked_spec_embed": torch.ones(32),
        "quantizer.codevectors": torch.ones(1, 4, 8),
        "project_q.weight": torch.ones(4, 4),
        "lm_head.weight": torch.ones(8, 32),
    }
    path = tmp_path / "speech.safetensors"
    save_file(file_tensors(encoder, prefix="wav2vec2.") | extra, path)
    assert_same(path, encoder)


def test_the_file_may_be_deleted_while_the_encoder_lives(tmp_path):
    encoder = tiny_wav2vec()
    path = tmp_path / "speech.safetensors"
    save_file(file_tensors(encoder), path)
    loaded = load_speech_encoder(path)
    path.write_bytes(b"")
    assert torch.equal(loaded.encode(voice()), load_and_encode_again(encoder, tmp_path / "again.safetensors"))


def load_and_encode_again(encoder, path: Path) -> torch.Tensor:
    save_file(file_tensors(encoder), path)
    return load_speech_encoder(path).encode(voice())


@pytest.mark.parametrize(
    "missing",
    [
        "encoder.layers.1.attention.k_proj.weight",
        "feature_projection.projection.bias",
        "encoder.pos_conv_embed.conv.weight_g",
        "feature_extractor.conv_layers.3.conv.weight",
    ],
)
def test_a_missing_tensor_is_named(tmp_path, missing):
    tensors = file_tensors(tiny_wav2vec())
    del tensors[missing]
    path = tmp_path / "speech.safetensors"
    save_file(tensors, path)
    assert missing in refusal(path)


def test_a_tensor_of_the_wrong_shape_is_named(tmp_path):
    tensors = file_tensors(tiny_wav2vec())
    tensors["encoder.layers.1.attention.k_proj.weight"] = torch.zeros(3, 3)
    path = tmp_path / "speech.safetensors"
    save_file(tensors, path)
    said = refusal(path)
    assert "k_proj.weight" in said
    assert "(3, 3)" in said


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("diffusion_model.blocks.0.self_attn.q.lora_down.weight", "a LoRA"),
        ("head.modulation", "a part of a Wan model"),
        ("model.encoder.embed_positions.weight", "Whisper"),
        ("encoder.layers.0.attention.gru_rel_pos_linear.weight", "WavLM"),
        ("hubert.encoder.layers.0.attention.q_proj.weight", "HuBERT"),
        ("feature_extractor.conv_layers.0.0.weight", "fairseq's own layout"),
        ("some.other.weight", "unknown kind (it holds some.other.weight …)"),
    ],
)
def test_another_model_is_refused_by_name_with_what_to_get_instead(tmp_path, name, what):
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(4, 4)}, path)
    said = refusal(path)
    for part in (what, "not a wav2vec 2.0 audio encoder", "Kijai/wav2vec2_safetensors", "models/audio_encoders"):
        assert part in said


def test_a_hubert_folder_is_refused_by_its_settings(tmp_path):
    save_file(file_tensors(tiny_wav2vec()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    assert "'hubert'" in refusal(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"num_attention_heads": 5}', "5 heads"),
        ('{"num_attention_heads": 0}', "0 heads"),
        ('{"num_attention_heads": "1"}', "1 heads"),
        ('{"conv_stride": [5, 2]}', "[5, 2]"),
        ('{"conv_stride": [5, 2, 2, 2, 2, 2, 0.5]}', "0.5]"),
        ('{"hidden_act": "relu"}', "'relu'"),
        ("{not json", "config.json"),
        ("[1]", "config.json"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, config, said):
    save_file(file_tensors(tiny_wav2vec()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError) as refused:
        load_speech_encoder(tmp_path)
    assert said in str(refused.value)


def test_a_missing_file_or_folder_is_refused(tmp_path):
    assert "no speech encoder" in refusal(tmp_path / "gone.safetensors")
    assert "none of" in refusal(tmp_path)


@pytest.mark.parametrize("keep", [9, 100, 3000, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "speech.safetensors"
    save_file(file_tensors(tiny_wav2vec()), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "download it again" in refusal(path)


@pytest.mark.parametrize("keep", [100, 5000, -100])
def test_a_truncated_pickle_is_refused(tmp_path, keep):
    path = tmp_path / "speech.bin"
    torch.save(file_tensors(tiny_wav2vec()), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "download it again" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"just some text", "neither"),
        (b"GGUF" + bytes(60), "GGUF"),  # of version 0
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, content, said):
    path = tmp_path / "speech.safetensors"
    path.write_bytes(content)
    assert said in refusal(path)


class Bomb:
    """Unpickling this would call a function: it must never be called."""

    ran: list[bool] = []  # noqa: RUF012

    def __reduce__(self):
        return (Bomb.ran.append, (True,))


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_pickle_with_more_than_tensors_is_refused_and_not_run(tmp_path, plain_pickle):
    path = tmp_path / "speech.pt"
    content = {**file_tensors(tiny_wav2vec()), "args": Path("settings")}
    if plain_pickle:
        path.write_bytes(pickle.dumps({"cfg": Bomb()}))
    else:
        torch.save(content, path)
    said = refusal(path)
    assert "more than tensors" in said
    assert "model.safetensors" in said
    assert not Bomb.ran


def test_a_pickle_of_something_else_is_refused(tmp_path):
    path = tmp_path / "speech.pt"
    torch.save([torch.zeros(3)], path)
    assert "list" in refusal(path)


def test_a_quantized_file_is_refused(tmp_path):
    tensors = file_tensors(tiny_wav2vec())
    name = "encoder.layers.0.attention.q_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    path = tmp_path / "speech.safetensors"
    save_file(tensors, path)
    assert "torch.int8" in refusal(path)


def test_a_transformers_that_cannot_be_imported_is_named_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RunError, match=r"package transformers, .* cannot be imported .*; install it again"):
        wav2vec2()


def test_a_transformers_that_is_too_new_for_this_pytorch_is_named(monkeypatch):
    """Version 5 does not import PyTorch 2.4: it hands out classes that raise when they are used."""
    monkeypatch.setattr("transformers.utils.is_torch_available", lambda: False)
    with pytest.raises(RunError, match=r"transformers \d.* does not work with PyTorch \d.*; update PyTorch, or"):
        wav2vec2()

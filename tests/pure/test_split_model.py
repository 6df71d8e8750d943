"""The command that makes two files of a model that holds Wan and InfiniteTalk in one, as its authors release it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

REPO = Path(__file__).resolve().parents[2]
sys.path.append(str(REPO / "client"))

import split_model  # noqa: E402

from infinitetalk_core.checkpoints.kinds import is_adapter_tensor  # noqa: E402
from infinitetalk_core.checkpoints.loaders import open_infinitetalk, open_wan  # noqa: E402
from tests.support.weight_files import right_tensors  # noqa: E402
from tools import weight_layouts as layouts  # noqa: E402

PARTS = {"base": open_wan, "infinitetalk": open_infinitetalk}
INDEX = "diffusion_pytorch_model.safetensors.index.json"


def both() -> dict[str, torch.Tensor]:
    return {name: value.to(torch.bfloat16) for kind in PARTS for name, value in right_tensors(kind).items()}


@pytest.fixture
def models(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture(params=["with index", "without"])
def release(request, tmp_path) -> Path:
    """A folder as on the authors' page: tensors in order of the names, in three files, and files of other models."""
    folder = tmp_path / "SoulX-FlashTalk-14B"
    folder.mkdir()
    tensors = dict(sorted(both().items()))
    names = list(tensors)
    places = {}
    for number in range(3):
        file = f"diffusion_pytorch_model-{number + 1:05}-of-00003.safetensors"
        some = {name: tensors[name] for name in names[number::3]}
        save_file(some, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(some, file)
    if request.param == "with index":
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "Wan2.1_VAE.pth").write_bytes(b"x")
    return folder


def test_the_two_files_hold_every_tensor_once_and_as_it_was(release, models):
    assert split_model.main([str(release), str(models)]) == 0
    wan = load_file(models / "diffusion_models" / "SoulX-FlashTalk-14B_wan.safetensors")
    talk = load_file(models / "model_patches" / "SoulX-FlashTalk-14B_infinitetalk.safetensors")
    for found, kind in ((wan, "base"), (talk, "infinitetalk")):
        want = {name: value.to(torch.bfloat16) for name, value in right_tensors(kind).items()}
        assert found.keys() == want.keys()
        assert all(found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in want.items())
    assert not list(models.rglob("*.part"))


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(
    "write",
    [
        lambda path, w, prefix: layouts.write_plain(path, w, torch.float8_e4m3fn, prefix),
        lambda path, w, prefix: layouts.write_scaled_old(path, w, prefix),
        lambda path, w, prefix: layouts.write_scaled_new(path, w, prefix=prefix),
        lambda path, w, prefix: layouts.write_scaled_new(path, w, True, prefix=prefix),
    ],
    ids=["fp8", "scaled, old", "scaled, new", "scaled, in header"],
)
def test_a_single_file_in_any_layout_is_read_as_before(write, prefix, models, tmp_path):
    path = tmp_path / "merged.safetensors"
    write(path, {name: value.float().numpy() for name, value in both().items()}, prefix)
    for open_part, part in zip(PARTS.values(), split_model.split(path, models), strict=True):
        found, want = open_part(part), open_part(path)
        assert not found.is_merged
        assert found.read().fingerprint == want.read().fingerprint


def test_it_divides_as_the_loaders_do():
    for name in [*both(), "blocks.10.norm_x.weight.scale_weight", "audio_proj.proj1.comfy_quant", "scaled_fp8"]:
        assert split_model.is_speech(name) is is_adapter_tensor(name)


def rewrite(file: Path, kept=lambda name: True, more=None) -> None:
    save_file({n: v for n, v in load_file(file).items() if kept(n)} | (more or {}), file)


def leave_wan_alone(first: Path, second: Path, models: Path) -> None:
    for file in first.parent.glob("diffusion*.safetensors"):
        rewrite(file, lambda name: not is_adapter_tensor(name))


def make_target(first: Path, second: Path, models: Path) -> None:
    (models / "model_patches").mkdir()
    (models / "model_patches" / f"{first.parent.name}_infinitetalk.safetensors").touch()


def add_indexes(first: Path, second: Path, models: Path) -> None:
    (first.parent / INDEX).unlink(missing_ok=True)
    for name in ("a", "b"):
        (first.parent / f"{name}.safetensors.index.json").write_text('{"weight_map": {}}')


ELSEWHERE = '{"weight_map": {"x": "../../secret.safetensors"}}'
# What is said -> what spoils the folder, from its first and second file and the models folder.
SPOILED = {
    "incomplete": lambda first, second, models: first.write_bytes(first.read_bytes()[:-1]),
    "lacks 1 files": lambda first, second, models: second.unlink(),
    "header that cannot be read": lambda first, second, models: first.write_bytes(
        first.read_bytes().replace(b"{", b"[", 1)
    ),
    "no complete safetensors": lambda first, second, models: first.write_bytes(b"<html>"),
    "which another file holds too": lambda first, second, models: rewrite(
        first, more=dict([next(iter(load_file(second).items()))])
    ),
    "is no Wan with InfiniteTalk in one": leave_wan_alone,
    "exists already": make_target,
    "holds 2 models": add_indexes,
    "is no index": lambda first, second, models: (first.parent / INDEX).write_text(ELSEWHERE),
    "is a GGUF file": lambda first, second, models: first.write_bytes(b"GGUF" + first.read_bytes()[4:]),
    "no folder": lambda first, second, models: models.rmdir(),
}


@pytest.mark.parametrize("said", SPOILED)
def test_what_cannot_be_split_is_said_in_one_sentence_and_nothing_is_written(release, models, said, capsys):
    first, second, _ = sorted(release.glob("diffusion*.safetensors"))
    SPOILED[said](first, second, models)
    before = sorted(models.rglob("*"))
    assert split_model.main([str(release), str(models)]) == 1
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert sorted(models.rglob("*")) == before


DAMAGED = [
    *(b'{"a": 1}', b'{"a": {"data_offsets": []}}', b'{"a": {"data_offsets": [0, "x"], "dtype": "F16", "shape": []}}'),
    *(b'{"__metadata__": 3}', b'{"__metadata__": {"_quantization_metadata": "x"}}', b"[]", b'{"a'),
    *(
        b'{"__metadata__": {"_quantization_metadata": "[]"}}',
        b'{"a": {"data_offsets": [4, 1], "dtype": "", "shape": []}}',
    ),
]


@pytest.mark.parametrize("header", DAMAGED)
def test_a_damaged_header(header, models, tmp_path, capsys):
    path = tmp_path / "merged.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert split_model.main([str(path), str(models)]) == 1
    assert "header that cannot be read" in capsys.readouterr().err


def test_a_full_disk(release, models, monkeypatch, capsys):
    monkeypatch.setattr(split_model.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    assert split_model.main([str(release), str(models)]) == 1
    assert "make room" in capsys.readouterr().err


def test_a_write_that_fails_leaves_nothing(release, models, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(split_model, "_copy", fail)
    assert split_model.main([str(release), str(models)]) == 1
    assert "No space left" in capsys.readouterr().err
    assert not [path for path in models.rglob("*") if path.is_file()]

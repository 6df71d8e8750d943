"""Loaded weights are what was in their file when it was read, whatever becomes of the file, and are known by it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.checkpoints import tensor_data
from infinitetalk_core.checkpoints.loaders import open_infinitetalk, open_uni3c
from infinitetalk_core.checkpoints.weights_file import Quantized, WeightsFile, as_numbers
from infinitetalk_core.errors import InputError, RunError
from infinitetalk_core.fingerprint import key_of, tensor_fingerprint
from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter
from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig
from tests.support.speech import file_tensors, tiny_wav2vec
from tools import weight_layouts as layouts

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = AdapterConfig(dim=256, heads=2, blocks=2, audio_width=256, hidden=256, tokens=4, token_dim=64)
CAMERA = Uni3CConfig(
    dim=64, ffn_dim=64, heads=2, blocks=2, embed_dim=32, time_dim=32, out_dim=32, view_channels=7, view_dim=8
)
HALF = torch.float16


def write_infinitetalk(write: Callable[..., None], path: Path, **options) -> None:
    torch.manual_seed(0)
    weights = {k: (torch.randn_like(v) * 0.02).numpy() for k, v in AudioAdapter(ADAPTER).state_dict().items()}
    write(path, weights, **options)


def write_uni3c(path: Path) -> None:
    torch.manual_seed(0)
    weights = {k: torch.randn_like(v).numpy() for k, v in Uni3C(CAMERA).state_dict().items()}
    names = {k.replace("to_out.0", "o").replace("self_attn.to_", "self_attn."): v for k, v in weights.items()}
    layouts.write_plain(path, names, HALF)


FILES: dict[str, Callable[[Path], None]] = {
    "fp16": lambda path: write_infinitetalk(layouts.write_plain, path, dtype=HALF),
    "fp8": lambda path: write_infinitetalk(layouts.write_plain, path, dtype=torch.float8_e4m3fn),
    "fp8 scaled": lambda path: write_infinitetalk(layouts.write_scaled_new, path),
    "GGUF F16": lambda path: write_infinitetalk(layouts.write_gguf, path, kind="F16"),
    "GGUF Q8_0": lambda path: write_infinitetalk(layouts.write_gguf, path, kind="Q8_0"),
    "Uni3C": write_uni3c,
}


@pytest.fixture(params=FILES)
def path(request, tmp_path) -> Path:
    """A weights file, not written just now: the times of files are counted in steps of some milliseconds."""
    position = tmp_path / request.param.replace(" ", "_")
    FILES[request.param](position)
    os.utime(position, (10**9, 10**9))
    return position


def opened(path: Path) -> WeightsFile:
    return open_uni3c(path) if path.name.startswith("Uni3C") else open_infinitetalk(path)


def numbers(file: WeightsFile) -> dict[str, torch.Tensor]:
    return as_numbers(file.read().tensors, torch.float32)


def flip_a_byte(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        (value,) = file.read(1)
        file.seek(position)
        file.write(bytes([value ^ 1]))


TRUNCATED = """
import os, sys
from pathlib import Path
import torch
sys.path.insert(0, {root!r})
from infinitetalk_core.checkpoints.loaders import open_infinitetalk
from infinitetalk_core.checkpoints.loaders import open_uni3c
from infinitetalk_core.checkpoints.weights_file import as_numbers
for name in sys.argv[1:]:
    path = Path(name)
    opened = open_uni3c if path.name.startswith("Uni3C") else open_infinitetalk
    want = {{k: v.clone() for k, v in as_numbers(opened(path).read().tensors, torch.float32).items()}}
    loaded = opened(path).read().tensors
    os.truncate(path, 0)
    got = as_numbers(loaded, torch.float32)
    print(path.name, all(torch.equal(got[k], want[k]) for k in want))
"""


def test_a_file_that_is_cut_off_later_changes_nothing(tmp_path):
    """A mapped file would end the process here."""
    paths = [tmp_path / name.replace(" ", "_") for name in FILES]
    for write, position in zip(FILES.values(), paths, strict=True):
        write(position)
    code = TRUNCATED.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, f"ended by {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.stdout.splitlines() == [f"{position.name} True" for position in paths]


def test_a_file_that_is_written_in_place_later_changes_nothing(path):
    want = numbers(opened(path))
    file = opened(path)
    loaded = file.read().tensors
    first = min(file.header.starts.values())
    with path.open("r+b") as content:
        content.seek(first)
        content.write(bytes(path.stat().st_size - first))
    got = as_numbers(loaded, torch.float32)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_each_tensor_has_memory_of_its_own(path):
    """No more than the file: what is not there twice cannot have been read twice."""
    loaded = opened(path).read().tensors
    stored = [w.stored if isinstance(w, Quantized) else w for w in loaded.values()]
    assert len({tensor.untyped_storage().data_ptr() for tensor in stored}) == len(stored)
    assert sum(tensor.untyped_storage().nbytes() for tensor in stored) <= path.stat().st_size


@pytest.mark.parametrize(
    "change",
    [
        lambda path: flip_a_byte(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: shutil.copyfile(path, path.with_name("copy")) and path.with_name("copy").replace(path),
    ],
    ids=["a byte", "cut off", "replaced"],
)
def test_a_file_that_changes_after_its_header_was_read_is_refused(path, change):
    file = opened(path)
    change(path)
    with pytest.raises(RunError, match=f"^{path.name} was changed while it was read; wait until it is written"):
        file.read()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: flip_a_byte(path, path.stat().st_size - 1), "was changed while it was read; wait"),
        (lambda path: os.truncate(path, 5000), "ends early, inside the tensor .*; download it again"),
    ],
)
def test_a_file_that_changes_while_its_tensors_are_read_is_refused(path, monkeypatch, change, said):
    file, plain, changed = opened(path), tensor_data._fill, []

    def fill(*given) -> bool:
        if not changed:
            changed.append(change(path))
        return plain(*given)

    monkeypatch.setattr(tensor_data, "_fill", fill)
    with pytest.raises((InputError, RunError), match=f"^{path.name} {said}"):
        file.read()


def test_tensors_are_read_from_the_first_to_the_last(path, monkeypatch):
    places, plain = [], tensor_data._fill
    file = opened(path)

    def fill(handle, memory, digest) -> bool:
        places.append(handle.tell())
        return plain(handle, memory, digest)

    monkeypatch.setattr(tensor_data, "_fill", fill)
    file.read()
    assert len(places) >= len(file.tensors) and places == sorted(places)


def test_a_copy_under_another_name_with_other_times_has_the_same_fingerprint(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / f"{path.name}_of_last_year.ckpt"
    shutil.copyfile(path, copy)
    os.utime(copy, (10**9, 10**9))
    assert opened(copy).read().fingerprint == opened(path).read().fingerprint


def test_one_bit_in_the_middle_of_a_tensor_has_another_fingerprint(path):
    file = opened(path)
    before = file.read().fingerprint
    largest = max(file.tensors, key=file.header.sizes.__getitem__)
    flip_a_byte(path, file.header.starts[largest] + file.header.sizes[largest] // 2)
    assert opened(path).read().fingerprint != before


def test_a_scale_counts_too(tmp_path):
    path = tmp_path / "scaled"
    FILES["fp8 scaled"](path)
    file = open_infinitetalk(path)
    before = file.read().fingerprint
    flip_a_byte(path, file.header.starts["audio_proj.proj2.weight_scale"])
    assert open_infinitetalk(path).read().fingerprint != before


def test_the_fingerprint_is_that_of_the_named_tensors(tmp_path):
    """Whatever the order in the file and the prefix of its names."""
    path, other = tmp_path / "plain", tmp_path / "other"
    FILES["fp16"](path)
    tensors = load_file(path)
    read = open_infinitetalk(path).read().fingerprint
    assert read == key_of({name: tensor_fingerprint(value) for name, value in tensors.items()})
    entries, data = {}, b""
    for name, value in reversed(tensors.items()):
        begin, data = len(data), data + value.numpy().tobytes()
        described = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [begin, len(data)]}
        entries[f"model.{name}"] = described
    header = json.dumps(entries).encode()
    other.write_bytes(struct.pack("<Q", len(header)) + header + data)
    assert open_infinitetalk(other).read().fingerprint == read
    one, two = "blocks.0.audio_cross_attn.proj.weight", "blocks.1.audio_cross_attn.proj.weight"
    save_file(tensors | {one: tensors[two], two: tensors[one]}, other)
    assert open_infinitetalk(other).read().fingerprint != read, "the same tensors under each other's names"


@pytest.fixture(params=["safetensors", "bin", "old bin"])
def encoder_file(request, tmp_path) -> Path:
    """A speech encoder in a folder of its own."""
    path = tmp_path / "encoder" / ("model.safetensors" if request.param == "safetensors" else "pytorch_model.bin")
    path.parent.mkdir()
    if request.param == "safetensors":
        save_file(file_tensors(tiny_wav2vec()), path)
    else:
        torch.save(file_tensors(tiny_wav2vec()), path, _use_new_zipfile_serialization=request.param == "bin")
    return path


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_nothing_of_a_speech_encoder_stays_mapped(encoder_file):
    loaded = load_speech_encoder(encoder_file)
    assert str(encoder_file) not in Path("/proc/self/maps").read_text()
    want = {name: value.clone() for name, value in loaded.state_dict().items()}
    os.truncate(encoder_file, 0)
    assert all(torch.equal(value, want[name]) for name, value in loaded.state_dict().items())


def test_a_speech_encoder_has_the_fingerprint_of_its_weights_and_settings(encoder_file, tmp_path):
    def found(folder: Path) -> str:
        return load_speech_encoder(folder).fingerprint

    folder = encoder_file.parent
    plain = found(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert found(copy) == plain == found(encoder_file)
    (copy / "preprocessor_config.json").write_text('{"do_normalize": true}')
    normalized = found(copy)
    (copy / "config.json").write_text('{"num_attention_heads": 1, "layer_norm_eps": 1e-6}')
    assert len({plain, normalized, found(copy)}) == 3
    tensors = file_tensors(tiny_wav2vec())
    tensors["encoder.layers.1.feed_forward.output_dense.weight"].view(-1)[1000] += 1e-3
    save = save_file if encoder_file.suffix == ".safetensors" else torch.save
    save(tensors, encoder_file)
    assert found(folder) != plain


def test_a_speech_encoder_that_changes_while_it_is_read_is_refused(encoder_file, monkeypatch):
    from infinitetalk_core.audio import encoder_files

    plain = encoder_files.read_settings

    def change_then_read(*given):
        with encoder_file.open("ab") as file:
            file.write(b"\0")
        return plain(*given)

    monkeypatch.setattr(encoder_files, "read_settings", change_then_read)
    with pytest.raises(RunError, match="was changed while it was read; wait until it is written"):
        load_speech_encoder(encoder_file)

"""A file that merges Wan and InfiniteTalk is read as two files would be, each loader its part and no byte more."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from infinitetalk_core.checkpoints import tensor_data
from infinitetalk_core.checkpoints.kinds import CheckpointKind, is_adapter_tensor, kind_of
from infinitetalk_core.checkpoints.loaders import may_be_multitalk, open_infinitetalk, open_uni3c, open_wan
from infinitetalk_core.checkpoints.weights_file import LoadedWeights, Quantized
from infinitetalk_core.errors import InputError
from infinitetalk_core.standalone import load_model
from tests.support.weight_files import right_tensors
from tools import weight_layouts as layouts
from tools.near_misses import NEAR_MISSES, VISION, parts, wan

LAYOUTS = {
    "fp32": lambda p, w, x: layouts.write_plain(p, w, torch.float32, x),
    "fp16": lambda p, w, x: layouts.write_plain(p, w, torch.float16, x),
    "bf16": lambda p, w, x: layouts.write_plain(p, w, torch.bfloat16, x),
    "fp8": lambda p, w, x: layouts.write_plain(p, w, torch.float8_e4m3fn, x),
    "fp8 scaled, old": lambda p, w, x: layouts.write_scaled_old(p, w, x),
    "fp8 scaled, new": lambda p, w, x: layouts.write_scaled_new(p, w, prefix=x),
    "fp8 scaled, in header": lambda p, w, x: layouts.write_scaled_new(p, w, True, prefix=x),
    "Q8_0": lambda p, w, x: layouts.write_gguf(p, {x + k: v for k, v in w.items()}, "Q8_0"),
    "Q4_0": lambda p, w, x: layouts.write_gguf(p, {x + k: v for k, v in w.items()}, "Q4_0"),
}
OPENERS = {"base": open_wan, "infinitetalk": open_infinitetalk}


def numbers(kind: str) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in right_tensors(kind).items()}


@pytest.fixture(scope="module")
def merged() -> dict[str, np.ndarray]:
    return numbers("base") | numbers("infinitetalk")


def equal(one: LoadedWeights, other: LoadedWeights) -> bool:
    def bits(weight: torch.Tensor | Quantized) -> torch.Tensor:
        return (weight.stored if isinstance(weight, Quantized) else weight).view(torch.uint8)

    assert one.tensors.keys() == other.tensors.keys()
    return all(torch.equal(bits(value), bits(other.tensors[name])) for name, value in one.tensors.items())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_part_is_what_a_file_of_its_own_would_hold(merged, name, prefix, tmp_path):
    LAYOUTS[name](tmp_path / "both", merged, prefix)
    for kind, open_part in OPENERS.items():
        LAYOUTS[name](tmp_path / kind, numbers(kind), prefix)
        alone, part = open_part(tmp_path / kind), open_part(tmp_path / "both")
        assert (part.is_merged, alone.is_merged) == (True, False)
        assert dict(part.shapes) == dict(alone.shapes)
        assert part.dtypes == alone.dtypes
        got, want = part.read(), alone.read()
        assert equal(got, want)
        assert got.fingerprint == want.fingerprint, "a part in another file is the same weights"


def test_the_engines_own_loader_makes_one_model_of_it(merged, tmp_path):
    both = tmp_path / "both.safetensors"
    layouts.write_plain(both, merged, torch.float16)
    model = load_model(both, both)
    layouts.write_plain(tmp_path / "base", numbers("base"), torch.float16)
    layouts.write_plain(tmp_path / "talk", numbers("infinitetalk"), torch.float16)
    other = load_model(tmp_path / "base", tmp_path / "talk")
    for part in ("backbone", "adapter"):
        got, want = getattr(model, part).state_dict(), getattr(other, part).state_dict()
        assert got.keys() == want.keys()
        assert all(torch.equal(value, want[name]) for name, value in got.items())


def test_no_byte_of_the_other_part_is_read(merged, tmp_path, monkeypatch):
    path = tmp_path / "both.safetensors"
    layouts.write_plain(path, merged, torch.float16)
    sizes = []
    new_memory = tensor_data._new_memory
    monkeypatch.setattr(tensor_data, "_new_memory", lambda size, path: sizes.append(size) or new_memory(size, path))
    open_infinitetalk(path).read()
    assert sum(sizes) == sum(2 * value.size for value in numbers("infinitetalk").values())


@pytest.mark.parametrize("kind", OPENERS)
def test_numbers_that_are_none_are_found_in_the_part_that_has_them(merged, kind, tmp_path):
    path = tmp_path / "both.safetensors"
    wrong = next(name for name in numbers(kind) if name.endswith(".weight"))
    layouts.write_plain(path, {**merged, wrong: np.full_like(merged[wrong], np.nan)}, torch.float16)
    for each, open_part in OPENERS.items():
        if each == kind:
            with pytest.raises(InputError, match="not finite"):
                open_part(path).read()
        else:
            open_part(path).read()


@pytest.mark.parametrize("in_header", [True, False], ids=["in the header", "beside the weights"])
@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_a_layout_that_cannot_be_read_matters_only_in_its_part(merged, in_header, prefix, tmp_path):
    path = tmp_path / "both.safetensors"
    only = lambda name, value: layouts.is_linear(name, value) and not is_adapter_tensor(name)  # noqa: E731
    layouts.write_scaled_new(path, merged, in_header, format_name="nvfp4", linear=only, prefix=prefix)
    open_infinitetalk(path).read()
    with pytest.raises(InputError, match=r"a Wan 2.1 I2V model stored as nvfp4, which cannot be read"):
        open_wan(path)


def test_40_gb_of_backbone_are_left_alone_by_the_header(tmp_path):
    from tests.pure.test_checkpoints import sparse

    shapes = {name: tuple(value.shape) for name, value in right_tensors("infinitetalk").items()}
    backbone = wan(36, *VISION, dim=128) | {f"blocks.{i}.ffn.0.weight": (10_000_000,) for i in range(2000)}
    path = sparse(tmp_path / "large.safetensors", backbone | shapes)
    assert path.stat().st_size > 40e9
    file = open_infinitetalk(path)
    assert dict(file.shapes) == shapes
    assert len(file.read().tensors) == len(shapes)


def test_a_merged_file_of_another_backbone_is_named_where_wan_is_wanted(tmp_path):
    shapes = wan(16) | {name: tuple(value.shape) for name, value in right_tensors("infinitetalk").items()}
    path = tmp_path / "t2v.safetensors"
    save_file({name: torch.zeros(shape, dtype=torch.uint8) for name, shape in shapes.items()}, path)
    with pytest.raises(InputError, match=r"is a Wan 2.1 or 2.2 T2V model of 14B .*, not a Wan 2.1 I2V model"):
        open_wan(path)


def test_a_merged_file_in_another_loader_is_named_with_the_loaders_that_take_it(merged, tmp_path):
    layouts.write_plain(tmp_path / "both.safetensors", merged, torch.float16)
    with pytest.raises(InputError, match="the InfiniteTalk Model Loader and Load Diffusion Model or a GGUF loader"):
        open_uni3c(tmp_path / "both.safetensors")


def test_a_damaged_merged_file(merged, tmp_path):
    path = tmp_path / "both.safetensors"
    layouts.write_plain(path, merged, torch.float16)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="incomplete"):
        open_infinitetalk(path)
    tensors = load_file(path) if path.write_bytes(content) else {}
    tensors.pop("blocks.1.norm_x.weight")
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"lacks .*blocks\.1\.norm_x"):
        load_model(path, path)
    (length,) = struct.unpack("<Q", content[:8])
    path.write_bytes(content[:8] + content[8 : 8 + length // 2])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        open_infinitetalk(path)


@pytest.mark.parametrize(
    "names",
    [
        ["patch_embedding.weight", "blocks.0.self_attn.norm_q.weight", "blocks.0.audio_cross_attn.q_linear.weight"],
        ["blocks.7.self_attn.norm_q.weight", "blocks.7.audio_cross_attn.q_linear.weight", "blocks.7.norm_x.weight"],
        ["head.modulation", "img_emb.proj.0.bias", "audio_proj.proj1.weight", "audio_proj.proj1_vf.weight"],
    ],
    ids=["first", "middle", "last"],
)
def test_a_part_of_a_split_merged_file_names_the_command(names, tmp_path):
    assert kind_of(parts(*names)) is CheckpointKind.WAN_INFINITETALK_SHARD
    path = tmp_path / "diffusion_pytorch_model-00003-of-00007.safetensors"
    save_file({name: torch.zeros(2, 2) for name in names}, path)
    for open_part in OPENERS.values():
        with pytest.raises(InputError, match=r"client/split_model.py"):
            open_part(path)


@pytest.mark.parametrize("what", [what for what in NEAR_MISSES if what.startswith("HuMo")])
def test_another_speaking_model_is_no_part_of_a_merged_file(what):
    kind, shapes = NEAR_MISSES[what]
    assert kind_of(shapes) is kind
    assert kind_of({k: v for k, v in shapes.items() if k != "head.modulation"}) is not (
        CheckpointKind.WAN_INFINITETALK_SHARD
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("multitalk.safetensors", True),
        ("WanVideo_2_1_Multitalk_14B_fp8_e4m3fn.safetensors", True),
        ("wan2.1_infiniteTalk_multi_fp16.safetensors", False),
        ("multitalk/Wan2_1-InfiniTetalk-Single_fp16.safetensors", False),
        ("my_weights.safetensors", False),
    ],
)
def test_multitalks_weights_are_told_by_their_name_alone(name, expected):
    assert may_be_multitalk(Path(name).name) is expected

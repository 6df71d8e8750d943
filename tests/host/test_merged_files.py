"""A file that merges Wan and InfiniteTalk gives what two files give, bit for bit: one file, named in both loaders."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import av
import comfy.ops
import comfy.sd
import folder_paths
import numpy as np
import pytest
import torch
from fault_bench import shorten
from make_tiny_models import Sizes, state_dict
from safetensors.torch import load_file, save_file
from test_base_layouts import PackedOperations, in_blocks, packed
from test_layouts import heard
from weight_layouts import write_gguf, write_plain, write_scaled_new, write_scaled_old

SIZES = Sizes(audio_hidden=256, audio_width=256)
Weights = dict[str, np.ndarray]


PREFIX = "model.diffusion_model."
LAYOUTS = {
    "fp16": (lambda path, w: write_plain(path, w, torch.float16), "default"),
    "fp16, as fp8": (lambda path, w: write_plain(path, w, torch.float16), "fp8_e4m3fn"),
    "bf16": (lambda path, w: write_plain(path, w, torch.bfloat16), "default"),
    "fp8": (lambda path, w: write_plain(path, w, torch.float8_e4m3fn), "default"),
    "fp8 scaled, old": (lambda path, w: write_scaled_old(path, w, linear=in_blocks), "default"),
    "fp8 scaled, in header": (lambda path, w: write_scaled_new(path, w, in_header=True, linear=in_blocks), "default"),
    "fp8 scaled, new": (lambda path, w: write_scaled_new(path, w, linear=in_blocks), "default"),
}


def floats(file: str, sizes: Sizes | None = None) -> Weights:
    return {name: value.astype(np.float32) for name, value in state_dict(file, sizes).items()}


@pytest.fixture(scope="module")
def parts() -> tuple[Weights, Weights]:
    """The tensors of Wan and those of InfiniteTalk."""
    wan = floats("diffusion_models/tiny_wan2.1_i2v.safetensors")
    talk = floats("model_patches/tiny_infinitetalk_single.safetensors", SIZES)
    assert not wan.keys() & talk.keys()
    return wan, talk


def load_diffusion_model(path, weight_dtype, monkeypatch) -> Any:
    """Load with ComfyUI's own loader node."""
    from nodes import UNETLoader

    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, file: str(path))
    return UNETLoader().load_unet(path.name, weight_dtype)[0]


# With the prefix ComfyUI 0.3.75 does not find the scales of fp8, merged or not.
@pytest.mark.parametrize(("name", "prefix"), [*((name, "") for name in LAYOUTS), ("fp16", PREFIX)])
@torch.inference_mode()
def test_one_file_in_both_loaders_predicts_what_two_do(core, files, parts, name, prefix, monkeypatch, tmp_path, caplog):
    if name == "fp8 scaled, new" and not hasattr(comfy.ops, "_load_quantized_module"):
        pytest.skip("this ComfyUI knows fp8 files with notes in the header only")
    write, weight_dtype = LAYOUTS[name]
    wan, talk = ({prefix + k: v for k, v in part.items()} for part in parts)
    both, base, patch = (tmp_path / f"{what}.safetensors" for what in ("both", "base", "patch"))
    for path, weights in ((both, wan | talk), (base, wan), (patch, talk)):
        write(path, weights)
    models = [load_diffusion_model(path, weight_dtype, monkeypatch) for path in (base, both)]
    for one, other in zip(*(model.model.diffusion_model.state_dict().items() for model in models), strict=True):
        assert one[0] == other[0]
        assert torch.equal(*(value.flatten().view(torch.uint8) for value in (one[1], other[1]))), one[0]
    want = heard(core, files, patch, model=models[0])
    with caplog.at_level(logging.INFO, "infinitetalk"):
        got = heard(core, files, both, model=models[1])
    assert torch.equal(got, want)
    assert "load the same file as the MODEL too" in caplog.text
    if name == "fp16":
        assert not torch.equal(got, heard(core, files, both, strength=0.0, model=models[1])), "it is heard"


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@torch.inference_mode()
def test_a_merged_gguf_file(core, files, parts, kind, tmp_path):
    """The loader pack hands all tensors of the file to ComfyUI, as this stand-in does (test_base_layouts.py)."""
    wan, talk = parts
    write_gguf(tmp_path / "both", wan | talk, kind)
    write_gguf(tmp_path / "patch", talk, kind)
    operations = {"custom_operations": PackedOperations}

    def load(weights: Weights) -> Any:
        state = {
            k: packed(v, kind) if in_blocks(k, v) and v.shape[1] % 256 == 0 else torch.from_numpy(v).clone()
            for k, v in weights.items()
        }
        return comfy.sd.load_diffusion_model_state_dict(state, model_options=operations)

    want = heard(core, files, tmp_path / "patch", model=load(wan))
    assert torch.equal(heard(core, files, tmp_path / "both", model=load(wan | talk)), want)


def test_weights_named_multitalk_are_loaded_and_said_to_be_maybe_that(core, files, parts, tmp_path, caplog):
    path = tmp_path / "multitalk.safetensors"
    write_plain(path, parts[1], torch.float16)
    with caplog.at_level(logging.INFO, "infinitetalk"):
        heard(core, files, path)
    assert "multitalk.safetensors may be MultiTalk's weights, going by its name alone" in caplog.text
    assert "load the same file" not in caplog.text


def test_a_video_from_one_file_is_that_from_two(server, trained, samples):
    """The unchanged workflow on the trained models, through the API."""
    models = server.base / "models"
    names = {"UNETLoader": "small_wan2.1_i2v.safetensors", "InfiniteTalkModelLoader": "small_infinitetalk.safetensors"}
    workflow = trained("talking_portrait")
    loaders = {kind: node for node in workflow.values() if (kind := node["class_type"]) in names}
    for node in workflow.values():
        if node["class_type"] == "LoadAudio":
            node["inputs"]["audio"] = "merged_voice.wav"
    shutil.copyfile(samples / "voice.wav", server.base / "input" / "merged_voice.wav")
    shorten(server.base / "input" / "merged_voice.wav", 60)
    unet, talk = loaders["UNETLoader"]["inputs"], loaders["InfiniteTalkModelLoader"]["inputs"]
    two = load_file(models / "diffusion_models" / unet["unet_name"])
    two |= load_file(models / "model_patches" / talk["infinitetalk"])
    save_file(two, models / "diffusion_models" / "small_merged.safetensors")

    def video() -> np.ndarray:
        result = server.run(workflow, timeout=300)
        assert result.status == "success", result.error
        (file,) = [f for f in result.files() if f["filename"].endswith(".mp4")]
        with av.open(str(server.path_of(file))) as found:
            return np.stack([frame.to_ndarray() for frame in found.decode(video=0)])

    want = video()
    unet["unet_name"] = talk["infinitetalk"] = "small_merged.safetensors"
    got = video()
    assert len(got) == 60
    assert np.array_equal(got, want)

"""The engine as a library: its public names, the example of docs/python-api.md, and the standalone backend."""

from __future__ import annotations

import ast
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import infinitetalk_core as it
from evaluation.sync import mouth_opening, shuffled, sync
from infinitetalk_core.chunks.camera_control import CameraConditioning
from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter
from infinitetalk_core.model.wan import WanBackbone, WanConfig
from infinitetalk_core.standalone import add_uni3c

REPO = Path(__file__).resolve().parents[2]
GUIDE = REPO / "docs" / "python-api.md"
MOST_LINES = 15
TRUTH = REPO / "tests" / "data" / "mouth_openings.json"  # how far the sample voices open the mouth
LEAST_SYNC = 0.7


@pytest.fixture
def example() -> str:
    """The first code block of the guide."""
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[0]


def test_the_example_is_short_and_uses_public_names_only(example):
    assert len(example.strip().splitlines()) <= MOST_LINES
    used = {node.attr for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Attribute) and is_it(node.value)}
    assert used and used <= set(it.__all__)


def is_it(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "it"


def test_every_public_name_exists_and_those_of_the_guide_are_public():
    assert all(hasattr(it, name) for name in it.__all__)
    named = set(re.findall(r"`it\.([A-Za-z_]+)", GUIDE.read_text(encoding="utf-8")))
    assert named and named <= set(it.__all__)


def test_the_example_makes_a_speaking_video(example, tmp_path, monkeypatch):
    """As it stands in the guide, in a folder that has the repository's models and samples."""
    for name in ("small_models", "samples"):
        (tmp_path / name).symlink_to(REPO / name, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    runpy.run_path("example.py")
    with av.open("talking.mp4") as file:
        frames = torch.stack([torch.from_numpy(f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]) / 255
    speech = it.read_sound(REPO / "samples" / "voice.wav")
    assert len(frames) == speech.frames
    wanted = np.array(json.loads(TRUTH.read_text())["voice.wav"])
    found = sync(mouth_opening(frames), wanted)
    assert found.correlation > LEAST_SYNC
    assert abs(found.lag) <= 1
    assert sync(mouth_opening(frames), shuffled(wanted, 0)).correlation < LEAST_SYNC


TINY_WAN = WanConfig(dim=256, ffn_dim=64, heads=2, layers=2, text_dim=16, text_len=6, clip_dim=24, freq_dim=32)
TINY_AUDIO = AdapterConfig(dim=256, heads=2, blocks=2, audio_width=12, hidden=8, tokens=2, token_dim=8)


RELEASED_AUDIO = AdapterConfig(dim=5120, heads=40, blocks=40, audio_width=12 * 768)


class Codec:
    """A VAE of the right shapes: averages blocks of 8 x 8 pixels and 4 frames."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        b, f, h, w, _ = frames.shape
        padded = torch.cat([frames[:, :1]] * 3 + [frames], dim=1)
        small = padded.reshape(b, (f + 3) // 4, 4, h // 8, 8, w // 8, 8, 3).mean((2, 4, 6))
        return small.movedim(-1, 1).repeat(1, 6, 1, 1, 1)[:, :16]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        big = latents[:, :3].repeat_interleave(4, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)
        return big[:, :, 3:].movedim(1, -1)


def tiny_backend(**more) -> it.TorchBackend:
    torch.manual_seed(0)
    model = it.InfiniteTalkModel(WanBackbone(TINY_WAN).eval(), AudioAdapter(TINY_AUDIO).eval())
    settings = it.SamplingSettings(steps=2)
    return it.TorchBackend(model, Codec(), it.Sampling(settings=settings, chunk_frames=13), **more)


def tiny_job(backend: it.TorchBackend) -> it.Job:
    sound = it.Sound(torch.zeros(1, 16000 * 13 // 25), 16000)
    speech = it.Speech((torch.randn(13, 3, 4, generator=torch.Generator().manual_seed(1)),), sound)
    return it.Job(speech, it.Reference(it.PictureBatch(torch.rand(1, 32, 32, 3)), 32, 32), backend.sampling)


def latents_of(backend: it.TorchBackend) -> torch.Tensor:
    torch.manual_seed(2)
    seen = []
    list(it.dub(tiny_job(backend), backend, lambda chunk, step, denoised: seen.append(denoised.clone())))
    return seen[-1]


def test_prompts_and_clip_tokens_reach_the_model():
    prompts = []

    def encode_text(prompt: str) -> torch.Tensor:
        prompts.append(prompt)
        return torch.full((1, 3, 16), float(len(prompt)))

    def clip_vision(pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape == (1, 3, 224, 224)
        return pixels.mean() * torch.ones(1, 257, 24)

    plain = tiny_backend()
    with_text = replace(plain, prompt="a person talks", negative_prompt="blurred", encode_text=encode_text)
    results = [latents_of(b) for b in (plain, with_text, replace(plain, clip_vision=clip_vision))]
    assert set(prompts) == {"a person talks", "blurred"}
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_weights_in_bfloat16_compute_in_it():
    """As on a GPU; latents and noise stay in float32."""
    full = tiny_backend(encode_text=lambda prompt: torch.ones(1, 3, 16), clip_vision=lambda _: torch.ones(1, 257, 24))
    exact = latents_of(full)
    for part in (full.model.backbone, full.model.adapter):
        part.bfloat16()
    found = latents_of(full)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.1 * exact.abs().max()


def test_audio_changes_the_prediction():
    backend = tiny_backend()
    job = tiny_job(backend)
    silent = replace(job, speech=replace(job.speech, voices=(torch.zeros(13, 3, 4),)))
    outputs = [next(iter(it.dub(j, backend))).frames for j in (job, silent)]
    assert not torch.equal(*outputs)


def test_the_released_architecture_can_be_built_and_run():
    """Wan 2.1 I2V 14B with the released adapter, on the meta device: shapes only."""
    with torch.device("meta"):
        model = it.InfiniteTalkModel(WanBackbone(WanConfig()), AudioAdapter(RELEASED_AUDIO))
        adapter, backbone = model.adapter, model.backbone
        windows = torch.zeros(1, 81, 5, 12, 768)
        speech = [adapter.speech_tokens(windows, None)] * 2
        x, reference, mask = (
            torch.zeros(2, 16, 21, 60, 104),
            torch.zeros(1, 16, 21, 60, 104),
            torch.zeros(1, 4, 21, 60, 104),
        )
        clip = torch.zeros(2, 257, 1280)
        velocity = model.predict(x, torch.ones(2), torch.zeros(2, 512, 4096), speech, reference, mask, clip)
    assert velocity.shape == x.shape
    assert 16e9 < sum(p.numel() for p in backbone.parameters()) < 17e9


def test_files_that_do_not_fit_each_other_are_refused():
    wan = REPO / "small_models" / "diffusion_models" / "small_wan2.1_i2v.safetensors"
    with pytest.raises(it.InputError, match=r"not .*InfiniteTalk"):
        it.load_model(wan, wan)


def test_a_video_that_exists_is_not_overwritten(tmp_path):
    backend = tiny_backend()
    (tmp_path / "a.mp4").write_bytes(b"mine")
    with pytest.raises(it.InputError, match="exists already"):
        it.write_video(tmp_path / "a.mp4", tiny_job(backend), backend)
    assert (tmp_path / "a.mp4").read_bytes() == b"mine"


def test_a_source_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(it.InputError, match="no file"):
        it.open_source(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"text")
    with pytest.raises(it.InputError, match=r"b\.png"):
        it.open_source(tmp_path / "b.png")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_uni3c_adds_to_the_blocks_in_either_dtype(dtype):
    """The small ControlNet with a camera embedding, on a backbone of its width."""
    network = it.load_uni3c(REPO / "small_models" / "controlnet" / "small_uni3c.safetensors", dtype=dtype)
    backbone = WanBackbone(replace(TINY_WAN, dim=network.config.out_dim, freq_dim=256)).to(dtype).eval()
    mask, rays = torch.zeros(1, 1, 13, 32, 32), torch.randn(1, 6, 13, 32, 32)
    camera = CameraConditioning(torch.randn(1, 16, 4, 4, 4), mask, rays)
    x, m = torch.randn(1, 16, 4, 4, 4), torch.zeros(1, 4, 4, 4, 4)
    with torch.inference_mode():
        after_block = add_uni3c(network, backbone, x, torch.tensor([0.5]), m, camera)
        tokens = torch.zeros(1, 16, network.config.out_dim, dtype=dtype)
        assert torch.isfinite(after_block(0, tokens)).all()
        assert after_block(network.config.blocks, tokens) is tokens

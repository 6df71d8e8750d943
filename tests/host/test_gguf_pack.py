"""The MODEL of the real GGUF loader pack, through the API.

It is another project's, so it is not here: $COMFYUI_GGUF names a folder with a copy of city96/ComfyUI-GGUF. What does
not need it is in test_base_layouts.py.
"""

from __future__ import annotations

import os
import shutil
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from safetensors.torch import load_file
from weight_layouts import write_gguf

PACK = os.environ.get("COMFYUI_GGUF", "")
SECONDS = 1
# Decibels between two videos of the small trained model. Measured over five chunks: Q8_0 39.8, Q4_K 33.6.
LEAST = {"Q8_0": 34.0, "Q4_K": 27.0}

pytestmark = pytest.mark.skipif(not PACK, reason="$COMFYUI_GGUF names no copy of the GGUF loader pack")


@pytest.fixture
def server(new_server, models_dir: Path, samples: Path, tmp_path: Path) -> Any:
    """A server with that pack, the trained model as GGUF, and a voice of one second."""
    base = tmp_path / "base0"
    shutil.copytree(PACK, base / "custom_nodes" / "ComfyUI-GGUF", ignore=shutil.ignore_patterns(".git"))
    diffusion_models = base / "models" / "diffusion_models"
    shutil.copytree(models_dir / "diffusion_models", diffusion_models)
    for folder in models_dir.iterdir():
        if folder.name != diffusion_models.name:
            (base / "models" / folder.name).symlink_to(folder, target_is_directory=True)
    weights = load_file(diffusion_models / "small_wan2.1_i2v.safetensors")
    for kind in LEAST:
        write_gguf(diffusion_models / f"{kind}.gguf", {k: v.float().numpy() for k, v in weights.items()}, kind)
    running = new_server()
    with wave.open(str(samples / "voice.wav")) as voice, wave.open(str(base / "input" / "short.wav"), "wb") as short:
        short.setparams(voice.getparams())
        short.writeframes(voice.readframes(SECONDS * voice.getframerate()))
    return running


def frames(server: Any, workflow: dict[str, Any]) -> np.ndarray:
    result = server.run(workflow, timeout=300)
    assert result.status == "success", result.error
    (file,) = [f for f in result.files() if f["filename"].endswith(".mp4")]
    with av.open(str(server.path_of(file))) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(np.float32)


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one - other) ** 2)))


def test_a_gguf_model_gives_nearly_the_same_video(server, trained):
    workflow = trained("talking_portrait")
    for node in workflow.values():
        if node["class_type"] == "LoadAudio":
            node["inputs"]["audio"] = "short.wav"
    plain = frames(server, workflow)
    assert len(plain) == 25 * SECONDS
    (loader,) = [node for node in workflow.values() if node["class_type"] == "UNETLoader"]
    loader["class_type"] = "UnetLoaderGGUF"
    for kind, least in LEAST.items():
        loader["inputs"] = {"unet_name": f"{kind}.gguf"}
        assert decibels(frames(server, workflow), plain) > least, kind

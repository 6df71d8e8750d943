"""The launcher of the demo and test servers: no PyTorch before ComfyUI's main.py, and the VAE's type by the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tools import run_comfyui

REPO = Path(__file__).resolve().parents[2]
START = "import sys; sys.path.insert(0, 'tools'); import run_comfyui; print(run_comfyui.make_torchvision_importable())"


@pytest.mark.parametrize("platform", ["cuda", "hip", "xpu"])
def test_a_pytorch_for_gpus_is_not_imported(tmp_path: Path, platform: str) -> None:
    """On an H200 with PyTorch 2.11, the server otherwise ended at its first use of the GPU."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('PyTorch was imported')")
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.11.0'\n{platform}: str = '13.0'\n")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    found = subprocess.run(
        [sys.executable, "-c", START],
        cwd=REPO,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout.strip()) == (0, "False"), found.stderr


ABLE = {"_is_avx512_bf16_supported": True, "_is_amx_tile_supported": False}
AMX = {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": True}
UNABLE = {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": False}
OLD_PYTORCH = dict.fromkeys(UNABLE)  # without the questions


@pytest.mark.parametrize(
    ("cpu", "arguments", "want"),
    [
        (ABLE, ["--port", "1", "--cpu"], ["--port", "1", "--cpu", "--bf16-vae"]),
        (AMX, ["--cpu"], ["--cpu", "--bf16-vae"]),
        (UNABLE, ["--cpu"], ["--cpu"]),
        (OLD_PYTORCH, ["--cpu"], ["--cpu"]),
        (ABLE, ["--port", "1"], ["--port", "1"]),  # a GPU chooses for itself
        (ABLE, ["--cpu", "--fp32-vae"], ["--cpu", "--fp32-vae"]),
        (ABLE, ["--cpu", "--bf16-vae"], ["--cpu", "--bf16-vae"]),
    ],
)
def test_the_type_of_the_vae(monkeypatch, cpu, arguments, want):
    for name, answer in cpu.items():
        if answer is None:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    assert run_comfyui.with_vae_type(arguments) == want

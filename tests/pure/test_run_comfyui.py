"""ComfyUI is started without importing PyTorch before its main.py, which chooses the GPU's allocator first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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

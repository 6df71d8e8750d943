"""Options shared by all tests, and what must happen before any of them is imported."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=Path(__file__).parent / "golden" / "data",
        help="folder of golden cases (<case>.json + <case>.safetensors); every size is read from the JSON",
    )


def pytest_configure() -> None:
    """transformers imports torchvision, which on a machine without a GPU may not fit the CPU-only PyTorch.

    In ComfyUI's own process tools/run_comfyui.py does the same.
    """
    from tools.run_comfyui import cure_torchvision

    cure_torchvision()

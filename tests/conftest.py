"""Options shared by all tests, and what must happen before any of them is imported."""

import os
from collections.abc import Iterator
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
    """One thread, as in the README's command: a test that forks would wait for ever for the threads of its parent.

    transformers imports torchvision, which on a machine without a GPU may not fit the CPU-only PyTorch; in ComfyUI's
    own process tools/run_comfyui.py does the same.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tools.run_comfyui import make_torchvision_importable

    make_torchvision_importable()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: for results that must not depend on the machine, and small work that threads slow down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

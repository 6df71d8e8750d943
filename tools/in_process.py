"""Run ComfyUI inside this Python process, for tests and benchmarks that need more than its API.

Call `enter_comfyui` before anything imports `comfy`. The repository must not be on sys.path, since both it and ComfyUI
have a top-level `nodes`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from run_comfyui import make_torchvision_importable

REPO = Path(__file__).resolve().parent.parent
PACK_MODULE = "infinitetalk_pack"


def comfyui_folder() -> Path:
    """Return $COMFYUI_DIR, or the host that tools/host.py prepares; it may not exist."""
    return Path(os.environ.get("COMFYUI_DIR") or REPO / ".demo" / "comfyui").expanduser().resolve()


def enter_comfyui(comfyui: Path, cpu: bool = True) -> None:
    """Make `import comfy` work as in ComfyUI's own main.py."""
    tools = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() not in (REPO, tools)]
    sys.path.insert(0, str(comfyui))
    sys.path.append(str(tools))
    make_torchvision_importable()
    # As main.py does: ComfyUI's nodes.py puts comfy/ on the path, whose utils.py would hide this package.
    importlib.import_module("utils.extra_config")
    # The device is chosen when comfy.model_management is imported.
    importlib.import_module("comfy.cli_args").args.cpu = cpu
    if not cpu:  # the allocator of the GPU, which is chosen when PyTorch is imported
        importlib.import_module("cuda_malloc")


def load_pack() -> ModuleType:
    """Import the pack like ComfyUI imports a folder of custom nodes."""
    spec = importlib.util.spec_from_file_location(
        PACK_MODULE, REPO / "__init__.py", submodule_search_locations=[str(REPO)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no pack in {REPO}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK_MODULE] = module
    # training/ and evaluation/ import the engine by this name, since the repository is not on sys.path.
    sys.modules["infinitetalk_core"] = importlib.import_module(f"{PACK_MODULE}.infinitetalk_core")
    spec.loader.exec_module(module)
    return module

"""Versions and devices that compute a video; with other ones the result may differ in its last bits."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import comfy.model_management
import comfyui_version
import torch
from comfy.cli_args import args

from .attention import attention_modules, attention_name
from .patchers import Patcher

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
# Raised where a change of the pack between its versions gives videos other bits.
METHOD = 2


def versions(model: Patcher | None = None) -> dict[str, Any]:
    """Return the versions of the programs that compute, and their device. model: add the versions of its attention."""
    import transformers  # on first use, since it takes long

    project = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    device = comfy.model_management.get_torch_device()
    return {
        "pack": found[1] if found else None,
        "method": METHOD,
        "comfyui": comfyui_version.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "av": {"pyav": av.__version__, **{k: list(v) for k, v in av.library_versions.items()}},
        "device": comfy.model_management.get_torch_device_name(device),
        **({"cudnn": torch.backends.cudnn.version(), "driver": driver_version()} if device.type == "cuda" else {}),
        **({} if model is None else attention_versions(model)),
    }


def attention_versions(model: Patcher) -> dict[str, Any]:
    """Return what runs the attention of `model`, with the versions of the packages that it comes from."""
    return {"attention": attention_name(model), "attention_packages": package_versions(attention_modules(model))}


def package_versions(modules: Iterable[str]) -> dict[str, str]:
    """Return the versions of the installed packages that these modules come from."""
    modules = tuple(modules)
    if not modules:  # listing all installed packages is slow
        return {}
    installed = importlib.metadata.packages_distributions()
    names = sorted({name for module in modules for name in installed.get(module, ())})
    return {name: importlib.metadata.version(name) for name in names}


def driver_version() -> str | None:
    """Return the NVIDIA driver's version; where the system does not report it, the newest CUDA that it supports."""
    try:
        found = re.search(r"\d{3,}\.\d[\d.]*", NVIDIA_DRIVER.read_text(encoding="ascii", errors="replace"))
    except OSError:
        found = None
    if found:
        return found[0]
    supported = getattr(torch._C, "_cuda_getDriverVersion", None)
    return None if supported is None else f"CUDA {supported()}"


def precision(model: Any, vae: Any) -> dict[str, Any]:
    """Return the dtypes in which a MODEL and a VAE store and compute, the VAE's device, and the `--fast` options.

    They are not in the graph: `--fp32-unet`, `--bf16-vae`, `--cpu-vae`, `--fast` and free memory decide them. The
    compute dtype is that of this MODEL, loaded or not: ComfyUI writes another node's choice to it only at loading.
    """
    return {
        "model": [str(model.model.get_dtype()), str(model.get_model_object("manual_cast_dtype"))],
        "vae": [str(vae.vae_dtype), str(vae.device)],
        "fast": sorted(feature.value for feature in args.fast),
    }

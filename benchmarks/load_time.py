"""Measure the load time of InfiniteTalk weights in every layout, from a cold and from a warm page cache.

    COMFYUI_DIR=… .venv/bin/python benchmarks/load_time.py [--layers 4 --folder /tmp] [--layouts fp16 Q4_K]

Writes a file of the released width (dim 5120; each layer has 86 million weights, the released file has 40 layers) with
random numbers, loads it through the loader's own code, and deletes it. Three cases: cold (the kernel is asked to drop
the file from the page cache), warm, and refusal of a wrong file, for which only the header is read. A load reads and
hashes every byte of the file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from comparison import AUDIO_WIDTH
from in_process import comfyui_folder, enter_comfyui, load_pack

LAYOUTS = ("fp16", "fp8", "fp8 scaled", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0")


def writer(layout: str) -> Callable:
    """Return the function (path, weights) that writes the layout."""
    import torch
    from weight_layouts import write_gguf, write_plain, write_scaled_new

    if layout == "fp8 scaled":
        return write_scaled_new
    plain = {"fp16": torch.float16, "fp8": torch.float8_e4m3fn}
    return partial(write_plain, dtype=plain[layout]) if layout in plain else partial(write_gguf, kind=layout)


def weights(pack: str, layers: int) -> dict:
    """Return random weights of the released width, without most of the audio projection.

    The audio projection exists once, whatever the number of layers, and would dominate the size of a file with few
    layers.
    """
    import numpy as np
    import torch

    audio = import_module(f"{pack}.infinitetalk_core.model.audio_adapter")
    config = audio.AdapterConfig(5120, 40, layers, audio_width=AUDIO_WIDTH // 12)
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in audio.AudioAdapter(config).state_dict().items()}
    random = np.random.default_rng(0)
    # One block of random numbers, repeated: drawing hundreds of millions takes longer than all other work.
    drawn = (random.standard_normal(1 << 22) * 0.02).astype(np.float32)
    return {name: np.resize(drawn, shape) for name, shape in shapes.items()}


def drop_from_cache(path: Path) -> None:
    """Ask the kernel to drop the file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load(path: Path, pack: str):
    """Return the adapter, loaded like the Model Loader does."""
    open_file = import_module(f"{pack}.infinitetalk_core.checkpoints.loaders").open_infinitetalk
    audio = import_module(f"{pack}.infinitetalk_core.model.audio_adapter")
    load_strictly = import_module(f"{pack}.nodes.host.model.patchers").load_strictly
    file = open_file(path)
    config = audio.AdapterConfig.from_shapes(file.shapes, 40)
    return load_strictly(partial(audio.AudioAdapter, config, device="meta"), file.read().tensors, path.name)


def timed(path: Path, pack: str, cold: bool) -> float:
    """Return the time to load the model, in seconds."""
    if cold:
        drop_from_cache(path)
    start = time.perf_counter()
    load(path, pack)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="40 in the released file")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="a folder on the disk to measure"
    )
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    enter_comfyui(comfyui_folder())
    pack = load_pack().__name__
    open_file = import_module(f"{pack}.infinitetalk_core.checkpoints.loaders").open_infinitetalk
    made = weights(pack, options.layers)
    print("| layout | file | header only | cold | warm | cold rate |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for layout in options.layouts:
            path = Path(folder) / "weights"
            writer(layout)(path, made)
            size = path.stat().st_size
            timed(path, pack, cold=False)  # imports modules before the measurement
            cold = median(timed(path, pack, cold=True) for _ in range(options.rounds))
            warm = median(timed(path, pack, cold=False) for _ in range(options.rounds))
            drop_from_cache(path)
            start = time.perf_counter()
            open_file(path)
            header = time.perf_counter() - start
            path.unlink()
            print(
                f"| {layout} | {size / 1e6:.0f} MB | {header * 1e3:.0f} ms | {cold:.2f} s | {warm:.2f} s "
                f"| {size / cold / 1e6:.0f} MB/s |",
                flush=True,
            )


if __name__ == "__main__":
    main()

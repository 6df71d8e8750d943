"""Shared parts of gpu_report.py's sections: the report that is written row by row, timing, memory, smaller cards."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

GIB = 2**30
# CUDA's context and libraries, which a process takes beside its tensors.
CONTEXT_BYTES = int(0.6 * GIB)
FINISHED = "finished"
FAILED = "failed"


@dataclass
class Rows:
    """A report that is complete after every row: JSON lines, which `gpu_report.py` turns into tables."""

    path: Path
    section: str = ""

    def add(self, **columns: Any) -> None:
        """Write one row of the section's table."""
        self._write({"section": self.section, "row": columns})

    def note(self, text: str) -> None:
        """Write a sentence under the section's table."""
        self._write({"section": self.section, "note": text})

    def outcome(self, section: str, outcome: str, seconds: float, reason: str = "") -> None:
        """Write how a section ended."""
        self._write({"section": section, "outcome": outcome, "seconds": round(seconds, 1), "reason": reason})

    def _write(self, entry: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)


@dataclass(frozen=True)
class Bench:
    """What a section works with.

    pack: the name that the pack is imported by. small: sizes for a dry run. simulated: on a GPU that computes nothing.
    """

    rows: Rows
    pack: str
    small: bool
    simulated: bool = False
    state: dict[str, Any] = field(default_factory=dict)

    def module(self, name: str) -> ModuleType:
        """Import a module of the pack."""
        return import_module(f"{self.pack}.{name}")

    def of(self, real: Any, small: Any) -> Any:
        """Return the value for a report or for a dry run."""
        return small if self.small else real

    def fill(self, module: Any) -> None:
        """Give a module random weights; a simulated GPU never looks at them."""
        if not self.simulated:
            random_weights(module)

    def timed(self, run: Callable[[], Any], rounds: int = 3, inner: int = 1) -> float:
        """Return the median seconds of a call, after one to warm up. inner: calls in one measurement."""

        def several() -> None:
            for _ in range(inner):
                run()

        if self.small:
            return synchronized_seconds(run)
        run()
        return median(synchronized_seconds(several) for _ in range(rounds)) / inner


def synchronized_seconds(run: Callable[[], Any]) -> float:
    """Return the wall time of a call with all the work that it starts on the GPU."""
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the most GPU memory that `run` takes beyond what is allocated before."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@contextlib.contextmanager
def card_of(gib: float | None) -> Iterator[None]:
    """Make the GPU one of `gib` GiB, for PyTorch's allocator and for what ComfyUI asks for; None changes nothing."""
    import comfy.model_management
    import torch

    if gib is None:
        yield
        return
    total = int(gib * GIB)
    comfy.model_management.unload_all_models()
    torch.cuda.empty_cache()
    real_info, real_total = torch.cuda.mem_get_info, torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (total - CONTEXT_BYTES) / real_total))

    def info(*args: Any) -> tuple[int, int]:
        return max(0, total - CONTEXT_BYTES - torch.cuda.memory_reserved()), total

    torch.cuda.mem_get_info = info
    try:
        yield
    finally:
        torch.cuda.mem_get_info = real_info
        torch.cuda.set_per_process_memory_fraction(1.0)
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()


def random_weights(module: Any) -> None:
    """Fill a module with random weights that keep the size of what passes through; norms are 1.

    Tensors of one shape and type get the same numbers, which takes little time.
    """
    import torch

    made: dict[tuple[Any, ...], Any] = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.dtype.is_floating_point:
            continue
        if ("norm" in name and tensor.ndim == 1) or name.endswith("gamma"):
            tensor.fill_(0 if name.endswith("bias") else 1)
            continue
        key = (tuple(tensor.shape), tensor.dtype)
        if key not in made:
            inputs = tensor[0].numel() if tensor.ndim > 1 else tensor.numel()
            made[key] = (torch.randn(tensor.shape, device=tensor.device) * inputs**-0.5).to(tensor.dtype)
        tensor.copy_(made[key])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_text(row.get(name, "")) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value).replace("|", "/").replace("\n", " ")

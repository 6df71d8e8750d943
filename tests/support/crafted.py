"""A crafted weights file, and the way to write most of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.support.weight_files import with_tensors

Write = Callable[[Path], Path]
DEEP = 100_000


@dataclass(frozen=True)
class Crafted:
    """A crafted file. kind: the loader that it is given to; write: writes it into a folder and returns its path.

    reads: whether it is right, so that the loader must read it; None: it may be read or refused.
    """

    name: str
    kind: str
    write: Write
    reads: bool | None = False


def crafted(
    name: str, kind: str, content: Callable[[], bytes] | bytes, reads: bool | None = False, ending: str = ".safetensors"
) -> Crafted:
    """Return a file of these bytes."""

    def write(folder: Path) -> Path:
        path = folder / f"crafted{ending}"
        path.write_bytes(content() if callable(content) else content)
        return path

    return Crafted(name, kind, write, reads)


def changed(
    what: str, kind: str, name: str, value: Callable[[torch.Tensor], torch.Tensor], reads: bool = False
) -> Crafted:
    """Return a right file, but for one tensor."""
    return crafted(
        f"{kind}, {name} {what}", kind, lambda: with_tensors(kind, lambda t: t.update({name: value(t[name])})), reads
    )


def without(kind: str, name: str) -> Crafted:
    """Return a right file that lacks a tensor."""
    return crafted(f"{kind} without {name}", kind, lambda: with_tensors(kind, lambda t: t.pop(name)))


def with_more(kind: str, name: str, value: torch.Tensor | None = None, reads: bool | None = False) -> Crafted:
    """Return a right file with one more tensor."""
    more = torch.zeros(2) if value is None else value
    shown = name if value is None else f"{name} {tuple(more.shape)} {more.dtype} {more.flatten()[:1].tolist()}"
    return crafted(f"{kind} and {shown}", kind, lambda: with_tensors(kind, lambda t: t.update({name: more})), reads)


def set_one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that puts a number into the middle of a tensor."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        found = tensor.clone().flatten()
        found[len(found) // 2] = value
        return found.view_as(tensor)

    return change


def cast(dtype: torch.dtype, value: float | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that casts a tensor and puts a number into its middle."""
    return lambda tensor: (tensor if value is None else set_one(value)(tensor)).to(dtype)


def special(what: str, kind: str, make: Callable[[Path], Any], name: str = "crafted.safetensors") -> Crafted:
    """Return what `make` puts at the path."""

    def write(folder: Path) -> Path:
        make(folder / name)
        return folder / name

    return Crafted(f"{what}, for {kind}", kind, write)

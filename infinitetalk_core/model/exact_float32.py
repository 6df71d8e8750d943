"""Float32 that a GPU really computes in float32, for the parts that promise it.

PyTorch lets cuDNN round the inputs of float32 convolutions to TF32 (10 bits of mantissa) unless told otherwise, and
other nodes may allow the same for matrix products. The switches belong to the process and come in two styles. Both are
set, so that code that reads either finds a valid state: PyTorch raises an error where the two contradict each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import backends

from ..log import log

IEEE = "ieee"


@dataclass(frozen=True)
class Switch:
    """A setting of PyTorch. exact: its value for exact float32."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    exact: Any


def _attribute(owner: Any, name: str, exact: Any) -> Switch:
    return Switch(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), exact)


def switches() -> list[Switch]:
    """Return the switches that this PyTorch has, in the order in which they are written.

    First the older ones, since writing them resets the newer ones (`fp32_precision`, PyTorch 2.9).
    """
    owners: list[Any] = [getattr(backends.cudnn, name, None) for name in ("conv", "rnn")]
    owners += [getattr(backends.mkldnn, name, None) for name in ("conv", "matmul")]
    owners += [backends.cuda.matmul]
    return [
        _attribute(backends.cudnn, "allow_tf32", False),
        Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        # cuDNN's fastest algorithm is found by measuring, so the next run may take another one.
        _attribute(backends.cudnn, "benchmark", False),
        *(_attribute(owner, "fp32_precision", IEEE) for owner in owners if hasattr(owner, "fp32_precision")),
    ]


class _Window:
    """The part of the process's time in which float32 is exact: from the first thread that enters to the last.

    Threads share it, since a thread that restored the switches for itself would take them from the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Switch, Any]] = []

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = _read(switches())
                for switch, _ in self._before:
                    switch.write(switch.exact)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for switch, value in self._before:
                    switch.write(value)
                self._before = []


def _read(found: list[Switch]) -> list[tuple[Switch, Any]]:
    """Return the switches with their values, without those that cannot be read.

    Where other code has used one style only, PyTorch refuses to read the other one. Such a switch is left alone.
    """
    readable = []
    for switch in found:
        try:
            readable.append((switch, switch.read()))
        except RuntimeError as error:
            log.debug("a precision setting of PyTorch is left alone: %s", error)
    return readable


_window = _Window()  # of the process, as the switches are


@contextmanager
def exact_float32() -> Iterator[None]:
    """Return a context, or a decorator, in which float32 is computed as such; afterwards all is as it was before."""
    _window.enter()
    try:
        yield
    finally:
        _window.leave()

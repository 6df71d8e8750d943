"""The share of the weights that was on the GPU while a chunk was made, noted in its record.

A host that streams weights from RAM may compute with others there: ComfyUI adds a LoRA to a weight in RAM in 16 bits,
and rounds one on the GPU to the weight's 8 bits. So chunks are equal to the bit only where all weights, or the same
ones, were on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

ENTRY = "weights"  # in the metrics of a chunk
ALL = "all"  # the layers of a model that is on the GPU as a whole


@dataclass(frozen=True)
class WeightsOnGpu:
    """One model while a chunk was made.

    model: its class; bytes, on_gpu: of all its weights, and of those on the GPU; layers: which these are, a short hash
    of their names or `ALL`.
    """

    model: str
    bytes: int
    on_gpu: int
    layers: str

    def to_json(self) -> dict[str, Any]:
        """Return it as an entry of a chunk's metrics."""
        return asdict(self)


@runtime_checkable
class NotesWeights(Protocol):
    """A backend that notes where the weights were."""

    def weights_of(self, chunk: int) -> Sequence[WeightsOnGpu]:
        """Return the models of the last denoising of a chunk (from 0); empty if it had none."""


def weights_entry(models: object, chunk: int) -> dict[str, Any]:
    """Return the entry of a chunk's metrics; none where the backend notes nothing."""
    noted = models.weights_of(chunk) if isinstance(models, NotesWeights) else ()
    return {ENTRY: [model.to_json() for model in noted]} if noted else {}


class WeightsCheck:
    """Warns once in an execution whose chunks are made with other weights on the GPU than those from before."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn: Callable[[str], None] | None = warn
        self._stored: dict[str, float] = {}  # share of the weights by the layers of all models
        self._made: dict[str, float] = {}

    def joined(self, metrics: Mapping[str, Any]) -> None:
        """Note a chunk from before. metrics: its record, which is not trusted."""
        self._note(self._stored, metrics)

    def made(self, metrics: Mapping[str, Any]) -> None:
        """Note a chunk of this execution."""
        self._note(self._made, metrics)

    def _note(self, where: dict[str, float], metrics: Mapping[str, Any]) -> None:
        noted = _read(metrics)
        if noted is None or self._warn is None:
            return
        layers, share = noted
        where[layers] = share
        new = [share for layers, share in self._made.items() if layers not in self._stored]
        if new and self._stored:
            warn, self._warn = self._warn, None
            then = next(iter(self._stored.values()))
            warn(
                f"the chunks from before were made with {then:.0%} of the weights on the GPU and those of now with "
                f"{new[0]:.0%} (or with others of them), so they may differ slightly, mostly with a LoRA on fp8 "
                "weights; for chunks that are alike to the bit, run with as much free GPU memory as then"
            )


def _read(metrics: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the layers of all models and their share of the bytes; None for a record that does not say it."""
    try:
        noted = [WeightsOnGpu(**entry) for entry in metrics[ENTRY]]
        total = sum(model.bytes for model in noted)
        return repr([(model.model, model.layers) for model in noted]), sum(model.on_gpu for model in noted) / total
    except (KeyError, TypeError, ArithmeticError):
        return None

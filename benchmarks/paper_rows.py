"""Store rows on disk, and compute their means, spread and paired differences."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student


@dataclass(frozen=True)
class Row:
    """The result of one run."""

    experiment: str
    condition: str
    setting: str  # the condition in full (Condition.to_json)
    seed: int
    models: str  # fingerprint
    seconds: float
    numbers: dict[str, float | None]
    curves: dict[str, list[float]]

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Return what identifies the row."""
        return self.experiment, self.setting, self.seed, self.models


@dataclass(frozen=True)
class Spread:
    """Statistics of several values."""

    mean: float
    deviation: float  # sample standard deviation, 0 for a single value
    interval: float  # half of the 95 % interval of the mean (Student's t), infinite for a single value
    lowest: float
    highest: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Return mean and spread of at least one value."""
    n = len(values)
    deviation = stdev(values) if n > 1 else 0.0
    interval = float(student.ppf(0.975, n - 1)) * deviation / math.sqrt(n) if n > 1 else math.inf
    return Spread(fmean(values), deviation, interval, min(values), max(values), n)


def values_of(rows: Iterable[Row], condition: str, number: str) -> dict[int, float]:
    """Return the values of a number by seed, where it was measured."""
    return {
        row.seed: value for row in rows if row.condition == condition and (value := row.numbers.get(number)) is not None
    }


def paired(rows: Sequence[Row], number: str, condition: str, reference: str) -> Spread | None:
    """Return the statistics of `condition` minus `reference` on the seeds that both have; None if there are none."""
    own, other = (values_of(rows, name, number) for name in (condition, reference))
    differences = [own[seed] - other[seed] for seed in own if seed in other]
    return spread(differences) if differences else None


def append_row(folder: Path, row: Row) -> None:
    """Append a row to the experiment's file."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {k: None if v is None else round(v, 5) for k, v in row.numbers.items()}
    curves = {k: [round(v, 4) for v in values] for k, values in row.curves.items()}
    line = json.dumps({**asdict(row), "seconds": round(row.seconds, 2), "numbers": rounded, "curves": curves})
    with (folder / f"{row.experiment}.jsonl").open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":  # an earlier run was killed while writing
                file.write(b"\n")
        file.write(line.encode() + b"\n")


def read_rows(folder: Path, experiment: str, models: str | None = None) -> list[Row]:
    """Return the rows of an experiment with these models (None: those of the last row).

    Skips a line that is incomplete because the writer was killed.
    """
    file = folder / f"{experiment}.jsonl"
    rows: list[Row] = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            rows.append(Row(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    models = rows[-1].models if models is None and rows else models
    return [row for row in rows if row.models == models]

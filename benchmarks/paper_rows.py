"""Rows on disk, and what they say together: means, spread, paired differences."""

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
    """One run."""

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
        """What makes it the row it is."""
        return self.experiment, self.setting, self.seed, self.models


@dataclass(frozen=True)
class Spread:
    """Several values of a number."""

    mean: float
    deviation: float  # sample standard deviation, 0 of a single value
    interval: float  # half of the 95 % interval of the mean (Student's t), infinite of a single value
    lowest: float
    highest: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of at least one value."""
    n = len(values)
    deviation = stdev(values) if n > 1 else 0.0
    interval = float(student.ppf(0.975, n - 1)) * deviation / math.sqrt(n) if n > 1 else math.inf
    return Spread(fmean(values), deviation, interval, min(values), max(values), n)


def values_of(rows: Iterable[Row], condition: str, number: str) -> dict[int, float]:
    """By seed, where it could be measured."""
    return {
        row.seed: value for row in rows if row.condition == condition and (value := row.numbers.get(number)) is not None
    }


def paired(rows: Sequence[Row], number: str, condition: str, reference: str) -> Spread | None:
    """`condition` minus `reference` on the seeds that both have; None where there are none."""
    own, other = (values_of(rows, name, number) for name in (condition, reference))
    differences = [own[seed] - other[seed] for seed in own if seed in other]
    return spread(differences) if differences else None


def append_row(folder: Path, row: Row) -> None:
    """Add a line to the experiment's file."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {k: None if v is None else round(v, 5) for k, v in row.numbers.items()}
    curves = {k: [round(v, 4) for v in values] for k, values in row.curves.items()}
    line = json.dumps({**asdict(row), "seconds": round(row.seconds, 2), "numbers": rounded, "curves": curves})
    with (folder / f"{row.experiment}.jsonl").open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":  # an earlier run was killed while it wrote
                file.write(b"\n")
        file.write(line.encode() + b"\n")


def read_rows(folder: Path, experiment: str, models: str | None = None) -> list[Row]:
    """The rows of an experiment with these models (None: those of the last row), without a line that a kill cut off."""
    file = folder / f"{experiment}.jsonl"
    rows: list[Row] = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            rows.append(Row(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    models = rows[-1].models if models is None and rows else models
    return [row for row in rows if row.models == models]

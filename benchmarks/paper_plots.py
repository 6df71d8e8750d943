"""Plot the rows as small PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from .paper_rows import Row, spread, values_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DPI = 80
Rows = Sequence[Row]


def draw_plots(found: dict[str, list[Row]], folder: Path) -> dict[str, Path]:
    """Draw every plot whose rows exist; return title → file."""
    plots = {
        "Drift over a long video, each strategy trained": ("drift", _drift, "policies"),
        "Drift over a long video, the shipped model": ("drift_shipped", _drift, "shipped"),
        "Lip sync against what is copied": ("strategies", _strategies, "policies"),
        "Camera": ("camera", _camera, "camera"),
        "Audio guidance": ("guidance", _guidance, "guidance"),
        "Context frames": ("context", _context, "context"),
        "Steps": ("steps", _steps, "steps"),
    }
    written = {}
    for title, (name, draw, experiment) in plots.items():
        rows = found.get(experiment, [])
        if rows:
            folder.mkdir(parents=True, exist_ok=True)
            figure = draw(rows)
            figure.tight_layout()
            figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
            plt.close(figure)
            written[title] = folder / f"{name}.png"
    return written


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row.condition for row in rows))


def _drift(rows: Rows) -> Any:
    """Plot color of the worst region and of all, and background, by chunk; the band is one standard deviation."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.4))
    for panel, curve in zip(panels, ("worst_color", "overall_color", "background"), strict=True):
        for name in _names(rows):
            curves = [row.curves[curve] for row in rows if row.condition == name and curve in row.curves]
            if curves:
                shortest = min(map(len, curves))
                values = np.array([c[:shortest] for c in curves])
                mean, deviation, at = values.mean(axis=0), values.std(axis=0), np.arange(1, shortest + 1)
                (line,) = panel.plot(at, mean, label=name)
                panel.fill_between(at, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.12, lw=0)
        panel.set(title=curve, xlabel="chunk", ylabel="distance to the source, Lab", ylim=(0, None))
    panels[0].legend(fontsize=7)
    return figure


def _strategies(rows: Rows) -> Any:
    """Plot bars of sync (should be high) and of the copying numbers (should be low)."""
    numbers = {
        "sync": "sync",
        "mouth_copied": "source's mouth",
        "pose_copied": "pose copied",
        "pose_own_time": "at own time",
    }
    figure, panel = plt.subplots(figsize=(8, 3.4))
    names = _names(rows)
    width = 0.8 / len(numbers)
    for bar, (number, label) in enumerate(numbers.items()):
        at, means, errors = [], [], []
        for index, name in enumerate(names):
            values = list(values_of(rows, name, number).values())
            if values:
                at.append(index + (bar - (len(numbers) - 1) / 2) * width)
                means.append(spread(values).mean)
                errors.append(spread(values).deviation)
        panel.bar(at, means, width, yerr=errors, label=label, error_kw={"lw": 0.8})
    panel.set_xticks(range(len(names)), names)
    panel.axhline(0, color="black", lw=0.6)
    panel.set_ylim(top=1.1)
    panel.legend(fontsize=7, ncols=len(numbers))
    return figure


def _line(panel: Any, rows: Rows, number: str, places: dict[str, float], label: str) -> None:
    """Plot a number over the conditions at `places`, with standard deviations."""
    names = [name for name in places if values_of(rows, name, number)]
    found = [spread(list(values_of(rows, name, number).values())) for name in names]
    panel.errorbar(
        [places[name] for name in names], [s.mean for s in found], [s.deviation for s in found], marker="o", ms=4,
        capsize=2, label=label,
    )  # fmt: skip


def _numbered(rows: Rows, start: str = "") -> dict[str, float]:
    """Return the conditions whose names are `start` and a number, with that number."""
    places = {}
    for name in _names(rows):
        rest = name.removeprefix(start)
        if name.startswith(start) and rest.replace(".", "", 1).isdigit():
            places[name] = float(rest)
    return places


def _camera(rows: Rows) -> Any:
    """Plot over SDEdit's strength; no SDEdit is at 1. Uni3C is a horizontal line."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.2))
    places = {**_numbered(rows, "SDEdit "), "none": 1.0}
    shown = {"camera_shift": "camera error, % of width", "background_difference": "background, of 255", "sync": "sync"}
    for panel, (number, label) in zip(panels, shown.items(), strict=True):
        _line(panel, rows, number, dict(sorted(places.items(), key=lambda p: p[1])), "SDEdit")
        values = list(values_of(rows, "Uni3C", number).values())
        if values:
            panel.axhline(spread(values).mean, color="tab:red", ls="--", label="Uni3C")
        panel.set(xlabel="SDEdit strength (1: off)", ylabel=label)
    panels[0].legend(fontsize=7)
    return figure


def _guidance(rows: Rows) -> Any:
    figure, panel = plt.subplots(figsize=(5, 3.2))
    _line(panel, rows, "sync", _numbered(rows, "audio "), "sync")
    panel.set(xlabel="audio scale", ylabel="sync")
    return figure


def _context(rows: Rows) -> Any:
    figure, panel = plt.subplots(figsize=(5, 3.2))
    _line(panel, rows, "seam", _numbered(rows), "mean")
    _line(panel, rows, "seam_worst", _numbered(rows), "worst")
    panel.axhline(1, color="black", lw=0.6)
    panel.set(xlabel="context frames", ylabel="seam (1: as smooth as inside)")
    panel.legend(fontsize=7)
    return figure


def _steps(rows: Rows) -> Any:
    figure, panel = plt.subplots(figsize=(5, 3.2))
    _line(panel, rows, "sync", _numbered(rows), "sync")
    _line(panel, rows, "sharpness", _numbered(rows), "sharpness")
    panel.set(xlabel="steps", xscale="log")
    panel.legend(fontsize=7)
    return figure

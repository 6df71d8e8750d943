"""Plot the loss curves of training logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the lines of a training log.

    Skips a line that a crash cut short, and lines of steps that were repeated after a resume.
    """
    lines: dict[float, dict[str, float]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        lines[line["step"]] = line
    return [lines[step] for step in sorted(lines)]


def draw_curves(logs: Mapping[str, Path], picture: Path) -> None:
    """Write `picture` (PNG): one panel for each log that exists, with every number of its lines over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {title: read_log(path) for title, path in logs.items() if path.exists()}
    figure, panels = plt.subplots(1, max(len(found), 1), figsize=(4.5 * max(len(found), 1), 3.2), squeeze=False)
    for panel, (title, lines) in zip(panels[0], found.items(), strict=False):
        names = [n for n in lines[0] if n == "loss" or n == "psnr"] if lines else []
        for name, axis in zip(names, (panel, panel.twinx() if len(names) > 1 else panel), strict=False):
            axis.plot([line["step"] for line in lines], [line[name] for line in lines], label=name)
            axis.set_ylabel(name)
        panel.set(title=title, xlabel="step", yscale="log")
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    plt.close(figure)

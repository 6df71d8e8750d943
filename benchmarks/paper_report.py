"""Write the rows as Markdown tables between two marks of a page, with plots beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .paper_conditions import Condition, Experiment
from .paper_plots import draw_plots
from .paper_rows import Row, Spread, paired, read_rows, spread, values_of

BEGIN = "<!-- paper.py: what is between these marks is written by benchmarks/paper.py -->"
END = "<!-- paper.py: end -->"

# Number of a row → heading, decimals.
NUMBERS = {
    "sync": ("sync", 2),
    "sync_sound": ("sync with loudness", 2),
    "best": ("sync at best lag", 2),
    "lag": ("lag, frames", 1),
    "shuffled": ("another voice", 2),
    "mouth_copied": ("source's mouth", 2),
    "pose_own_time": ("pose at own time", 2),
    "pose_copied": ("pose copied", 2),
    "worst_color_mean": ("color of the worst region, CIEDE2000", 2),
    "worst_color_end": ("the same at the end", 2),
    "worst_color_slope": ("the same a chunk", 3),
    "overall_color_slope": ("color of all regions a chunk", 3),
    "background_end": ("background at end, Lab", 2),
    "background_slope": ("background a chunk", 3),
    "background_difference": ("background, of 255", 1),
    "seam": ("seam", 2),
    "seam_worst": ("worst seam", 2),
    "seam_latent": ("seam among latents", 2),
    "sharpness": ("sharpness", 2),
    "motion": ("motion, of 255", 2),
    "camera_shift": ("camera shift, % of width", 2),
    "camera_scale": ("camera scale, %", 2),
    "psnr": ("PSNR, dB", 1),
}
LOWEST = ("sync", "psnr")  # numbers whose worst value is also printed


def write_report(experiments: Sequence[Experiment], rows_folder: Path, page: Path) -> list[Path]:
    """Write the tables into `page` (between the marks, or at its end) and plots beside it; return the written files."""
    found = {e.name: current(e, read_rows(rows_folder, e.name)) for e in experiments}
    plots = draw_plots(found, page.parent / "plots")
    sections = [headline(found), *(section(e, found[e.name]) for e in experiments if found[e.name])]
    sections += [f"![{title}]({path.relative_to(page.parent).as_posix()})" for title, path in plots.items()]
    block = f"{BEGIN}\n\n" + "\n\n".join(part for part in sections if part) + f"\n\n{END}"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(put_between(page.read_text() if page.is_file() else "", block))
    return [page, *plots.values()]


def put_between(text: str, block: str) -> str:
    """Replace the text between the marks by `block`; append it if there are no marks."""
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        return f"{text.rstrip()}\n\n{block}\n".lstrip()
    return text[:begin] + block + text[end + len(END) :]


def current(experiment: Experiment, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the experiment's current settings, and those of recordings, which only a run knows."""
    settings = {condition.to_json() for condition in experiment.conditions}
    return [row for row in rows if row.setting in settings or "recording" in row.condition]


def section(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Return a table of means ± standard deviations, and one of the differences to the reference condition."""
    columns = [name for name in experiment.columns if any(row.numbers.get(name) is not None for row in rows)]
    names = list(dict.fromkeys([c.name for c in experiment.conditions] + [row.condition for row in rows]))
    names = [name for name in names if any(row.condition == name for row in rows)]
    seeds = sorted({row.seed for row in rows})
    length = _length(experiment.conditions)
    lines = [
        f"### {experiment.title}",
        f"{len(seeds)} unseen characters and voices, {length}. Mean ± standard deviation.",
    ]
    table = [_row("", [NUMBERS[column][0] for column in columns]), _rule(len(columns))]
    for name in names:
        table.append(_row(name, [_cell(column, values_of(rows, name, column)) for column in columns]))
    lines.append("\n".join(table))
    if experiment.reference in names and len(names) > 1:
        lines += _differences(experiment, rows, names, columns)
    return "\n\n".join(lines)


def _length(conditions: Sequence[Condition]) -> str:
    seconds = sorted({round(condition.frames / 25, 1) for condition in conditions})
    spans = f"{seconds[0]:g} s" if len(seconds) == 1 else f"{seconds[0]:g} to {seconds[-1]:g} s"
    return f"videos of {spans}"


def _differences(
    experiment: Experiment, rows: Sequence[Row], names: Sequence[str], columns: Sequence[str]
) -> list[str]:
    reference = experiment.reference
    table = [_row("", [NUMBERS[column][0] for column in columns]), _rule(len(columns))]
    for name in names:
        if name != reference:
            differences = [paired(rows, column, name, reference) for column in columns]
            cells = [_difference(column, found) for column, found in zip(columns, differences, strict=True)]
            table.append(_row(f"{name} − {reference}", cells))
    text = f"Difference to {reference} on the same characters, with half its 95 % interval; bold where that excludes 0."
    return [text, "\n".join(table)]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * (columns + 1)


def number_text(value: float, places: int, sign: str = "") -> str:
    """Format a number with `places` decimals; no minus before a zero."""
    return f"{round(value, places) + 0.0:{sign}.{places}f}"


def _cell(number: str, values: dict[int, float]) -> str:
    if not values:
        return "–"
    places = NUMBERS[number][1]
    found = spread(list(values.values()))
    if number == "lag":
        worst = max(abs(found.lowest), abs(found.highest))
        return f"{number_text(found.mean, 1)} (worst {worst:.0f})"
    mean = number_text(found.mean, places)
    if found.count == 1:
        return mean
    lowest = f" (worst {number_text(found.lowest, places)})" if number in LOWEST else ""
    return f"{mean} ± {number_text(found.deviation, places)}{lowest}"


def _difference(number: str, found: Spread | None) -> str:
    if found is None:
        return "–"
    places = NUMBERS[number][1]
    mean = number_text(found.mean, places, "+")
    if math.isinf(found.interval):
        return mean
    text = f"{mean} ± {number_text(found.interval, places)}"
    return f"**{text}**" if abs(found.mean) > found.interval else text


def headline(found: dict[str, list[Row]]) -> str:
    """Return the table of targets and measured values."""
    lines = [*_speaking(found.get("voices", [])), *_codec(found.get("codec", []))]
    for name, what in (("policies", "each trained with its strategy"), ("shipped", "the shipped model")):
        lines += _drift(found.get(name, []), what)
    table = [_row("target", ["measured", "met"]), _rule(2), *lines]
    return "### Targets\n\n" + "\n".join(table) if lines else ""


def _target(text: str, measured: str, met: bool) -> str:
    return _row(text, [measured, "yes" if met else "**no**"])


def _speaking(rows: Sequence[Row]) -> list[str]:
    lines = []
    for name in ("video, espeak-ng", "picture, espeak-ng"):
        values, lags, others, seams, among = (
            list(values_of(rows, name, number).values())
            for number in ("sync", "lag", "shuffled", "seam", "seam_latent")
        )
        if not values:
            continue
        sync, late, other, seam = spread(values), max(map(abs, lags)), spread(others), spread(seams)
        measured = f"{sync.mean:.2f} ± {sync.interval:.2f}, worst {sync.lowest:.2f} of {sync.count}"
        lines += [
            _target(f"sync ≥ 0.85, worst ≥ 0.7 ({name})", measured, sync.mean >= 0.85 and sync.lowest >= 0.7),
            _target(f"lag at most 1 frame ({name})", f"worst {late:.0f}", late <= 1),
            _target(
                f"another voice below 0.2 ({name})", f"{other.mean:.2f}, worst {other.highest:.2f}", other.mean < 0.2
            ),
            _target(
                f"seam ≤ 1.5 ({name})",
                f"{seam.mean:.2f} ± {seam.deviation:.2f}; among steps between latent frames {spread(among).mean:.2f}",
                seam.mean <= 1.5,
            ),
        ]
    return lines


def _codec(rows: Sequence[Row]) -> list[str]:
    values = list(values_of(rows, "VAE", "psnr").values())
    if not values:
        return []
    found = spread(values)
    return [_target("VAE ≥ 28 dB", f"{found.mean:.1f} dB, worst {found.lowest:.1f} of {found.count}", found.mean >= 28)]


def _drift(rows: Sequence[Row], what: str) -> list[str]:
    lines = []
    for number, text in (("worst_color_end", "at the end"), ("worst_color_slope", "a chunk")):
        values = [list(values_of(rows, name, number).values()) for name in ("M3", "I2V")]
        if all(values):
            own, other = (spread(v).mean for v in values)
            measured = f"{number_text(own, 3)} against {number_text(other, 3)} Lab"
            if other > 0:
                measured += f": {number_text(own / other, 2)} of I2V's"
            lines.append(_target(f"color drift {text}: M3 ≤ 1/3 of I2V ({what})", measured, own <= other / 3))
    return lines

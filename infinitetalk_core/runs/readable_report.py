"""The report of a run for people: what became of the video, in one line, and the quality of its chunks as a table.

Both are made from the report's JSON, whose numbers chunks/metrics.py defines.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..file_access import is_own_file, read_regular
from ..log import log
from ..progress import describe_length, describe_seconds
from ..rate import FRAMES_PER_SECOND
from ..wording import counted
from .disk import Disk

SUFFIX = ".report.txt"
MOST_NAMED = 20  # chunks in a line
MOST_BYTES = 10_000_000  # of a report that is replaced; 10,000 chunks take 1 MB
Chunks = Sequence[Mapping[str, Any]]


def largest(chunks: Chunks, name: str) -> float | None:
    """Return the largest value of a metric; None if no chunk has it."""
    return max((found for chunk in chunks if (found := _number(chunk.get(name))) is not None), default=None)


def quality_in_words(chunks: Chunks) -> str:
    """Return the two numbers that tell most, for example `largest join 1.2, color drift 0.3`; empty without them."""
    found = (("largest join", largest(chunks, "seam")), ("color drift", largest(chunks, "color_drift")))
    return ", ".join(f"{name} {value:.1f}" for name, value in found if value is not None)


def frames_of(chunks: Chunks) -> int:
    """Return the number of frames that the chunks of a report have."""
    return sum(int(_number(chunk.get("frames")) or 0) for chunk in chunks)


def done_in_words(report: Mapping[str, Any], seconds: float, made: int) -> str:
    """Return for example `Done: 4.92 s in 2 min 11 s, 5 chunks, largest join 1.2, color drift 0.3`.

    report: of the video; seconds: that this execution took; made: number of chunks that it made.
    """
    chunks: Chunks = report.get("chunks", [])
    before = len(chunks) - made
    what = counted(len(chunks), "chunk") + (f" ({before} there from before)" if before else "")
    if report.get("first_chunk_only"):
        what = f"1 of {counted(report.get('chunks_planned', 1), 'chunk')}"
    words = f"{describe_length(frames_of(chunks))} in {describe_seconds(seconds)}, {what}"
    words = ", ".join(part for part in (words, quality_in_words(chunks)) if part)
    if report.get("first_chunk_only"):
        return f"First chunk only: {words}. Switch first_chunk_only off and press Run to go on"
    return f"Done: {words}"


def existed_in_words(whole: bool) -> str:
    """Return what a node says whose video was finished before. whole: not the first chunk only."""
    if whole:
        return "Already made; change the seed or switch start_over on"
    return "The first chunk is already made; switch first_chunk_only off and press Run to go on"


def stopped_in_words(kept: int, chunks: int, by_error: bool) -> str:
    """Return for example `Stopped. 1 of 5 chunks kept; press Run to go on`.

    kept: number of finished chunks; chunks: of the whole video; by_error: whether it was no interrupt by the user.
    """
    begun = "Stopped by an error." if by_error else "Stopped."
    if not kept:
        return f"{begun} No chunk was finished yet; press Run to begin again"
    return f"{begun} {kept} of {counted(chunks, 'chunk')} kept; press Run to go on"


def write_readable_report(disk: Disk, video: Path, report: Mapping[str, Any]) -> None:
    """Write the report of `video` as text beside it, unless somebody has put another file there."""
    path = video.with_suffix(SUFFIX)
    if (path.exists() or path.is_symlink()) and not _is_own(path, report):
        log.warning("%s is another program's, so the quality of this video is only in its .json file", path)
        return
    disk.write(path, readable_report(report, video.name).encode())


def readable_report(report: Mapping[str, Any], video: str) -> str:
    """Return the report as plain text with one table. video: the name of the file."""
    chunks: Chunks = report.get("chunks", [])
    columns = [column for column in COLUMNS if any(column.cell(chunk) != ABSENT for chunk in chunks)]
    lines = [video, "", *_what_it_is(report, chunks), ""]
    if columns:
        lines += [*_table(columns, chunks), "", *_faults(columns, chunks), ""]
        meanings = (f"{column.title}: {column.meaning}" for column in columns if column.meaning)
        lines += [*(textwrap.fill(meaning, 100, subsequent_indent="  ") for meaning in meanings), ""]
    reasons = {chunk["lips_absent"]: None for chunk in chunks if chunk.get("lips_absent")}
    lines += [f"Lips were not measured: {reason}." for reason in reasons]
    return "\n".join([*lines, _owner(report)]) + "\n"


ABSENT = "-"


class _Column:
    """A column of the table. of: from a chunk's entry to the number, or None; worst: picks from all of them."""

    def __init__(
        self,
        title: str,
        name: str,
        style: str,
        meaning: str = "",
        worst: Callable[[Sequence[float]], float] | None = None,
        visible: float | None = None,
    ) -> None:
        """visible: from this value on, in the direction of `worst`, a fault begins to be seen (docs/numbers.md)."""
        self.title, self.name, self.style, self.meaning = title, name, style, meaning
        self.worst, self.visible = worst, visible

    def cell(self, chunk: Mapping[str, Any]) -> str:
        """Return the text for one chunk."""
        value = chunk.get(self.name)
        if isinstance(value, list):  # frames of the source
            return ", ".join(self.style.format(frame / FRAMES_PER_SECOND) for frame in value) or ABSENT
        found = _number(value)
        return ABSENT if found is None else self.style.format(found)

    def is_visible(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a chunk has a fault of this kind that can be seen."""
        value = _number(chunk.get(self.name))
        if value is None or self.visible is None or self.worst is None:
            return False
        return value >= self.visible if self.worst is max else value < self.visible

    def summary(self, chunks: Chunks) -> str:
        """Return the text for all chunks."""
        found = [value for chunk in chunks if (value := _number(chunk.get(self.name))) is not None]
        return self.style.format(self.worst(found)) if self.worst and found else ""


COLUMNS = (
    _Column("Chunk", "chunk", "{:.0f}"),
    _Column("Begins at", "seconds", "{:.2f} s"),
    _Column(
        "Join",
        "seam",
        "{:.2f}",
        "the step from the chunk before, in steps between frames inside the chunk. About 1 is smooth; from 2 on it may "
        "be seen. Absent where a shot begins.",
        max,
        2.0,
    ),
    _Column(
        "Color drift",
        "color_drift",
        "{:.1f}",
        "how far the color of the most changed part of the picture is from the source's. From 2 on it is just "
        "visible; 10 is another color.",
        max,
        2.0,
    ),
    _Column("Drift of all", "color_drift_mean", "{:.1f}", "the same for the whole picture on average.", max, 1.5),
    _Column("Sharpness", "sharpness", "{:.2f}", "1 is as sharp as the source; below 0.5 is visibly softer.", min, 0.5),
    _Column(
        "Outside mask",
        "outside_drift",
        "{:.1f}",
        "difference to the source outside the mask of the Pinned Region, from 0 to 255. 0 is untouched.",
        max,
        1.5,
    ),
    _Column(
        "Lip sync",
        "lip_sync",
        "{:.2f}",
        "how well the mouth follows the voice. 0.3 to 0.65 is good; 0.2 is chance.",
        min,
        0.25,
    ),
    _Column("Lips late", "lip_lag", "{:.0f}", "frames of 1/25 s by which the mouth is late."),
    _Column("Looks at", "reference_frames", "{:.2f} s", "the time of the source that is the chunk's reference."),
    _Column("Made in", "seconds_taken", "{:.0f} s"),
)


def _what_it_is(report: Mapping[str, Any], chunks: Chunks) -> list[str]:
    """Return the lines above the table."""
    size = f" of {report['width']} x {report['height']}" if "width" in report and "height" in report else ""
    video = f"{describe_length(frames_of(chunks))}{size}, {counted(len(chunks), 'chunk')}"
    if report.get("first_chunk_only"):
        state = f"First chunk only, of {counted(report.get('chunks_planned', 1), 'chunk')}"
    else:
        state = "Finished" if report.get("complete") else "Not finished; press Run to go on"
    lines = [f"{state}: {video}."]
    names = ("steps", "steps"), ("text_scale", "text scale"), ("audio_scale", "audio scale"), ("shift", "shift")
    settings = report.get("settings", {})
    known = [f"{words} {settings[name]:g}" for name, words in names if _number(settings.get(name)) is not None]
    known += [f"seed {report['seed']}"] if "seed" in report else []
    known += [f"reference {report['policy']}"] if "policy" in report else []
    if known:
        lines.append(f"Made with {', '.join(known)}.")
    if report.get("continued_at_chunk"):
        lines.append(f"Went on at chunk {report['continued_at_chunk']}.")
    return lines


def _faults(columns: Sequence[_Column], chunks: Chunks) -> list[str]:
    """Return a line for each kind of fault that can be seen, with its chunks; or that there is none."""
    lines = []
    for column in columns:
        found = [str(chunk.get("chunk", "?")) for chunk in chunks if column.is_visible(chunk)]
        if found:
            more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            chunk = "chunk" if len(found) == 1 else "chunks"
            lines.append(f"Look at {chunk} {', '.join(found[:MOST_NAMED])}{more}: {column.title.lower()}.")
    return lines or ["No number is so large that it should be seen."]


def _table(columns: Sequence[_Column], chunks: Chunks) -> list[str]:
    """Return the lines of the table, each column as wide as its longest cell, numbers to the right."""
    rows = [[column.title for column in columns], *([column.cell(chunk) for column in columns] for chunk in chunks)]
    if len(chunks) > 1:
        rows.append(["Worst", *(column.summary(chunks) for column in columns[1:])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "  ".join("-" * width for width in widths)
    return [lines[0], rule, *lines[1 : len(chunks) + 1], *([rule, lines[-1]] if len(chunks) > 1 else [])]


def _owner(report: Mapping[str, Any]) -> str:
    """Return the last line of a report, which says whose it is."""
    return f"Run: {report.get('run', '')}"


def _is_own(path: Path, report: Mapping[str, Any]) -> bool:
    """Return whether a file is the report of the same run."""
    data = read_regular(path, MOST_BYTES) if is_own_file(path) else None
    return data is not None and data.decode(errors="replace").rstrip().endswith(_owner(report))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

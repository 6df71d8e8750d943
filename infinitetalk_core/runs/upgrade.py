"""Unfinished runs of the same job that were begun with other versions of programs, and so are not gone on with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..fingerprint import ABSENT, differences
from .store import MANIFEST, read_manifest, read_records

# What of a run's description is no wish of the user's.
SURROUNDINGS = ("versions.", "precision.")
# What other versions may change without the user: the last bits of encoded texts.
TEXTS = ("job.components.positive.", "job.components.negative.")
MOST_NAMED = 4
MINUTE_SECONDS = 60.0


@dataclass(frozen=True)
class OtherVersion:
    """A run that could be gone on with, were the programs still the same.

    changes: what was, and what is now, by path (`versions.torch`); other_text: whether its prompt differs, which the
    versions may have changed or the user; seconds: of work in its finished chunks.
    """

    folder: Path
    changes: Mapping[str, tuple[Any, Any]]
    other_text: bool
    chunks: int
    seconds: float

    def __str__(self) -> str:
        named = [
            f"{path.partition('.')[2]} was {_short(before)} and is now {_short(now)}"
            for path, (before, now) in list(self.changes.items())[:MOST_NAMED]
        ]
        more = len(self.changes) - len(named)
        rest = f" and {more} more" if more else ""
        text = ", or one with another prompt," if self.other_text else ""
        work = f"{self.seconds / MINUTE_SECONDS:.0f} minutes" if self.seconds >= MINUTE_SECONDS else "under a minute"
        return (
            f"this job{text} was begun before, but since then {'; '.join(named)}{rest}. Chunks of both would not be "
            f"one video to the bit, so it begins anew: {self.chunks} finished chunks ({work} of work) in "
            f"{self.folder.name} are not used. To go on with them, go back to what was; to be rid of them, use "
            "Unfinished Runs"
        )


def begun_with_other_versions(runs: Path, made_of: Mapping[str, Any]) -> OtherVersion | None:
    """Of the unfinished runs in the folder `runs` the one with most work in it that differs from `made_of` in versions
    and precision, and in nothing else but what these may change; None if there is none with a finished chunk."""
    found = []
    for manifest in runs.glob(f"*/{MANIFEST}"):
        if b'"unfinished"' not in _content(manifest):  # spares the reading of many large ones
            continue
        notes = read_manifest(manifest.parent)
        if notes.get("state") != "unfinished" or not isinstance(notes.get("made_of"), dict):
            continue
        changes = {path: (before, now) for path, before, now in differences(notes["made_of"], made_of)}
        programs = {path: change for path, change in changes.items() if path.startswith(SURROUNDINGS)}
        # Another version may know more settings than the one before, and fewer.
        beside = [path for path, change in changes.items() if path not in programs and ABSENT not in change]
        if programs and all(path.startswith(TEXTS) for path in beside):
            records = read_records(manifest.parent)
            seconds = sum(float(numbers.get("seconds_taken", 0)) for numbers in records)
            found.append(OtherVersion(manifest.parent, programs, bool(beside), len(records), seconds))
    return max((run for run in found if run.chunks), key=lambda run: run.seconds, default=None)


def _content(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _short(value: Any) -> str:
    return "not there" if value is ABSENT else str(value)[:60]

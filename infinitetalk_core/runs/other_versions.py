"""Search for unfinished runs of the same job that cannot be resumed because they used other program versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..file_access import MOST_JSON_BYTES, read_regular
from ..fingerprint import ABSENT, differences
from .manifest import MANIFEST, read_manifest
from .store import read_records

# Paths in a run's description that the machine decides, not the user.
ENVIRONMENT_PATHS = ("versions.", "precision.")
# Paths that other versions may change without the user: encoded texts may differ in the last bits.
PROMPT_PATHS = ("job.components.positive.", "job.components.negative.")
MOST_NAMED = 4
MINUTE_SECONDS = 60.0


@dataclass(frozen=True)
class OtherVersion:
    """A run that could be resumed if the programs were still the same.

    changes: (value then, value now) by path such as `versions.torch`; other_text: whether the encoded prompt differs,
    because of the versions or the user; chunks: finished ones; seconds: of work in them.
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


def begun_with_other_versions(runs: Path, key_contents: Mapping[str, Any]) -> OtherVersion | None:
    """Return the unfinished run in `runs` with the most work that differs only in versions, precision and what these
    may change; None if no such run has a finished chunk. key_contents: see `OutputSpec`."""
    found = []
    for manifest in runs.glob(f"*/{MANIFEST}"):
        # A cheap check that avoids parsing many large files.
        if b'"unfinished"' not in (read_regular(manifest, MOST_JSON_BYTES) or b""):
            continue
        notes = read_manifest(manifest.parent)
        if notes.get("state") != "unfinished" or not isinstance(notes.get("key_contents"), dict):
            continue
        changes = {path: (before, now) for path, before, now in differences(notes["key_contents"], key_contents)}
        programs = {path: change for path, change in changes.items() if path.startswith(ENVIRONMENT_PATHS)}
        # Settings that only one of the two versions knows are ignored.
        others = [path for path, change in changes.items() if path not in programs and ABSENT not in change]
        if programs and all(path.startswith(PROMPT_PATHS) for path in others):
            records = read_records(manifest.parent)
            taken = (metrics.get("seconds_taken", 0) for metrics in records)
            seconds = sum(float(value) for value in taken if isinstance(value, (int, float)))
            found.append(OtherVersion(manifest.parent, programs, bool(others), len(records), seconds))
    return max((run for run in found if run.chunks), key=lambda run: run.seconds, default=None)


def _short(value: Any) -> str:
    return "not there" if value is ABSENT else str(value)[:60]

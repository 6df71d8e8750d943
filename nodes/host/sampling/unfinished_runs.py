"""Lists and removes unfinished runs in ComfyUI's output folder."""

from __future__ import annotations

from ....infinitetalk_core.log import log
from ....infinitetalk_core.runs.unfinished_runs import describe_unfinished_runs, remove, unfinished_runs
from ..media.audio import feature_cache
from ..media.video import RUNS_FOLDER, output_folder


def log_unfinished_runs() -> None:
    """Log the disk space of unfinished runs, if there are any."""
    found = unfinished_runs(output_folder() / RUNS_FOLDER)
    if found:
        log.info(
            "%s; running the same job again goes on with one, the Unfinished Runs node removes old ones",
            describe_unfinished_runs(found),
        )


def list_and_remove(older_than_days: float, removing: bool) -> str:
    """Return a report on the unfinished runs, one line each.

    With `removing`, removes those older than `older_than_days` that no process holds, and the cached features of voices
    unused for as long.
    """
    found = unfinished_runs(output_folder() / RUNS_FOLDER)
    lines = [describe_unfinished_runs(found)]
    for run in found:
        old = run.days >= older_than_days
        removed = removing and old and remove(run, older_than_days)
        what = "removed" if removed else "in use" if removing and old else "old" if old else "kept"
        lines.append(f"{run} ({what})")
    if taken := feature_cache().remove_older(older_than_days if removing else float("inf")):
        lines.append(f"features of long voices: {taken / 1e9:.2f} GB in output/{RUNS_FOLDER}/voices")
    text = "\n".join(lines)
    log.info("%s", text)
    return text

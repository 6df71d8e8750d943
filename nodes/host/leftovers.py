"""Unfinished runs in ComfyUI's output folder."""

from __future__ import annotations

import logging

from ...infinitetalk_core.runs.leftovers import leftovers, remove, say_leftovers
from .audio import kept_voices
from .video import RUNS_FOLDER, output_folder

log = logging.getLogger("infinitetalk")


def note_leftovers() -> None:
    """Say in the log what unfinished runs take, if there are any."""
    found = leftovers(output_folder() / RUNS_FOLDER)
    if found:
        log.info(
            "InfiniteTalk: %s; running the same job again goes on with one, the Unfinished Runs node removes old ones",
            say_leftovers(found),
        )


def list_and_remove(older_than_days: float, removing: bool) -> str:
    """What unfinished runs there are, a line each; with `removing`, those that are old and that nobody holds go,
    and the features of voices that nobody has needed for so long."""
    found = leftovers(output_folder() / RUNS_FOLDER)
    lines = [say_leftovers(found)]
    for run in found:
        old = run.days >= older_than_days
        gone = removing and old and remove(run, older_than_days)
        what = "removed" if gone else "in use" if removing and old else "old" if old else "kept"
        lines.append(f"{run} ({what})")
    if taken := kept_voices().remove_older(older_than_days if removing else float("inf")):
        lines.append(f"features of long voices: {taken / 1e9:.2f} GB in output/{RUNS_FOLDER}/voices")
    text = "\n".join(lines)
    log.info("InfiniteTalk: %s", text)
    return text

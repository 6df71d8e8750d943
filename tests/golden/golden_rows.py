"""Which rows of a set of golden cases are a test each: a set may have other rows than this repository's."""

from __future__ import annotations

from collections.abc import Callable


def streams_of(run: dict) -> int:
    """How many predictions of a step the reference's step cache counts to, whatever the guidance."""
    return len({call["stream"] for call in run["calls"]})


def calls_in_step(run: dict) -> int:
    """Predictions that the reference made in each step of a run of the case `teacache`."""
    return len(run["calls"]) // run["steps"]


# Arguments of tests that take a row of a case's JSON each: the case, and its rows by name.
ROWS: dict[str, tuple[str, Callable[[dict], dict[str, object]]]] = {
    "variant": ("sampler", lambda config: {row["name"]: row for row in config["variants"]}),
    "run": ("teacache", lambda config: {row["name"]: row for row in config["runs"]}),
    "run_of_all_streams": (
        "teacache",
        lambda config: {row["name"]: row for row in config["runs"] if calls_in_step(row) == streams_of(row)},
    ),
}

"""Write the rows of docs/inputs.md from the tests that try inputs one by one."""

from __future__ import annotations

import os
from pathlib import Path

TABLE = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"


def record_inputs(inputs: str, where: str, read: int, answered: int) -> None:
    """Add the row of a test in which nothing crashed, hung or was silent; only if INFINITETALK_INPUT_TABLE is set."""
    if not os.environ.get("INFINITETALK_INPUT_TABLE"):
        return
    import fcntl  # two suites run in parallel

    with TABLE.open("a+", encoding="utf-8") as table:
        fcntl.flock(table, fcntl.LOCK_EX)
        table.seek(0)
        lines = [line for line in table.read().splitlines() if not line.startswith(f"| {inputs} | `{where}` |")]
        lines.append(f"| {inputs} | `{where}` | {read + answered} | {read} | {answered} | 0 |")
        table.truncate(0)
        table.write("\n".join(lines) + "\n")

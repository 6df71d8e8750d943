"""Write docs/faults.md from the tests that inject the faults."""

from __future__ import annotations

import os
from pathlib import Path

TABLE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
HEAD = """# What can go wrong

Written by the tests that inject the faults (`tests/host/test_faults.py` and `test_dub_folder.py` with a real ComfyUI
server; in the engine `test_runs.py`, `test_group_runs.py`, `test_untrusted_runs.py` and `test_lip_tries.py` of
`tests/pure`). A test adds its row when it passes. To rewrite the table, with 20 kills instead of 3:
`INFINITETALK_FAULT_TABLE=1 INFINITETALK_KILLS=20 python3 tools/test.py`.

These servers run on a CPU. On a GPU the same bits are promised where all weights are on it: where part of them waits in
RAM, free memory decides which, and the run says it where they are others than before.

| Fault | When | Result after Run |
| --- | --- | --- |
"""


def record_fault_result(fault: str, when: str, outcome: str) -> None:
    """Add a row for a passed fault test; only if INFINITETALK_FAULT_TABLE is set."""
    if not os.environ.get("INFINITETALK_FAULT_TABLE"):
        return
    import fcntl  # the fault tests run on Linux only

    with TABLE.open("a+", encoding="utf-8") as table:
        fcntl.flock(table, fcntl.LOCK_EX)  # two suites run in parallel
        table.seek(0)
        rows = {line for line in table.read().splitlines() if line.startswith("| ") and line not in HEAD}
        rows = {row for row in rows if not row.startswith(f"| {fault} | {when.split(',')[0]}")}
        rows.add(f"| {fault} | {when} | {outcome} |")
        table.truncate(0)
        table.write(HEAD + "".join(f"{row}\n" for row in sorted(rows)))

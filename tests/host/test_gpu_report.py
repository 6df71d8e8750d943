"""benchmarks/gpu_report.py, whole, on a GPU that computes nothing: no mistake of its waits for a lent card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import gpu_report  # noqa: E402

NOTED_ONLY = {"demo", "compiled"}  # sections that a dry run cannot make


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a dry run of all sections writes."""
    folder = tmp_path_factory.mktemp("report")
    command = [sys.executable, str(BENCHMARKS / "gpu_report.py"), "--dry-run", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "GPU.md").read_text().startswith("# Measured on a GPU: NVIDIA Simulated")
    return [json.loads(line) for line in (folder / gpu_report.ROWS).read_text().splitlines()]


@pytest.mark.parametrize("section", gpu_report.SECTIONS)
def test_each_section_finishes(entries: list[dict[str, Any]], section: str) -> None:
    own = [entry for entry in entries if entry["section"] == section]
    assert [entry["outcome"] for entry in own if "outcome" in entry] == ["finished"], own
    assert any("note" in entry if section in NOTED_ONLY else "row" in entry for entry in own)
    assert not [row for entry in own if (row := entry.get("row")) and "failed" in json.dumps(row)]


def test_sections_that_are_not_measured_again_stay(tmp_path: Path) -> None:
    rows = tmp_path / "gpu.jsonl"
    written = [{"section": name, "row": {"value": 1}} for name in ("ceilings", "kernels")]
    rows.write_text("".join(json.dumps(entry) + "\n" for entry in written))
    gpu_report._keep_others(rows, ["kernels"])
    assert gpu_report._entries(rows) == written[:1]


def test_a_report_after_a_stop_is_complete_so_far(tmp_path: Path) -> None:
    rows = tmp_path / "gpu.jsonl"
    row = {"section": "kernels", "row": {"keys": 32, "kernel": "SageAttention", "error": 0.374}}
    rows.write_text(json.dumps(row) + "\n" + json.dumps(row)[:20])
    gpu_report.write_report(rows, tmp_path / "GPU.md")
    assert "| 32 | SageAttention | 0.374 |" in (tmp_path / "GPU.md").read_text()

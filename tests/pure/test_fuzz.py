"""Short runs of `tools/fuzz.py`: nothing crashes, hangs, takes gigabytes, or is answered in Python's words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.support.fuzz_outcome import outcome_of
from tools import fuzz

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("kind", "count"), [("runs", 30), ("media", 80), ("weights", 60)])
def test_damaged_inputs_are_read_or_answered_in_a_sentence(kind, count):
    command = [sys.executable, str(ROOT / "tools" / "fuzz.py"), kind, "--count", str(count), "--seed", "13"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {kind} | 13 | {count} |" in done.stdout


def crash(random: Random, folder: Path) -> tuple[str, str, str]:
    os.abort()


def hang(random: Random, folder: Path) -> tuple[str, str, str]:
    time.sleep(60)
    return "", "read", ""


def grow(random: Random, folder: Path) -> tuple[str, str, str]:
    kept = bytearray(os.urandom(1 << 20) * 400)
    time.sleep(60)
    return str(len(kept)), "read", ""


def divide(random: Random, folder: Path) -> tuple[str, str, str]:
    return "a number", *outcome_of(lambda: str(1 / 0))


@pytest.mark.skipif(sys.platform == "win32", reason="the tools run on Linux and macOS")
@pytest.mark.parametrize(
    ("attempt", "outcome"), [(crash, "crashed"), (hang, "hung"), (grow, "memory"), (divide, "python")]
)
def test_the_command_sees_each_fault(monkeypatch, attempt, outcome):
    monkeypatch.setattr(fuzz, "SECONDS", 8.0)
    monkeypatch.setattr(fuzz, "GIGABYTES", 0.3)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tools import fuzz; from tests.pure import test_fuzz\n"
        f"fuzz.attempt_of = lambda kind: test_fuzz.{attempt.__name__}; fuzz.work('runs', 1)"
    )
    worker = fuzz.Worker("runs", 1)
    worker._command = [sys.executable, "-c", code]
    try:
        assert worker.attempt(0).outcome == outcome
    finally:
        worker.stop()

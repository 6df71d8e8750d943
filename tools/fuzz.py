"""Feed the pack with damaged and odd inputs at random, and count what came of each.

    python3 tools/fuzz.py runs|media|weights [--seed 1] [--count 300] [--table docs/inputs.md]

Each input is made from the seed and its number, so any of them can be made again: `--first 17 --count 1`. Inputs are
tried in a process of its own, which is started anew when it dies or takes too long. Outcomes:

    read       taken, with the right result
    answered   refused with a sentence of the pack
    python     refused in Python's words
    silent     taken, with a wrong result
    crashed    the process died
    hung       no answer within the time limit
    memory     the process grew by more than the memory limit

Ends with status 1 if anything but `read` and `answered` occurred.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tools.run_comfyui import make_torchvision_importable  # noqa: E402

KINDS = {
    "runs": "tests.support.fuzz_runs",
    "media": "tests.support.fuzz_media",
    "weights": "tests.support.fuzz_weights",
}
GOOD = ("read", "answered")
OUTCOMES = (*GOOD, "python", "silent", "crashed", "hung", "memory")
# Bounds of an input: time, and memory beyond what the process has at its start.
SECONDS, GIGABYTES = 30.0, 2.0
START_SECONDS = 120.0
# Attempt: (random, folder) -> (what was tried, outcome, the sentence or "").
Attempt = Callable[[random.Random, Path], tuple[str, str, str]]


@dataclass(frozen=True)
class Result:
    """What came of one input."""

    number: int
    tried: str
    outcome: str
    text: str
    seconds: float


def attempt_of(kind: str) -> Attempt:
    """Return the function that makes and tries one input of a kind."""
    found: Attempt = importlib.import_module(KINDS[kind]).attempt
    return found


def work(kind: str, seed: int) -> None:
    """Try the inputs whose numbers come in, one a line, and print a line of JSON for each."""
    make_torchvision_importable()
    attempt = attempt_of(kind)
    print("ready", flush=True)
    for line in sys.stdin:
        number = int(line)
        with tempfile.TemporaryDirectory() as folder:
            tried, outcome, text = attempt(random.Random(f"{seed} {number}"), Path(folder))
        print(json.dumps([tried, outcome, text[:500]]), flush=True)


class Worker:
    """A process that tries inputs of one kind, started again where it ended."""

    def __init__(self, kind: str, seed: int) -> None:
        self._command = [sys.executable, __file__, kind, "--seed", str(seed), "--worker"]
        self._process: subprocess.Popen[str] | None = None

    def attempt(self, number: int) -> Result:
        """Try input `number`."""
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        began = time.monotonic()
        tried, outcome, text = self._wait(process, began)
        return Result(number, tried, outcome, text, time.monotonic() - began)

    def _wait(self, process: subprocess.Popen[str], began: float) -> tuple[str, str, str]:
        """Return what the process says of an input, or why it was ended."""
        watched = psutil.Process(process.pid)
        while time.monotonic() - began < SECONDS:
            with contextlib.suppress(Empty):
                line = self._lines.get(timeout=0.02)
                if not line:
                    return self._end("crashed", f"exit code {process.wait()}")
                tried, outcome, text = json.loads(line)
                return tried, outcome, text
            with contextlib.suppress(psutil.Error):
                if (used := _own_bytes(watched)) > self._at_rest + GIGABYTES * 1e9:
                    return self._end("memory", f"{used / 1e9:.1f} GB")
        return self._end("hung", f"{SECONDS:.0f} s")

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
            self._lines: Queue[str] = Queue()
            threading.Thread(target=self._collect, args=(self._process, self._lines), daemon=True).start()
            if self._lines.get(timeout=START_SECONDS) != "ready\n":
                raise SystemExit(f"the worker did not start: {' '.join(self._command)}")
            self._at_rest = _own_bytes(psutil.Process(self._process.pid))
        return self._process

    @staticmethod
    def _collect(process: subprocess.Popen[str], lines: Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")  # it ended: whoever waits for its start need not wait longer

    def _end(self, outcome: str, text: str) -> tuple[str, str, str]:
        self.stop()
        return "?", outcome, text

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _own_bytes(process: psutil.Process) -> int:
    """Return the memory of a process, without files that it maps."""
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def run(kind: str, seed: int, first: int, count: int) -> list[Result]:
    """Try `count` inputs of a kind, and print those that went wrong."""
    worker = Worker(kind, seed)
    results = []
    try:
        for number in range(first, first + count):
            results.append(worker.attempt(number))
            if results[-1].outcome not in GOOD:
                print(json.dumps(vars(results[-1]), ensure_ascii=False), flush=True)
    finally:
        worker.stop()
    return results


def row(kind: str, seed: int, results: list[Result]) -> str:
    """Return the table row of these results."""
    found = Counter(result.outcome for result in results)
    slowest = max(result.seconds for result in results)
    cells = [kind, str(seed), str(len(results)), *(str(found[outcome]) for outcome in OUTCOMES), f"{slowest:.0f} s"]
    return f"| {' | '.join(cells)} |"


HEAD = f"| inputs | seed | tried | {' | '.join(OUTCOMES)} | slowest |\n|{' --- |' * (len(OUTCOMES) + 4)}"


def write_row(path: Path, kind: str, line: str) -> None:
    """Replace the row of `kind` in the table of a page."""
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(HEAD)
    rows = {r.split("|")[1].strip(): r for r in rest.split("\n\n")[0].strip().splitlines()} | {kind: line}
    after = rest.split("\n\n", 1)[1] if "\n\n" in rest else ""
    ordered = [rows[name] for name in KINDS if name in rows]
    path.write_text(f"{head}{HEAD}\n" + "\n".join(ordered) + ("\n\n" + after if after else "\n"), encoding="utf-8")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.kind, asked.seed)
        return
    results = run(asked.kind, asked.seed, asked.first, asked.count)
    line = row(asked.kind, asked.seed, results)
    print(f"{HEAD}\n{line}")
    if asked.table:
        write_row(asked.table, asked.kind, line)
    if any(result.outcome not in GOOD for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()

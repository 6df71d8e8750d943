"""Run all checks and tests on a machine without any preparation.

    python3 tools/test.py

Creates an environment and a ComfyUI (tools/host.py), then runs ruff, mypy, the tests of the core, and the tests inside
and against ComfyUI, two suites in parallel. The output of a suite is printed when it ends, and can be read before in
.test-output/. Prints one line of totals at the end; the exit status is 0 only if all tests passed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import host

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# One thread per process: the tensors are small, and several processes share few cores.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PACKAGE = "infinitetalk_pack"
CHECKS = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy",),
    "mypy of nodes": ("mypy", "--config-file", str(host.REPO / "pyproject.toml"), "-p", f"{PACKAGE}.nodes"),
}
# pytest's arguments; started in this order, the longest first.
IN_COMFYUI = ("-c", "tests/host/pytest.ini", "tests/host", "--servers")
SUITES = {
    "tests against ComfyUI servers": (*IN_COMFYUI, "only"),
    "tests in ComfyUI's process": (*IN_COMFYUI, "none"),
    "tests of the core": ("tests/pure", "tests/golden"),
}
AT_ONCE = 2
LOGS = host.REPO / ".test-output"


@dataclass(frozen=True)
class Count:
    """Numbers of passed, failed (or erroneous) and skipped tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def main() -> int:
    ready = host.prepare(tests=True)
    chromium = find_chromium()
    python = str(ready.python)
    failures = [name for name, command in CHECKS.items() if check(name, python, "-m", *command)]
    extra = {"COMFYUI_DIR": str(ready.comfyui), **({"CHROMIUM": chromium} if chromium else {})}
    total = Count()
    print(f"\n== {len(SUITES)} test suites, {AT_ONCE} at a time; to watch them: {LOGS.name}/*.log", flush=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(pytest, name, python, chosen, extra): name for name, chosen in SUITES.items()}
        for done in as_completed(running):
            name, (count, status) = running[done], done.result()
            said = log_of(name).read_text(encoding="utf-8", errors="replace")
            print(f"\n== {name}\n{said}\n{name}: {count}", flush=True)
            total += count
            if status:
                failures.append(name)
    print(f"\nnot passed: {', '.join(failures)}" if failures else "\nall checks passed")
    print(f"{total.passed} passed, {total.failed} failed" + (f", {total.skipped} skipped" if total.skipped else ""))
    return 1 if failures or total.failed or not total.passed else 0


def check(name: str, *command: str) -> int:
    """Run a command, with its output passed through; return its exit status.

    It runs in the repository, or, if it names PACKAGE, in a folder where the repository is a package of that name:
    relative imports of nodes/ go up to the pack itself.
    """
    print(f"\n== {name}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = host.REPO
        if any(part.startswith(PACKAGE) for part in command):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / PACKAGE).symlink_to(host.REPO, target_is_directory=True)
        return subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL).returncode


def log_of(suite: str) -> Path:
    """Return the path of a suite's output."""
    return LOGS / (re.sub(r"\W+", "_", suite) + ".log")


def pytest(name: str, python: str, selection: tuple[str, ...], extra: dict[str, str]) -> tuple[Count, int]:
    """Run pytest in a separate process, logging its output; return its report's counts and its exit status."""
    LOGS.mkdir(exist_ok=True)
    environment = {**os.environ, **ENVIRONMENT, **extra}
    with tempfile.TemporaryDirectory() as scratch, log_of(name).open("wb") as log:
        report = Path(scratch) / "report.xml"
        command = (python, "-m", "pytest", "-ra", f"--junit-xml={report}", *selection, *sys.argv[1:])
        status = subprocess.run(
            command, cwd=host.REPO, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        ).returncode
        return (read_report(report) if report.exists() else Count()), status


def read_report(report: Path) -> Count:
    """Return the counts of a JUnit report."""
    suites = list(ElementTree.parse(report).iter("testsuite"))
    tests, failed, errors, skipped = (
        sum(int(suite.get(key, "0")) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    return Count(tests - failed - errors - skipped, failed + errors, skipped)


def find_chromium() -> str | None:
    """Return the browser for the browser tests, installed if necessary; None makes these tests skip."""
    found = _chromium_on_path()
    if found is None and os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        try:
            host.apt_install("chromium")
        except host.SetupError as error:
            host.say(f"no browser, so no browser tests: {error}")
        found = _chromium_on_path()
    return found


def _chromium_on_path() -> str | None:
    chosen = os.environ.get("CHROMIUM")
    return chosen or next((path for name in CHROMIUM if (path := shutil.which(name))), None)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except host.SetupError as error:
        sys.exit(f"[setup] {error}")

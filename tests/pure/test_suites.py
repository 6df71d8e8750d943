"""tools/test.py: suites run beside each other, and none of them is lost in the sums."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

# Each waits for the other: only beside each other can they pass.
MEET = """
import time
from pathlib import Path

def test_the_other_one_is_there():
    here = Path({folder!r})
    (here / "{mine}.here").touch()
    end = time.monotonic() + 30
    while not (here / "{other}.here").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    print("said by {mine}")
    assert {right}
"""


@pytest.fixture
def runner(monkeypatch, tmp_path) -> ModuleType:
    """The tool with suites of our own, on this Python."""
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location("suites_runner", TOOLS / "test.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    here = module.host.Host(Path(sys.executable), tmp_path)
    monkeypatch.setattr(module.host, "prepare", lambda tests: here)
    monkeypatch.setattr(module, "find_chromium", lambda: None)
    monkeypatch.setattr(module, "CHECKS", {})
    monkeypatch.setattr(module, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(sys, "argv", ["test.py"])
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return module


def suites(folder: Path, **right: bool) -> dict[str, tuple[str, ...]]:
    found = {}
    for mine, other in zip(right, reversed(right), strict=True):
        path = folder / f"test_{mine}.py"
        path.write_text(MEET.format(folder=str(folder), mine=mine, other=other, right=right[mine]))
        # Without plugins, which take longer to import than all the rest.
        options = ("--rootdir", str(folder), "-c", str(folder / "none.ini"), "-p", "no:cacheprovider")
        found[f"tests of {mine}"] = (str(path), *options)
    (folder / "none.ini").write_text("[pytest]\n")
    return found


def test_two_suites_run_beside_each_other_and_both_count(runner, tmp_path, monkeypatch, capfd):
    """What fails is named, and what it said stands together."""
    monkeypatch.setattr(runner, "SUITES", suites(tmp_path, first=False, second=True))
    assert runner.main() == 1
    said = capfd.readouterr().out
    assert said.endswith("not passed: tests of first\n1 passed, 1 failed\n")
    (block,) = [part for part in said.split("\n== ") if part.startswith("tests of first")]
    assert "said by first" in block and "tests of first: 0 passed, 1 failed, 0 skipped" in block
    assert "second" not in block.split("tests of first: 0 passed")[0].replace("second.here", "")

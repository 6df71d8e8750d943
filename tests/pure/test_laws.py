"""The design's first law: the engine knows nothing of ComfyUI, and imports where none exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from infinitetalk_core.errors import InputError, RunError

ROOT = Path(__file__).resolve().parents[2]
HOST_MODULES = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "node_helpers", "server", "execution"}
SCANNED_BY_THE_REGISTRY = re.compile(r"subprocess|os\.environ|requests|urllib|(?<![\w.])(eval|exec)\(")
# Harmless here, but the scanner `nodesafe` calls an archive that contains them malicious.
TAKEN_FOR_MALWARE = re.compile(r"(eval|exec|compile)\(|import_module")
CODEPAGE = "cp1252"  # Windows' own encoding, in which some tools read Python files; `comfy-test lint` checks it


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_no_module_of_the_engine_names_the_host():
    for path in (ROOT / "infinitetalk_core").rglob("*.py"):
        assert not imported(path) & HOST_MODULES, path


def test_every_module_of_the_engine_imports_without_comfyui():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "infinitetalk_core").rglob("*.py")
        if path.name != "__init__.py"
    ]
    setup = "import sys; sys.path.append('tools'); import run_comfyui; run_comfyui.make_torchvision_importable()"
    block = "\n".join(f"sys.modules[{name!r}] = None" for name in sorted(HOST_MODULES))
    code = f"{setup}\n{block}\n" + "\n".join(f"import {module}" for module in modules)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_published_code_holds_nothing_that_the_registry_flags():
    folders = ("infinitetalk_core", "nodes", "client")
    published = [ROOT / "__init__.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    assert len(published) > 30
    for path in published:
        text = path.read_text(encoding="utf-8")
        assert not SCANNED_BY_THE_REGISTRY.search(text), path
        assert not TAKEN_FOR_MALWARE.search(text), path
        assert text.encode(CODEPAGE), path


def test_only_the_host_folder_knows_comfyuis_internals():
    for path in (ROOT / "nodes").glob("*.py"):
        assert imported(path) & HOST_MODULES <= {"comfy_api"}, path


def test_errors_show_the_packs_name_and_not_its_path():
    """ComfyUI shows a user `module.name` of an exception; for a custom node pack the module begins with its folder."""
    for error in (InputError, RunError):
        assert error.__module__ == "infinitetalk"

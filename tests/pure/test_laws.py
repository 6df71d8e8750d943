"""The design's first law: the engine knows nothing of ComfyUI, and imports where none exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from infinitetalk_core.errors import InputError, RunError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("infinitetalk_core", "nodes", "training", "evaluation")
HOST_MODULES = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "node_helpers", "server", "execution"}
LATE = ("transformers", "scipy.signal")  # imported on first use: they take longer than the engine
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
    late = f"found = [m for m in {LATE!r} if m in sys.modules]\nassert not found, found"
    code = "\n".join([setup, block, *(f"import {module}" for module in modules), late])
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


def imports_by_module() -> dict[str, set[str]]:
    """Modules of the repository by module that imports them, at any place in it."""
    paths = [path for top in PACKAGES for path in (ROOT / top).rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: imported_modules(name, path) & set(names) for name, path in names.items()}


def imported_modules(name: str, path: Path) -> set[str]:
    """Full names of what the file imports: modules, and names in them."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        # `import nodes` inside nodes/ is ComfyUI's module of that name: the pack's own imports are relative.
        if isinstance(node, ast.ImportFrom) and (node.level or path.parts[len(ROOT.parts)] != "nodes"):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)} - {name}
    return found


def test_imports_go_in_no_circle():
    # The public names are imported on first use, by a function.
    imports = {name: found - {"infinitetalk_core"} for name, found in imports_by_module().items()}
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in imports[name]:
                follow(other, (*path, name))
            done.add(name)

    for name in imports:
        follow(name, ())


def test_the_engine_imports_neither_training_nor_evaluation_and_these_not_each_other():
    imports = imports_by_module()

    def tops(package: str) -> set[str]:
        return {i.split(".")[0] for name, found in imports.items() if name.split(".")[0] == package for i in found}

    assert tops("infinitetalk_core") == {"infinitetalk_core"}
    assert tops("training") == {"training", "infinitetalk_core"}
    assert tops("evaluation") == {"evaluation", "infinitetalk_core"}
    assert tops("nodes") == {"nodes", "infinitetalk_core"}


def test_the_wings_of_the_host_have_one_direction():
    """model <- media <- sampling."""
    below = {"model": {"model"}, "media": {"media", "model"}, "sampling": {"sampling", "media", "model"}}
    for name, found in imports_by_module().items():
        wing = name.removeprefix("nodes.host.").split(".")[0]
        if name.startswith("nodes.host.") and wing in below:
            wings = {i.split(".")[2] for i in found if i.startswith("nodes.host.") and i.count(".") > 2}
            assert wings <= below[wing], name

"""The `core` fixture with further modules of the pack, for a test file's own fixture of that name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType, SimpleNamespace


def with_modules(core: SimpleNamespace, pack: ModuleType, **modules: str) -> SimpleNamespace:
    """Return `core` with modules by their names inside the pack."""
    found = {name: import_module(f"{pack.__name__}.{path}") for name, path in modules.items()}
    return SimpleNamespace(**vars(core), **found)

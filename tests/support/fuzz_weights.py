"""Damaged weights files for `tools/fuzz.py`: read, or refused in one sentence."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

from tests.pure.crafted_weights import loaders

from .fuzz_outcome import outcome_of
from .mutated_weights import mutated


@cache
def _loaders() -> dict[str, Any]:
    return loaders(Path(mkdtemp(prefix="infinitetalk_fuzz_")))


def attempt(random: Random, folder: Path) -> tuple[str, str, str]:
    """Load a right file with random damage."""
    file = mutated(random.getrandbits(48))
    path = file.write(folder)

    def load() -> str:
        _loaders()[file.kind](path)
        return "read"

    return file.name, *outcome_of(load)

"""Every crafted weights file is answered in one sentence of ours or read, in bounded time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pure.crafted_weights import CRAFTED, answer, answers
from tests.support.crafted import Crafted
from tests.support.crafted_encoders import FOLDERS, PICKLES, TENSORS
from tests.support.crafted_gguf import GGUFS
from tests.support.crafted_headers import HEADERS
from tests.support.crafted_models import MODELS, NO_WEIGHTS
from tests.support.input_table import record_inputs
from tests.support.mutated_weights import mutated

REPO = Path(__file__).resolve().parents[2]
TABLES = {
    "headers": HEADERS,
    "models": MODELS,
    "no weights": NO_WEIGHTS,
    "GGUF": GGUFS,
    "encoder folders": FOLDERS,
    "encoder tensors": TENSORS,
    "PyTorch files": PICKLES,
}
MOST_SECONDS = 5  # of CPU
MOST_MB = 700
MUTATIONS = 150


def wrong(files: Sequence[Crafted], folder: Path) -> list[str]:
    """What is wrong with the answers to these files."""
    found = []
    for file, got in zip(files, answers(files, folder, answer), strict=True):
        wanted = {True: ("read",), False: ("answered",), None: ("read", "answered")}[file.reads]
        if got.outcome not in wanted or got.seconds > MOST_SECONDS:
            found.append(f"{got.name}: {got.outcome} in {got.seconds:.1f} s: {got.message}")
    return found


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.filterwarnings("ignore")
def test_every_crafted_file_is_answered_in_one_sentence_or_read(table, tmp_path):
    files = TABLES[table]
    assert wrong(files, tmp_path) == []
    right = sum(bool(file.reads) for file in files)
    record_inputs(f"crafted weights: {table}", "tests/pure/test_crafted_weights.py", right, len(files) - right)


def test_each_file_of_the_table_has_a_name_of_its_own():
    assert len({file.name for file in CRAFTED}) == len(CRAFTED) >= 81


@pytest.mark.filterwarnings("ignore")
def test_random_damage_is_answered_in_one_sentence_or_read(tmp_path):
    assert wrong([mutated(seed) for seed in range(MUTATIONS)], tmp_path) == []


def test_a_seed_makes_the_same_file_again(tmp_path):
    def content(seed: int, name: str) -> bytes:
        (tmp_path / name).mkdir()
        path = mutated(seed).write(tmp_path / name)
        return b"".join(p.read_bytes() for p in sorted([path] if path.is_file() else path.iterdir()))

    first, again, other = content(1, "first"), content(1, "again"), content(2, "other")
    assert first == again != other


def test_the_program_bounds_the_memory_of_each_file(tmp_path):
    """In a process for each; the files that say most."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.pure.crafted_weights", str(tmp_path), "--named", "million"],
        capture_output=True,
        text=True,
        cwd=REPO,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == sum("million" in file.name for file in CRAFTED) > 1, done.stderr
    for got in found:
        assert got["outcome"] == "answered" and got["seconds"] < MOST_SECONDS and got["mb"] < MOST_MB, got

"""Damaged folders of runs for `tools/fuzz.py`: the video must come out as if nothing had happened."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import torch

from .fuzz_outcome import outcome_of
from .run_damage import DAMAGES, damage_run
from .runs import RunFolder


@cache
def _prepared() -> tuple[Path, bytes]:
    """Return an output folder with a run that was stopped in its third chunk, and the video of a whole run."""
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="infinitetalk_fuzz_"))
    (folder / "whole").mkdir()
    video = RunFolder(folder / "whole").dub().path.read_bytes()
    (folder / "stopped").mkdir()
    RunFolder(folder / "stopped").interrupt_at(3)
    return folder / "stopped", video


def attempt(random: Random, folder: Path) -> tuple[str, str, str]:
    """Damage a stopped run one to three times, continue it, and compare the video."""
    stopped, video = _prepared()
    workspace = RunFolder(folder / "output")
    shutil.copytree(stopped, workspace.root)
    tried = [damage_run(workspace.folder, random.choice(DAMAGES), random) for _ in range(random.randint(1, 3))]
    outcome, text = outcome_of(lambda: "read" if workspace.dub().path.read_bytes() == video else "silent")
    return "; ".join(tried), outcome, text

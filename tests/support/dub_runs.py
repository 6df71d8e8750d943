"""Runs of client/dub_folder.py for tests: a folder of jobs, the program in this process, what it leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "client"))

import dub_folder
from fake_comfyui import FakeComfyUI

NAMES = ("anna", "ben", "cleo")
WORKFLOW = {
    "12": {"class_type": "InfiniteTalkLoadVoice", "inputs": {"path": ""}},
    "11": {"class_type": "InfiniteTalkSpeechEncode", "inputs": {"audio": ["12", 0]}},
    "20": {"class_type": "InfiniteTalkLoadSource", "inputs": {"path": ""}},
    "21": {"class_type": "InfiniteTalkReferencePicker", "inputs": {"image": ["20", 0], "video": ["20", 1]}},
    "31": {"class_type": "InfiniteTalkChunkSampler", "inputs": {"seed": 0, "filename_prefix": "x"}},
}


def make_jobs(base: Path, names: tuple[str, ...] = NAMES, folder: str = "jobs") -> Path:
    """Make a folder of jobs, whose files contain their names, and a workflow beside it; return the folder."""
    jobs = base / folder
    jobs.mkdir(exist_ok=True)
    for name in names:
        for suffix in (".mp4", ".wav"):
            (jobs / f"{name}{suffix}").write_bytes(f"{name}{suffix} of the user".encode())
    (base / "workflow.json").write_text(json.dumps(WORKFLOW))
    return jobs


def dub(jobs: Path, *servers: FakeComfyUI, more: tuple[str, ...] = ()) -> int:
    """Return the program's exit status; its folder is `out` beside the folder of jobs, or beside the list."""
    urls = [part for server in servers for part in ("--server", server.url)]
    fixed = ["--out", str(out(jobs)), "--workflow", str(base(jobs) / "workflow.json")]
    return dub_folder.main([str(jobs), *fixed, "--look", "0.1", "--patience", "0.1", *urls, *more])


def base(jobs: Path) -> Path:
    return jobs.parent if jobs.is_dir() else jobs.parent.parent


def out(jobs: Path) -> Path:
    return base(jobs) / "out"


def state_of(jobs: Path) -> dict[str, Any]:
    """Return the records of the jobs."""
    return json.loads((out(jobs) / "dub_folder.json").read_text())["jobs"]


def states(jobs: Path) -> dict[str, str]:
    return {name: record["state"] for name, record in state_of(jobs).items()}


def contents(folder: Path) -> dict[str, bytes]:
    """By name, the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

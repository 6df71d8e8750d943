"""The client for folders of jobs with a real server, which is killed in the middle of a job and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from fault_bench import CHUNKS, FRAMES, Bench, shorten
from fault_table import record_fault_result

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture
def bench(faulty_server, small) -> Bench:
    found = Bench(faulty_server.base, faulty_server, small("dub_by_path"))
    found.clear()
    return found


@pytest.fixture
def jobs(tmp_path, samples) -> Path:
    """A picture that speaks, and a video."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    for name in ("anna.png", "ben.mp4"):
        shutil.copyfile(samples / f"portrait{Path(name).suffix}", folder / name)
    for name in ("anna.wav", "ben.wav"):
        shutil.copyfile(samples / "voice.wav", folder / name)
        shorten(folder / name)
    return folder


def start_client(bench: Bench, jobs: Path, *more: str) -> subprocess.Popen[bytes]:
    """In a process of its own, as a person starts it."""
    workflow = jobs.parent / "workflow.json"
    workflow.write_text(json.dumps(bench.workflow))
    command = [sys.executable, str(REPO / "client" / "dub_folder.py"), str(jobs), "--server", bench.server.url]
    command += ["--out", str(jobs.parent / "out"), "--workflow", str(workflow), "--look", "0.5", *more]
    log = (jobs.parent / "client.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def frames_of(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(1 for _ in file.decode(video=0))


def manifest_of(out: Path, name: str) -> dict[str, Any]:
    manifest = json.loads((out / f"{name}.json").read_text())
    jsonschema.validate(manifest, json.loads((REPO / "docs" / "run.schema.json").read_text()))
    return manifest


def test_a_folder_is_dubbed_although_server_and_client_are_killed(bench, jobs):
    out = jobs.parent / "out"
    bench.faults(slow=0.4)
    client = start_client(bench, jobs)
    bench.when(lambda: len(bench.records()) >= 2)
    bench.kill()
    bench.restart()
    # The client has queued the job again; now it is killed itself, and the server goes on alone.
    bench.when(lambda: len(bench.records()) >= 3)
    os.kill(client.pid, signal.SIGKILL)
    client.wait()
    bench.faults()
    client = start_client(bench, jobs)
    said = jobs.parent / "client.log"
    assert client.wait(timeout=300) == 0, said.read_text()
    for name in ("anna", "ben"):
        assert frames_of(out / f"{name}.mp4") == FRAMES
    assert "is away, next try" in said.read_text() and "the server has lost the job" in said.read_text()
    first, second = (manifest_of(out, name) for name in ("anna", "ben"))
    assert [execution["state"] for execution in first["executions"]] == ["unfinished", "finished"]
    assert first["executions"][1]["from_chunk"] in (3, 4), "no finished chunk was made again"
    assert [execution["state"] for execution in second["executions"]] == ["finished"]
    record_fault_result(
        "kill -9 of server and client", "a folder of jobs (client/dub_folder.py)", "all videos are made"
    )
    check_report(first)


def check_report(manifest: dict[str, Any]) -> None:
    """What a studio asks a finished job: when, how long, from what, with what, and whether it holds together."""
    key_contents, report, last = manifest["key_contents"], manifest["report"], manifest["executions"][-1]
    assert manifest["state"] == "finished" and manifest["video"].endswith(".mp4") and manifest["result"]["fingerprint"]
    assert last["ended"] >= last["began"] and last["seconds"] > 0 and last["warnings"] == []
    assert {"pack", "comfyui", "torch", "av", "device", "attention"} <= set(key_contents["versions"])
    job = key_contents["job"]
    assert job["reference"]["source"] and job["speech"]["sound"] and key_contents["plan"] and key_contents["precision"]
    assert set(job["components"]["model"]["fingerprint"]) == {"graph", "infinitetalk"}
    assert report["seed"] == job["sampling"]["seed"] and report["complete"] and report["frames"] == FRAMES
    assert len(report["chunks"]) == CHUNKS and sum(chunk["frames"] for chunk in report["chunks"]) == FRAMES
    assert all(chunk["seconds_taken"] > 0 and "reference_frames" in chunk for chunk in report["chunks"])


def test_a_misspelt_setting_is_refused_and_a_long_name_with_accents_is_made(bench, jobs):
    bench.faults()
    name = "é" * 122  # 244 bytes, and 732 in a form that spells them out
    for path in list(jobs.iterdir()):
        path.rename(jobs / f"{name}{path.suffix}") if path.stem == "ben" else path.unlink()
    said = jobs.parent / "client.log"
    assert start_client(bench, jobs, "--set", "ChunkSampler.chunk_frame=81").wait(timeout=60) == 2
    assert "has no input 'chunk_frame'; did you mean 'chunk_frames'?" in said.read_text(encoding="utf-8")
    assert start_client(bench, jobs).wait(timeout=300) == 0, said.read_text(encoding="utf-8")
    (video,) = (jobs.parent / "out").glob("*.mp4")
    assert video.name.startswith("é" * 60) and frames_of(video) == FRAMES
    uploads = list((bench.base / "input" / "dub_folder").glob("é*"))
    assert len(uploads) == 2, "stored under the name that was meant"

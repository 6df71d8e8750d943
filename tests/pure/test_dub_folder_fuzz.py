"""Anything in place of what the batch client reads: a sentence or a usable value, and never another exception."""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the client needs aiohttp, which ComfyUI brings")

REPO = Path(__file__).resolve().parents[2]
sys.path += [str(REPO / "client"), str(REPO / "tests" / "support")]

from client_errors import JobError  # noqa: E402
from dub_runs import WORKFLOW, make_jobs  # noqa: E402
from file_names import numbered, safe_name, shortened  # noqa: E402
from job_state import JobRecord, StateFile  # noqa: E402
from jobs import Job, fill_workflow, read_jobs  # noqa: E402
from node_schema import unfit  # noqa: E402
from prompt_outcome import read_history  # noqa: E402
from refusals import refusal  # noqa: E402
from socket_messages import read_binary, read_text  # noqa: E402

TRIES = 150  # with 1,500 and other seeds: the same
LEAVES = (
    None,
    True,
    False,
    0,
    -1,
    1 << 70,
    0.5,
    1e308,
    "",
    "x",
    "anna.mp4",
    "../x",
    "\x00",
    "é\u0301",
    "\u202e",
    [],
    {},
)


def mutated(value: Any, rng: random.Random, rate: float = 0.15) -> Any:
    """Return a JSON value in which parts are replaced, dropped, or given twice."""
    if rng.random() < rate:
        return rng.choice(LEAVES)
    if isinstance(value, dict):
        kept = {key: mutated(item, rng, rate) for key, item in value.items() if rng.random() > rate / 3}
        if rng.random() < rate:
            kept[rng.choice(("jobs", "set", "status", "error", "type", "extra"))] = rng.choice(LEAVES)
        return kept
    if isinstance(value, list):
        return [mutated(item, rng, rate) for item in value for _ in range(rng.choice((1, 1, 1, 0, 2)))]
    return value


def mutated_text(text: str, rng: random.Random) -> bytes:
    """Return the text with some bytes changed, taken out or repeated."""
    content = bytearray(text.encode())
    for _ in range(rng.randint(1, 6)):
        place, length = rng.randrange(len(content) + 1), rng.randint(0, 8)
        content[place : place + length] = rng.choice(
            (b"", b"\xff", b"\0", b'"', b"{", b"[" * 9, b"\n", b"1e999", b"NaN")
        )
    return bytes(content)


def test_any_list_of_jobs_is_read_or_refused_in_a_sentence(tmp_path):
    rng, ends = random.Random(13), Counter()
    jobs = make_jobs(tmp_path, ("anna", "ben"))
    setting = {"ChunkSampler.seed": 7, "ChunkSampler.model": ["31", 0]}
    entries = [{"source": "anna.mp4", "voice": "anna.wav", "name": "a", "set": setting}]
    entries += [{"source": "ben.mp4", "voice": "ben.wav"}]
    nodes = json.loads((REPO / "tests" / "host" / "object_info.json").read_text())
    for number in range(TRIES):
        lines = [json.dumps(mutated(entry, rng, 0.04)) for entry in entries]
        text = "\n".join(lines if number % 2 else map(json.dumps, entries))
        (jobs / "jobs.jsonl").write_bytes(text.encode() if number % 2 else mutated_text(text, rng))
        try:
            for job in read_jobs(jobs / "jobs.jsonl"):
                fill_workflow(WORKFLOW, job, job.source.name, job.voice.name, "x")
                assert isinstance(unfit(nodes, WORKFLOW, [job]), str)
            ends["read"] += 1
        except JobError as error:
            ends["refused"] += 1
            assert "Error" not in str(error) and "Errno" not in str(error), error
    assert min(ends.values()) > TRIES // 10, ends


def test_any_state_is_read_or_moved_aside(tmp_path, capsys):
    rng = random.Random(13)
    record = {
        "state": "finished",
        "fingerprint": "1",
        "server": "http://a",
        "prompt": "p",
        "attempts": 1,
        "seconds": 1.5,
    }
    record |= {"video": "anna.mp4", "report": "anna.json", "error": "", "warnings": ["w"]}
    made = {"anna.mp4": {"job": "anna", "size": 4, "sha256": "0" * 64}}
    state = {"version": 2, "jobs": {"anna": record, "ben": record}, "made": made, "parts": [".dub_folder-1.part"]}
    (jobs,) = read_jobs(make_jobs(tmp_path, ("anna",)))
    for number in range(TRIES):
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            out, path = Path(folder), Path(folder) / "dub_folder.json"
            for name in ("anna.mp4", "anna.json", "x"):
                (out / name).write_bytes(b"film")
            text = json.dumps(mutated(state, rng)).encode()
            path.write_bytes(text if number % 2 else mutated_text(json.dumps(state), rng))
            found = StateFile(path)
            found.begin([jobs], WORKFLOW)
            assert all(isinstance(entry, JobRecord) for entry in found.records.values())
            again = StateFile(path)
            assert again.records == found.records and again.made == found.made
            assert {name: (out / name).read_bytes() for name in ("anna.mp4", "anna.json", "x")} == dict.fromkeys(
                ("anna.mp4", "anna.json", "x"), b"film"
            )
    capsys.readouterr()


def test_any_answer_of_a_server_becomes_an_outcome_or_a_sentence():
    rng = random.Random(13)
    error = {"node_type": "X", "exception_type": "a.InputError", "exception_message": "m"}
    entry = {
        "outputs": {"31": {"images": [{"filename": "a.mp4", "subfolder": "s", "type": "output"}]}},
        "status": {"status_str": "error", "messages": [["execution_start", {}], ["execution_error", error]]},
    }
    extra = {"input_name": "seed", "received_value": 5, "input_config": ["INT", {"min": 6, "max": 7}]}
    wrong = {"type": "value_smaller_than_min", "message": "m", "details": "d", "extra_info": extra}
    refused = {"error": {"message": "m", "details": "d"}, "node_errors": {"3": {"class_type": "X", "errors": [wrong]}}}
    message = {"type": "execution_start", "data": {"prompt_id": "1"}}
    for _ in range(TRIES):
        outcome = read_history(mutated(entry, rng))
        assert outcome.status in ("success", "error", "interrupted")
        assert all("/" not in file["filename"] for file in outcome.files()) and "\n" not in outcome.reason
        assert isinstance(outcome.is_input_error, bool)
        said = refusal("/prompt", 400, json.dumps(mutated(refused, rng)))
        assert str(said) and "\n" not in str(said)
        text = json.dumps(mutated(message, rng))
        found = read_text(text if rng.random() < 0.5 else mutated_text(text, rng).decode(errors="replace"))
        assert found is None or isinstance(found.data, dict)
        assert read_binary(rng.randbytes(rng.randint(0, 20))).type in ("preview", "progress_text")


def test_any_nodes_of_a_server_are_compared_or_left(tmp_path):
    rng = random.Random(13)
    nodes = {"InfiniteTalkChunkSampler": {"input": {"required": {"seed": ["INT", {"min": 0}], "a": [["x", "y"], {}]}}}}
    values = (*LEAVES, ["31", 0], [1, 2], {"__value__": [1]})
    for _ in range(TRIES):
        settings = {f"ChunkSampler.{rng.choice(('seed', 'a', 'sed', 'a.b'))}": rng.choice(values)}
        job = Job("a", tmp_path, tmp_path, settings)
        info = mutated(nodes, rng)
        assert isinstance(unfit(info if isinstance(info, dict) else {}, WORKFLOW, [job]), str)


def test_any_name_becomes_one_that_can_be_stored(tmp_path):
    rng = random.Random(13)
    letters = 'aB.é \u0301:/\\|?*<>"%\x00\x1f\n安🎬\u202e\ud800con'
    for _ in range(TRIES):
        name = safe_name("".join(rng.choices(letters, k=rng.randint(0, 300))))
        stem = shortened(name, 200)
        file = tmp_path / next(numbered(stem, ".mp4"))
        assert file.parent == tmp_path and len(file.name.encode()) <= 204 and not file.name.startswith(".")
        file.write_bytes(b"")
        assert safe_name(stem) == stem

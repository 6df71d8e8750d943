"""Dub a folder of jobs on one or several ComfyUI servers, and bring the videos back.

    python client/dub_folder.py jobs/ --out dubbed/                                 on http://127.0.0.1:8188
    python client/dub_folder.py jobs.jsonl --out dubbed/ --server http://a:8188 --server http://b:8188

jobs/ holds pairs of one name: a picture or a video, and a voice (anna.mp4 and anna.wav). A line of jobs.jsonl is
{"source": "anna.mp4", "voice": "anna.wav", "name": "anna_english", "set": {"InfiniteTalkChunkSampler.seed": 7}}.

Each server has one job that runs and one that waits. The program waits for a server that goes away and queues its job
again, which resumes at the chunk where it stopped. Press Ctrl+C once to interrupt the jobs, or kill the program; it
continues when it is started again. Finished jobs are not made again. The exit status is 0 if every job is finished.
Besides Python it needs aiohttp, which ComfyUI's environment has.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import math
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from client_errors import JobError, one_line
from comfy_client import READ_SECONDS, ComfyClient
from folder_lock import locked
from job_board import JobBoard
from job_state import STATE_FILE, StateFile
from jobs import Job, fill_workflow, read_jobs, without_partner
from results import ResultFolder
from server_jobs import WorkerSettings
from strict_json import parse, read_text
from worker import Worker
from yarl import URL

LONGEST_ERROR = 2000  # characters
Number = TypeVar("Number", int, float)
WORKFLOW = Path(__file__).resolve().parent.parent / "workflows" / "api" / "dub_by_path.json"


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path, help="a folder of pairs, or a JSONL file")
    parser.add_argument("--out", type=Path, required=True, help="where videos, reports and the state go")
    parser.add_argument("--server", action="append", help="address of a ComfyUI server; may be given several times")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW, help="a workflow in API format")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="for all jobs")
    parser.add_argument("--prefix", default="dubbed", help="folder for the videos in the server's output")
    parser.add_argument(
        "--input-folder",
        type=Path,
        help="the servers' input folder, where they share one with this "
        "machine: files in it are used where they are, and only others are uploaded",
    )
    parser.add_argument(
        "--retries", type=at_least(0), default=2, help="of a job that failed for another reason than its input"
    )
    parser.add_argument(
        "--patience", type=at_least(0.0), default=30.0, help="minutes to wait for a server that comes no further"
    )
    parser.add_argument(
        "--look", type=at_least(0.01), default=5.0, help="seconds after which a job's state is asked for again"
    )
    return parser.parse_args(given)


def at_least(least: Number) -> Callable[[str], Number]:
    """Return a reader of numbers that are not below `least`, of its type."""

    def number(text: str) -> Number:
        value = type(least)(text)
        if math.isnan(value) or value < least:
            raise argparse.ArgumentTypeError(f"it is a number from {least} on, not {text}")
        return value

    return number


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """Parse NODE.INPUT=VALUE into {NODE.INPUT: value}; a value that is no JSON is a text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise JobError(f"--set takes NODE.INPUT=VALUE, got {pair!r}")
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
        else:
            found[name] = parse(value, f"--set {name}")
    return found


def prepare(options: argparse.Namespace) -> tuple[list[Job], dict[str, Any]]:
    """Read jobs and workflow, and check all that can be checked without a server. Raises JobError."""
    addresses(options)
    general = settings_of(options.set)
    jobs = [replace(job, settings={**general, **job.settings}) for job in read_jobs(options.jobs)]
    workflow = parse(read_text(options.workflow), str(options.workflow))
    nodes = workflow.values() if isinstance(workflow, dict) else [None]
    if not all(is_node(node) for node in nodes):
        raise JobError(f"{options.workflow} is not in API format; in ComfyUI choose Workflow > Export (API)")
    for job in jobs:
        try:
            fill_workflow(workflow, job, job.source.name, job.voice.name, options.prefix)
        except JobError as error:
            raise JobError(f"{job.called}: {error}") from error
    try:
        if options.jobs.is_dir() and options.out.exists() and options.out.samefile(options.jobs):
            raise JobError(
                f"--out is the folder of the jobs: a video there would be taken for a source; name another one, such "
                f"as {options.out / 'dubbed'}"
            )
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"--out {str(options.out)[:200]} cannot be a folder: {error.strerror}") from error
    if options.jobs.is_dir() and (alone := without_partner(options.jobs)):
        print(f"no partner of the same name, left out: {one_line(', '.join(alone), LONGEST_ERROR)}", flush=True)
    return jobs, workflow


def is_node(node: Any) -> bool:
    """Return whether this is a node of a workflow in API format."""
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def addresses(options: argparse.Namespace) -> list[str]:
    """Return the servers' addresses, each once. Raises JobError for one that is none."""
    given = options.server or ["127.0.0.1:8188"]
    urls = list(dict.fromkeys((url if "://" in url else f"http://{url}").rstrip("/") for url in given))
    for url in urls:
        try:
            parts = URL(url)
            valid = parts.scheme in ("http", "https") and bool(parts.host) and bool(parts.port)
        except ValueError:
            valid = False
        if not valid or parts.query_string or parts.fragment or re.search(r"\s", url):
            raise JobError(f"--server {url[:200]} is no address; write one such as http://127.0.0.1:8188")
    return urls


async def dub_all(options: argparse.Namespace, jobs: list[Job], workflow: dict[str, Any], state: StateFile) -> None:
    """Carry all jobs out, or leave them so that the next call continues. Raises JobError if no server takes them."""
    urls, patience = addresses(options), options.patience * 60
    settings = WorkerSettings(workflow, options.prefix, options.input_folder, options.retries, patience, options.look)
    results = ResultFolder(state, [file for job in jobs for file in (job.source, job.voice)])
    read_seconds = min(READ_SECONDS, max(patience, 1.0))  # an answer that takes longer is none
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(ComfyClient(url, read_seconds=read_seconds)) for url in urls]
        board = JobBoard(jobs, state, [client.shown for client in clients])
        workers = [Worker(client, board, settings, results) for client in clients]
        tasks = [asyncio.create_task(worker.work()) for worker in workers]
        with _cancelled_by_control_c(tasks):
            # If one fails by a bug of ours, the others stop too: its jobs would never be settled.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            for worker, end in zip(workers, ends, strict=True):
                if end is not None:
                    await worker.interrupt()
        for end in ends:
            if isinstance(end, Exception):
                raise end
        if board.refusal:
            raise JobError(board.refusal)


@contextlib.contextmanager
def _cancelled_by_control_c(tasks: list[asyncio.Task[None]]) -> Iterator[None]:
    """Within this context Ctrl+C or SIGTERM cancels the tasks; a second one ends the program."""
    loop, stopping = asyncio.get_running_loop(), False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        print("interrupting the jobs; Ctrl+C again leaves them to the servers", flush=True)
        for task in tasks:
            task.cancel()

    def pressed(*_: object) -> None:
        loop.call_soon_threadsafe(stop)  # this may come in the middle of anything

    # Not the loop's own add_signal_handler, which Windows lacks.
    before = {number: signal.signal(number, pressed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table(jobs: list[Job], state: StateFile) -> str:
    """Return a table with a line for each job: its state, its time, its video or what went wrong."""
    rows = [("job", "state", "took", "video or reason")]
    for job in jobs:
        record = state.records[job.name]
        took = f"{record.seconds:.0f} s" if record.seconds else ""
        what = record.video if record.state == "finished" else record.error
        rows.append((job.name, record.state, took, one_line("; ".join([what, *record.warnings]), LONGEST_ERROR)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def main(given: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a log in Windows' own encoding cannot hold every name
    options = arguments(given)
    try:
        jobs, workflow = prepare(options)
        with locked(options.out):
            state = StateFile(options.out / STATE_FILE)
            state.begin(jobs, workflow)
            return carry_out(options, jobs, workflow, state)
    except JobError as error:
        print(one_line(str(error), LONGEST_ERROR), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped before anything was queued")
        return 1


def carry_out(options: argparse.Namespace, jobs: list[Job], workflow: dict[str, Any], state: StateFile) -> int:
    """Make the videos, print how each job ended, and return the exit status. Raises JobError."""
    try:
        asyncio.run(dub_all(options, jobs, workflow, state))
    except KeyboardInterrupt:
        print("left to the servers; start again to fetch what they made")
    print(table(jobs, state))
    finished = all(state.records[job.name].state == "finished" for job in jobs)
    return 0 if state.save() and finished else 1


if __name__ == "__main__":
    sys.exit(main())

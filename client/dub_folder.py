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
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comfy_client import ComfyClient
from job_state import STATE_FILE, StateFile
from jobs import Job, JobError, fill_workflow, read_jobs, without_partner
from worker import JobBoard, Worker, WorkerSettings

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
    parser.add_argument("--retries", type=int, default=2, help="of a job that failed for another reason than its input")
    parser.add_argument("--patience", type=float, default=30.0, help="minutes to wait for a server that went away")
    parser.add_argument("--look", type=float, default=5.0, help="seconds after which a job's state is asked for again")
    return parser.parse_args(given)


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """Parse NODE.INPUT=VALUE into {NODE.INPUT: value}; a value that is no JSON is a text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise JobError(f"--set takes NODE.INPUT=VALUE, got {pair!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def prepare(options: argparse.Namespace) -> tuple[list[Job], dict[str, Any], StateFile]:
    """Read jobs, workflow and state, and check all that can be checked without a server. Raises JobError."""
    general = settings_of(options.set)
    jobs = [Job(j.name, j.source, j.voice, {**general, **j.settings}) for j in read_jobs(options.jobs)]
    try:
        workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"{options.workflow} is no workflow: {error}") from error
    nodes = workflow.values() if isinstance(workflow, dict) else [None]
    if not all(isinstance(node, dict) and "class_type" in node for node in nodes):
        raise JobError(f"{options.workflow} is not in API format; in ComfyUI choose Workflow > Export (API)")
    for job in jobs:
        fill_workflow(workflow, job, job.source.name, job.voice.name, options.prefix)
    if options.jobs.is_dir() and (alone := without_partner(options.jobs)):
        print(f"no partner of the same name, left out: {', '.join(alone)}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    state = StateFile(options.out / STATE_FILE)
    state.begin(jobs, workflow)
    return jobs, workflow, state


async def dub_all(options: argparse.Namespace, jobs: list[Job], workflow: dict[str, Any], state: StateFile) -> None:
    """Carry all jobs out, or leave them so that the next call continues."""
    given = options.server or ["127.0.0.1:8188"]
    urls = list(dict.fromkeys((url if "://" in url else f"http://{url}").rstrip("/") for url in given))
    settings = WorkerSettings(
        workflow,
        options.out,
        options.prefix,
        options.input_folder,
        options.retries,
        options.patience * 60,
        options.look,
    )
    board = JobBoard(jobs, state, urls)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(ComfyClient(url)) for url in urls]
        workers = [Worker(client, board, settings) for client in clients]
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
        rows.append((job.name, record.state, took, "; ".join([what, *record.warnings])))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def main(given: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a log in Windows' own encoding cannot hold every name
    options = arguments(given)
    try:
        jobs, workflow, state = prepare(options)
    except JobError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        asyncio.run(dub_all(options, jobs, workflow, state))
    except KeyboardInterrupt:
        print("left to the servers; start again to fetch what they made")
    print(table(jobs, state))
    return 0 if all(state.records[job.name].state == "finished" for job in jobs) else 1


if __name__ == "__main__":
    sys.exit(main())

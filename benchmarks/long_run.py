"""Measure a long job on a real ComfyUI server: memory, open files, time to write, and time until a resumed run works.

    .venv/bin/python benchmarks/long_run.py --chunks 60 --width 832 --height 480 --chunk-frames 5 --steps 1
    .venv/bin/python benchmarks/long_run.py --minutes 10

The trained small models dub a drawn character with samples/voice.wav, repeated to the length. --kill-at N kills the
server with kill -9 after chunk N, restarts it and resumes. benchmarks/chunk_timing_pack.py takes the measurements
inside the server, at the same point of each chunk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import wave
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "tools"))
from comfy_server import ComfyServer, Message, Result, ServerError, cuda_available  # noqa: E402
from in_process import comfyui_folder  # noqa: E402

from small_models import GUIDANCE, PICKER, SAMPLER, place_samples, place_trained_models, with_small_models  # noqa: E402

FRAMES_PER_SECOND = 25
SETTLED = 3  # the chunk after which memory must not grow
MOST_GROWTH, MOST_GROWTH_BYTES = 0.03, 60e6
WRITING = ("metrics", "encode", "keep", "join", "show", "trim")


@dataclass
class RunRecord:
    """One queued run: the start of its nodes, and its result (None if the server was killed)."""

    queued: float
    nodes: list[tuple[str, float]] = field(default_factory=list)  # (class, start time)
    result: Result | None = None
    ended: float = 0.0

    def seconds_until(self, moment: float) -> dict[str, float]:
        """Return the time that each node class worked until `moment`."""
        ends = [*(when for _, when in self.nodes[1:]), moment]
        spent: dict[str, float] = {}
        for (kind, began), end in zip(self.nodes, ends, strict=True):
            spent[kind] = spent.get(kind, 0.0) + end - began
        return spent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--chunks", type=int, default=60)
    length.add_argument("--minutes", type=float)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--chunk-frames", type=int, default=33)
    parser.add_argument("--context-frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--workflow", default="video_dubbing")
    parser.add_argument("--kill-at", type=int, help="kill -9 after this chunk, then resume")
    parser.add_argument("--stop-at", type=int, help="with --kill-at: end after this chunk, print the times to start")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it; by default a temporary one")
    return parser.parse_args()


def write_voice(path: Path, seconds: float) -> int:
    """Write samples/voice.wav repeated to `seconds`; return its number of video frames."""
    with wave.open(str(REPO / "samples" / "voice.wav")) as file:
        layout, sound = file.getparams(), file.readframes(file.getnframes())
    size = layout.sampwidth * layout.nchannels
    wanted = round(seconds * layout.framerate)
    loops = -(-wanted * size // len(sound))
    with wave.open(str(path), "wb") as file:
        file.setparams(layout)
        file.writeframes((sound * loops)[: wanted * size])
    return round(Fraction(wanted, layout.framerate) * FRAMES_PER_SECOND)


def make_workflow(options: argparse.Namespace) -> dict[str, Any]:
    workflow = with_small_models(json.loads((REPO / "workflows" / "api" / f"{options.workflow}.json").read_text()))
    changes = {
        PICKER: {"size": "custom", "width": options.width, "height": options.height},
        GUIDANCE: {"steps": options.steps},
        SAMPLER: {"chunk_frames": options.chunk_frames, "context_frames": options.context_frames},
        "LoadAudio": {"audio": "long_voice.wav"},
    }
    for node in workflow.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    return workflow


def read_timings(base: Path) -> list[dict[str, Any]]:
    """Return the measurements of chunk_timing_pack.py: one entry for each chunk that was made."""
    path = base / "chunk_timings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def execute_run(server: ComfyServer, workflow: dict[str, Any], kill_at: int | None) -> RunRecord:
    """Queue the run and wait for its end; with `kill_at`, kill the server after that chunk."""
    record = RunRecord(time.monotonic())
    seen = len(read_timings(server.base))

    def on_message(message: Message) -> None:
        nonlocal seen
        node = workflow.get(str(message.data.get("node")), {}).get("class_type", "")
        if message.type == "executing" and node:
            record.nodes.append((node, message.time))
        made = read_timings(server.base)
        for entry in made[seen:]:
            if "chunk" in entry:
                print(f"chunk {entry['chunk']}: {entry['wall']:.1f} s, {entry['rss'] / 1e6:.0f} MB", flush=True)
        seen = len(made)
        if kill_at is not None and server.pid and made and made[-1].get("chunk", 0) >= kill_at:
            os.killpg(server.pid, signal.SIGKILL)

    with contextlib.suppress(ServerError):  # the server was killed
        record.result = server.follow(server.queue(workflow), 1e6, on_message)
    record.ended = time.monotonic()
    return record


def run(options: argparse.Namespace, base: Path) -> None:
    """Run the job in `base` and print the measurements."""
    place_trained_models(base / "models")
    place_samples(REPO / "samples", base / "input")
    (base / "custom_nodes").mkdir(exist_ok=True)
    shutil.copyfile(REPO / "benchmarks" / "chunk_timing_pack.py", base / "custom_nodes" / "chunk_timing.py")
    new = options.chunk_frames - options.context_frames
    frames = options.context_frames + options.chunks * new
    seconds = options.minutes * 60 if options.minutes else frames / FRAMES_PER_SECOND
    frames = write_voice(base / "input" / "long_voice.wav", seconds)
    workflow, python = make_workflow(options), Path(sys.executable)
    with ComfyServer(python, comfyui_folder(), base, pack=REPO, cpu=not cuda_available(python)) as server:
        records = [execute_run(server, workflow, options.kill_at)]
        if options.kill_at is not None:
            server.stop()
            server.start()
            records.append(execute_run(server, workflow, options.stop_at))
        if options.stop_at is not None:
            print_starts(read_timings(base), records)
            return
        result = records[-1].result
        if result is None or result.status != "success":
            sys.exit(f"the job failed: {result.reason if result else server.log_tail()}")
        (video,) = [server.path_of(file) for file in result.files() if file["filename"].endswith(".mp4")]
    report(read_timings(base), records, video, frames)


def report(timings: list[dict[str, Any]], records: list[RunRecord], video: Path, frames: int) -> None:
    """Print memory, files, shares and durations, with their expected values."""
    chunks = [entry for entry in timings if "chunk" in entry]
    # A restarted server starts with other memory, so only the chunks of the last server are compared.
    last = timings[max(i for i, entry in enumerate(timings) if "sampling_since" in entry) + 1 :]
    settled, end = last[SETTLED - 1], last[-1]
    growth = end["rss"] - settled["rss"]
    flat = growth <= max(MOST_GROWTH * settled["rss"], MOST_GROWTH_BYTES)
    wall = sum(entry["wall"] for entry in chunks)
    shares = {name: sum(entry.get(name, 0.0) for entry in chunks) / wall for name in WRITING}
    print(f"chunks: {len(chunks)}, {median(entry['wall'] for entry in chunks):.2f} s each, {wall:.0f} s in all")
    print(
        f"memory: {settled['rss'] / 1e6:.0f} MB after chunk {settled['chunk']}, {end['rss'] / 1e6:.0f} MB after chunk "
        f"{end['chunk']}: {growth / 1e6:+.0f} MB, {growth / settled['rss']:+.1%} ({'flat' if flat else 'IT GROWS'}); "
        f"peak {end['peak'] / 1e6:.0f} MB"
    )
    if end["gpu"] is not None:
        print(f"GPU memory: {settled['gpu'] / 1e6:.0f} MB, then {end['gpu'] / 1e6:.0f} MB")
    print(f"open files: {settled['files']} after chunk {settled['chunk']}, {end['files']} at the end")
    parts = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    print(f"writing and bookkeeping: {sum(shares.values()):.2%} of the wall time ({parts}; goal below 5 %)")
    print_starts(timings, records)
    print_video(video, frames)


def print_starts(timings: list[dict[str, Any]], records: list[RunRecord]) -> None:
    """Print the time from the start of each server to its first new step, and its parts."""
    starts = [entry for entry in timings if "sampling_since" in entry]
    for record, start in zip(records, starts, strict=True):
        spent = record.seconds_until(start["sampling_since"])
        nodes = ", ".join(f"{name.removeprefix('InfiniteTalk')} {s:.2f}" for name, s in spent.items() if s >= 0.01)
        inside = ", ".join(f"{name} {start.get(name, 0.0):.2f}" for name in ("load", "vae", "join"))
        print(f"from Run to the first new step: {start['sampling_since'] - record.queued:.2f} s ({nodes}; {inside})")


def print_video(video: Path, frames: int) -> None:
    """Print the duration of the file's video and audio."""
    with av.open(str(video)) as file:
        pictures = sum(1 for packet in file.demux(video=0) if packet.size)
        sound = file.streams.audio[0]
        seconds = float((sound.duration or 0) * (sound.time_base or 0))
    print(
        f"video: {pictures} frames ({pictures / FRAMES_PER_SECOND:.2f} s), the voice asks for {frames}; "
        f"its sound {seconds:.3f} s; {video.stat().st_size / 1e6:.1f} MB"
    )


def main() -> None:
    options = arguments()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        run(options, options.keep)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(options, Path(folder))


if __name__ == "__main__":
    main()

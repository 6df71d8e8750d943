"""Run the shipped workflows on the CPU with random weights of the released shapes: time, memory, and what fails.

    COMFYUI_DIR=… .venv/bin/python benchmarks/released_shapes.py FOLDER [workflow …]

FOLDER becomes ComfyUI's base folder and keeps the weights (tools/make_released_shapes.py, 10 GB). Needs 16 GB of
memory. The graphs are those in workflows/api, with the values of OVERRIDES in their widgets and shorter voices under
the same file names; one server makes all videos, so that a text that two of them share is encoded once. A row is
printed when its workflow ends: a stop at any moment leaves a table.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "tools"))
from comfy_server import ComfyServer, Message, RefusedError, ServerError  # noqa: E402
from in_process import comfyui_folder  # noqa: E402
from make_released_shapes import with_layers, write_released  # noqa: E402

from small_models import GUIDANCE, PICKER, SAMPLER, place_samples  # noqa: E402

FRAMES_PER_SECOND = 25
# What an artist would set for a quick look: the size, the preset's own numbers with one step, and the shortest chunks.
OVERRIDES: dict[str, dict[str, Any]] = {
    PICKER: {"size": "custom", "width": 128, "height": 128},
    GUIDANCE: {"preset": "custom", "steps": 1, "text_scale": 1.0, "audio_scale": 2.0, "shift": 7.0},
    # dub_by_path is the same job as video_dubbing, whose video it would otherwise show again.
    SAMPLER: {"chunk_frames": 5, "context_frames": 1, "start_over": True},
}
VOICES = {"voice.wav": 0.2, "voice_2.wav": 0.16}  # seconds of the samples that are kept: one chunk, two for two people
# Neighbors share their texts, so that ComfyUI still has the last one's encoding.
ORDER = (
    "talking_portrait",
    "camera_path_portrait",
    "video_dubbing",
    "dub_by_path",
    "dub_keep_camera_sdedit",
    "dub_keep_camera_uni3c",
    "dub_face_only",
    "two_speakers",
)
COLUMNS = ("workflow", "s", "s in the sampler", "CPU s", "peak GiB", "frames", "deviation of a frame", "outcome")


@dataclass
class Clock:
    """Sums up the time in the Chunk Sampler from a prompt's messages."""

    workflow: dict[str, Any]
    since: float | None = None
    total: float = 0.0

    def see(self, message: Message) -> None:
        """Handle a message; for ComfyServer's on_message."""
        if message.type != "executing":
            return
        now = time.monotonic()
        self.total += now - self.since if self.since is not None else 0.0
        node = self.workflow.get(str(message.data.get("node")), {})
        self.since = now if node.get("class_type") == SAMPLER else None


def workflow_of(name: str) -> dict[str, Any]:
    """Return a shipped workflow with OVERRIDES in its widgets. Raises KeyError for a widget that it does not have."""
    graph = json.loads((REPO / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node in graph.values():
        for widget, value in OVERRIDES.get(node["class_type"], {}).items():
            if widget not in node["inputs"]:
                raise KeyError(f"{name}: {node['class_type']} has no widget {widget}")
            node["inputs"][widget] = value
    return graph


def place_media(folder: Path) -> None:
    """Copy the samples into ComfyUI's input folder, with VOICES cut to their seconds."""
    place_samples(REPO / "samples", folder)
    for name, seconds in VOICES.items():
        with wave.open(str(REPO / "samples" / name)) as file:
            layout, sound = file.getparams(), file.readframes(round(seconds * file.getframerate()))
        with wave.open(str(folder / name), "wb") as file:
            file.setparams(layout)
            file.writeframes(sound)


def frames_wanted(graph: dict[str, Any], folder: Path) -> int:
    """Return the number of frames of all the graph's voices, which are in ComfyUI's input folder."""
    values = {value for node in graph.values() for value in node["inputs"].values() if isinstance(value, str)}
    seconds = 0.0
    for name in (value for value in values if value.endswith(".wav")):
        with wave.open(str(folder / name)) as file:
            seconds += file.getnframes() / file.getframerate()
    return round(seconds * FRAMES_PER_SECOND)


def run(server: ComfyServer, name: str, graph: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Run a workflow and return its row."""
    clock, process = Clock(graph), Process(int(server.pid or 0))
    process.forget_peak()
    began, busy = time.monotonic(), process.cpu_seconds()
    result = server.run(graph, timeout, clock.see)
    row: dict[str, Any] = {"workflow": name, "s": time.monotonic() - began, "s in the sampler": clock.total}
    row |= {"CPU s": process.cpu_seconds() - busy, "peak GiB": process.peak_bytes() / 2**30}
    if result.status != "success":
        return row | {"outcome": f"{result.status}: {result.reason}"}
    video = next(server.path_of(file) for file in result.files() if file["filename"].endswith(".mp4"))
    with av.open(str(video)) as file:
        frames = np.stack([frame.to_ndarray(format="gray") for frame in file.decode(video=0)])
    row |= {"frames": len(frames), "deviation of a frame": float(frames.std(axis=(1, 2)).mean())}
    wanted = frames_wanted(graph, server.base / "input")
    return row | {"outcome": "finished" if len(frames) == wanted else f"{wanted} frames were expected"}


@dataclass(frozen=True)
class Process:
    """Figures of a process from Linux's /proc."""

    pid: int

    def forget_peak(self) -> None:
        """Begin a new measurement of the peak."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Return the most resident memory since then, mapped files included."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def cpu_seconds(self) -> float:
        """Return the processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


def line_of(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [row.get(column, "") for column in COLUMNS]
    return f"| {' | '.join(f'{cell:.4g}' if isinstance(cell, float) else str(cell) for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the shipped workflows with weights of the released shapes.")
    parser.add_argument("folder", type=Path, help="ComfyUI's base folder")
    parser.add_argument("workflows", nargs="*", metavar="workflow", help=f"some of {', '.join(ORDER)}")
    parser.add_argument("--layers", type=int, default=2, help="of Wan's 40")
    parser.add_argument("--timeout", type=float, default=7200.0, help="seconds for a workflow")
    options = parser.parse_args()
    if unknown := set(options.workflows) - set(ORDER):
        parser.error(f"there is no workflow {', '.join(sorted(unknown))}")
    write_released(options.folder / "models", with_layers(options.layers))
    place_media(options.folder / "input")
    print("\n".join((line_of(dict(zip(COLUMNS, COLUMNS, strict=True))), "|---" * len(COLUMNS) + "|")), flush=True)
    with ComfyServer(Path(sys.executable), comfyui_folder(), options.folder, pack=REPO) as server:
        for name in ORDER if not options.workflows else options.workflows:
            try:
                print(line_of(run(server, name, workflow_of(name), options.timeout)), flush=True)
            except (RefusedError, ServerError, TimeoutError) as error:
                print(line_of({"workflow": name, "outcome": str(error).splitlines()[0].rstrip(":")}), flush=True)
                if not server.alive():
                    server.stop()
                    server.start()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server ends with the program
    main()

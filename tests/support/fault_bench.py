"""A server with injectable faults, which can be killed and restarted in the same folder, and a small job for it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import uuid
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
SAMPLER, PICKER = "InfiniteTalkChunkSampler", "InfiniteTalkReferencePicker"
CHANGES = {
    PICKER: {"size": "custom", "width": 32, "height": 32},
    "InfiniteTalkGuidance": {"preset": "custom", "steps": 2, "text_scale": 1.0, "audio_scale": 1.0, "shift": 7.0},
    SAMPLER: {"chunk_frames": 13, "context_frames": 5, "filename_prefix": "video/InfiniteTalk"},
}
# Phases at which fault_pack.py can wait, in the order of a job.
PHASES = (
    "loading the VAE",
    "encoding the voice",
    "encoding the sound",
    "encoding pictures",
    "denoising",
    "decoding pictures",
    "converting the frames",
    "keeping the chunk",
    "encoding the frames",
    "closing the file",
)
FRAMES, CHUNKS = 43, 5  # 13 + 8 + 8 + 8 + 6


def shorten(voice: Path, frames: int = FRAMES) -> None:
    """Cut a WAV file to a number of video frames, which makes the tests faster."""
    with wave.open(str(voice)) as file:
        layout, sound = file.getparams(), file.readframes(frames * file.getframerate() // 25)
    with wave.open(str(voice), "wb") as file:
        file.setparams(layout)
        file.writeframes(sound)


class Servers:
    """Starts servers with the fault pack; all are stopped at the end of the `with` block."""

    def __init__(self, comfyui: Path, models: Path, samples: Path) -> None:
        self.comfyui, self.models, self.samples = comfyui, models, samples
        self._started: list[Any] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._started:
            server.stop()

    def start(self, base: Path, *extra: str) -> Any:
        """Start a server in this folder, without a cache of node outputs, so that a repeated prompt runs again."""
        from comfy_server import ComfyServer

        from small_models import place_samples

        (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPO / "tests" / "support" / "fault_pack.py", base / "custom_nodes" / "faults.py")
        if not (base / "models").exists():
            (base / "models").symlink_to(self.models, target_is_directory=True)
            place_samples(self.samples, base / "input")
            shorten(base / "input" / "voice.wav")
        options = {"pack": REPO, "extra": ("--cache-none", *extra), "start_timeout": 600}
        server = ComfyServer(Path(sys.executable), self.comfyui, base, **options)
        self._started.append(server)
        server.start()
        return server


class Bench:
    """One server, its folder and the job."""

    def __init__(self, base: Path, server: Any, workflow: dict[str, Any]) -> None:
        self.base, self.server, self.workflow = base, server, workflow
        for node in workflow.values():
            node["inputs"].update(CHANGES.get(node["class_type"], {}))

    @property
    def output(self) -> Path:
        return self.base / "output"

    @property
    def runs(self) -> Path:
        return self.output / "infinitetalk_runs"

    def restart(self) -> None:
        """Start the server again in the same folder and at the same address."""
        self.server.stop()
        self.server.start()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)

    def faults(self, **wanted: Any) -> None:
        """Set the faults from now on; see fault_pack.py."""
        self.reached.unlink(missing_ok=True)
        scratch = self.base / "faults.new"
        scratch.write_text(json.dumps({"session": uuid.uuid4().hex, **wanted}))
        scratch.replace(self.base / "faults.json")

    @property
    def reached(self) -> Path:
        """Return the file that exists once the phase of faults(pause=…) is reached."""
        return self.base / "paused"

    def clear(self) -> None:
        """Delete all outputs and faults."""
        if not self.server.alive():  # an earlier test may have left it dead
            self.restart()
        shutil.rmtree(self.output)
        self.output.mkdir()
        self.faults()

    def queue(self, server: Any = None, **inputs: Any) -> str:
        """Queue the job on this server, or on another one."""
        workflow = json.loads(json.dumps(self.workflow))
        for node in workflow.values():
            if node["class_type"] == SAMPLER:
                node["inputs"].update(inputs)
        return (server or self.server).queue(workflow)

    def run(self, **inputs: Any) -> Any:
        return self.server.follow(self.queue(**inputs), timeout=300)

    def video(self, **inputs: Any) -> Path:
        result = self.run(**inputs)
        assert result.status == "success", result.error
        (file,) = [f for f in result.files() if f["filename"].endswith(".mp4")]
        return self.server.path_of(file)

    def stop_after(self, chunks: int) -> None:
        """Make `chunks` chunks, then fail."""
        self.faults(memory=chunks + 1)
        assert self.run().status == "error"
        self.faults()

    def videos(self) -> list[str]:
        return sorted(p.name for p in (self.output / "video").glob("*.mp4"))

    def records(self) -> list[Path]:
        return sorted(self.runs.glob("*/0*.json"))

    def run_folder(self) -> Path:
        (folder,) = self.runs.iterdir()
        return folder

    def when(self, happened: Callable[[], Any], act: Callable[[], None] = lambda: None, timeout: float = 120) -> None:
        """Wait until `happened` returns true, then call `act` immediately."""
        end = time.monotonic() + timeout
        while not happened():
            assert time.monotonic() < end, f"it never happened:\n{self.server.log_tail()}"
            time.sleep(0.01)
        act()

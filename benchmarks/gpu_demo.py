"""Section of gpu_report.py: a video made with the small trained models by a real ComfyUI server on the GPU."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_bench import Bench

REPO = Path(__file__).resolve().parent.parent
TRUTH = REPO / "tests" / "data" / "mouth_openings.json"
WORKFLOW = REPO / "workflows" / "api" / "talking_portrait.json"


def demo(bench: Bench) -> None:
    """Make the demo's video twice, from an API prompt; measure lips against the voice and compare the frames."""
    if bench.small:
        bench.rows.note("Not part of the dry run: tests/host/test_speaking.py makes the same video on the CPU.")
        return
    import numpy as np
    from comfy_server import ComfyServer
    from in_process import comfyui_folder

    from small_models import place_samples, place_trained_models, with_small_models

    sync = bench.module("evaluation.sync")
    truth = np.array(json.loads(TRUTH.read_text())["voice.wav"])
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        place_trained_models(base / "models")
        place_samples(REPO / "samples", base / "input")
        (base / "page").mkdir()
        (base / "page" / "index.html").write_text("")
        extra = ("--front-end-root", str(base / "page"), "--disable-api-nodes")
        seen: list[Any] = []
        workflow = with_small_models(json.loads(WORKFLOW.read_text()))
        with ComfyServer(Path(sys.executable), comfyui_folder(), base, pack=REPO, cpu=False, extra=extra) as server:
            (sampler,) = (node for node in workflow.values() if node["class_type"] == "InfiniteTalkChunkSampler")
            for number in (1, 2):
                sampler["inputs"]["start_over"] = number > 1  # ComfyUI does not run the same prompt twice
                began = time.perf_counter()
                result = server.run(workflow, 100, lambda message: None)
                took = time.perf_counter() - began
                if result.status != "success":
                    raise RuntimeError(f"the workflow failed: {result.reason}; {server.log_tail(5)}")
                video = next(server.path_of(f) for f in result.files() if f["filename"].endswith(".mp4"))
                frames = _frames(video)
                seen.append(frames)
                opening = sync.mouth_opening(frames)
                length = min(len(opening), len(truth))
                found = sync.sync(opening[:length], truth[:length])
                bench.rows.add(
                    run=number,
                    s=took,
                    frames=len(frames),
                    **{
                        "sync (correlation)": found.correlation,
                        "frames late": found.lag,
                        "mean level": float(frames.mean()),
                    },
                )
    bench.rows.note(f"Both videos the same, every frame: {bool((seen[0] == seen[1]).all())}.")


def _frames(video: Path) -> Any:
    """Return the frames of a file, (F, H, W, 3) from 0 to 1."""
    import av
    import torch

    with av.open(str(video)) as file:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    return torch.stack(frames).float() / 255

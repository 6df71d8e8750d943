"""A custom node file that notes, after each chunk, where its time went and what memory and files the server holds.

benchmarks/long_run.py puts it into custom_nodes. It writes a line of JSON a chunk to stopwatch.jsonl, beside the
folders `models` and `output`:

    sampling_since: when the first chunk of this server was first sampled, by the system's monotonic clock; join, load,
        vae: seconds that the sampler spent until then on chunks from before, on loading models, on encoding pictures
    chunk: from 1    wall: seconds since the chunk before
    metrics, encode, keep, join, show, trim: seconds of them spent on the chunk's metrics, on H.264, on the run's
        folder, on the video file, on progress, on giving memory back
    rss, peak: bytes    files: open handles    gpu: bytes held by PyTorch, null without a GPU
"""

import json
import os
import sys
import time
from functools import wraps
from pathlib import Path

import comfy.samplers
import comfy.utils
import torch

NOTES = Path(__file__).resolve().parents[1] / "stopwatch.jsonl"
NODE_CLASS_MAPPINGS = {}
# (module of the pack, owner in it, name, what it counts as)
WATCHED = (
    ("comfy.sd", "VAE", "encode", "vae"),
    ("comfy.model_management", "", "load_models_gpu", "load"),
    ("infinitetalk_core.runs.runner", "", "measure", "metrics"),
    ("infinitetalk_core.runs.runner", "", "encode_segment", "encode"),
    ("infinitetalk_core.runs.store", "RunStore", "commit", "keep"),
    ("infinitetalk_core.video.writer", "VideoWriter", "append", "join"),
    ("nodes.host.sampling.progress", "JobProgress", "chunk_made", "show"),
    ("infinitetalk_core.runs.runner", "", "trim_heap", "trim"),  # the last thing of a chunk
)
seconds: dict[str, float] = {}  # without what watched functions called others for
inside: list[float] = []  # of each watched function that runs, the seconds spent in others
state = {"ready": False, "since": 0.0, "chunk": 0}
plain = {"sample": comfy.samplers.CFGGuider.sample, "bar": comfy.utils.ProgressBar.__init__}


def memory(name):
    """A size from /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)


def write(line):
    with NOTES.open("a") as file:
        file.write(json.dumps(line) + "\n")


def note(chunk):
    """One line: the chunk that is finished."""
    now = time.monotonic()
    line = {
        "chunk": chunk,
        "wall": now - state["since"],
        **seconds,
        "rss": memory("VmRSS"),
        "peak": memory("VmHWM"),
        "files": len(os.listdir("/proc/self/fd")),
        "gpu": torch.cuda.memory_allocated() if torch.cuda.is_available() else None,
    }
    write(line)
    seconds.clear()
    state["since"] = time.monotonic()


def timed(inner, name):
    @wraps(inner)
    def outer(*args, **kwargs):
        began = time.monotonic()
        inside.append(0.0)
        try:
            return inner(*args, **kwargs)
        finally:
            spent = time.monotonic() - began
            seconds[name] = seconds.get(name, 0.0) + spent - inside.pop()
            if inside:
                inside[-1] += spent
            if name == "show":
                state["chunk"] = args[1].chunk.index + 1
            if name == "trim":
                note(state["chunk"])

    return outer


def watch():
    """Put the watches in place, once: any time after all packs are loaded."""
    if state["ready"]:
        return
    for module, owner, name, counts_as in WATCHED:
        (found,) = (m for n, m in list(sys.modules.items()) if n == module or n.endswith("." + module))
        target = getattr(found, owner) if owner else found
        setattr(target, name, timed(getattr(target, name), counts_as))
    state["ready"] = True


def bar(self, *args, **kwargs):
    """The sampler's bar is made before it joins what is there."""
    watch()
    plain["bar"](self, *args, **kwargs)


def sample(self, *args, **kwargs):
    if not state["since"]:
        state["since"] = time.monotonic()
        write({"sampling_since": state["since"], **seconds})
        seconds.clear()
    return plain["sample"](self, *args, **kwargs)


comfy.samplers.CFGGuider.sample = sample
comfy.utils.ProgressBar.__init__ = bar

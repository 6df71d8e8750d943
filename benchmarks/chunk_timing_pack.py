"""A custom node file that records after each chunk the time of its parts, and the server's memory and open files.

benchmarks/long_run.py puts it into custom_nodes. It appends a line of JSON per chunk to chunk_timings.jsonl, beside the
folders `models` and `output`:

    sampling_since: when the first chunk of this server was first sampled, by the system's monotonic clock; join, load,
        vae: seconds that the sampler spent before that on joining earlier chunks, loading models, encoding pictures
    chunk: from 1    wall: seconds since the chunk before
    metrics, encode, keep, join, show, trim: seconds spent on the chunk's metrics, on converting its frames, on
        the run's folder, on H.264 and the video file, on progress (of the chunk before), on returning memory to the
        system; all but progress in a thread of their own, while the next chunk is made
    rss, peak: bytes    files: open handles    gpu: bytes allocated by PyTorch, null without a GPU
"""

import json
import os
import sys
import threading
import time
from functools import wraps
from pathlib import Path

import comfy.samplers
import comfy.utils
import torch

TIMINGS = Path(__file__).resolve().parents[1] / "chunk_timings.jsonl"
NODE_CLASS_MAPPINGS = {}
# (module of the pack, class in it or "", function, name of the time)
WRAPPED = (
    ("comfy.sd", "VAE", "encode", "vae"),
    ("comfy.model_management", "", "load_models_gpu", "load"),
    ("infinitetalk_core.runs.runner", "", "measure", "metrics"),
    ("infinitetalk_core.runs.runner", "", "to_pictures", "encode"),
    ("infinitetalk_core.runs.store", "RunStore", "commit", "keep"),
    ("infinitetalk_core.chunks.assembly", "Assembly", "add", "join"),
    ("nodes.host.sampling.progress", "JobProgress", "chunk_made", "show"),
    ("infinitetalk_core.runs.runner", "", "trim_heap", "trim"),  # the last call of a chunk
)
seconds: dict[str, float] = {}  # by name, excluding nested wrapped calls
inside = threading.local()  # `calls`: for each wrapped call in progress in this thread, the seconds in nested ones
state = {"ready": False, "since": 0.0, "chunk": 0}
plain = {"sample": comfy.samplers.CFGGuider.sample, "bar": comfy.utils.ProgressBar.__init__}


def process_memory(name):
    """Return a size from /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)


def write(line):
    with TIMINGS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def write_chunk(chunk):
    """Write the line of a finished chunk."""
    now = time.monotonic()
    line = {
        "chunk": chunk,
        "wall": now - state["since"],
        **seconds,
        "rss": process_memory("VmRSS"),
        "peak": process_memory("VmHWM"),
        "files": len(os.listdir("/proc/self/fd")),
        "gpu": torch.cuda.memory_allocated() if torch.cuda.is_available() else None,
    }
    write(line)
    seconds.clear()
    state["since"] = time.monotonic()


def timed(inner, name):
    """Wrap `inner` so that its time, without nested wrapped calls, is added to `seconds[name]`."""

    @wraps(inner)
    def outer(*args, **kwargs):
        began = time.monotonic()
        calls = inside.__dict__.setdefault("calls", [])
        calls.append(0.0)
        try:
            return inner(*args, **kwargs)
        finally:
            spent = time.monotonic() - began
            seconds[name] = seconds.get(name, 0.0) + spent - calls.pop()
            if calls:
                calls[-1] += spent
            if name == "keep":
                state["chunk"] = args[1].chunk.index + 1
            if name == "trim":
                write_chunk(state["chunk"])

    return outer


def wrap_functions():
    """Wrap the functions of WRAPPED, once; all packs must be loaded."""
    if state["ready"]:
        return
    for module, owner, name, counts_as in WRAPPED:
        (found,) = (m for n, m in list(sys.modules.items()) if n == module or n.endswith("." + module))
        target = getattr(found, owner) if owner else found
        setattr(target, name, timed(getattr(target, name), counts_as))
    state["ready"] = True


def progress_bar(self, *args, **kwargs):
    """Wrap ProgressBar.__init__, which the sampler calls before it joins earlier chunks."""
    wrap_functions()
    plain["bar"](self, *args, **kwargs)


def sample(self, *args, **kwargs):
    """Wrap CFGGuider.sample, which writes the line of the first sampling."""
    if not state["since"]:
        state["since"] = time.monotonic()
        write({"sampling_since": state["since"], **seconds})
        seconds.clear()
    return plain["sample"](self, *args, **kwargs)


comfy.samplers.CFGGuider.sample = sample
comfy.utils.ProgressBar.__init__ = progress_bar

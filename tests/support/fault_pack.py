"""A custom node file that makes a real ComfyUI unlucky. Tests put it into custom_nodes; see tests/host/test_faults.py.

What shall go wrong stands in faults.json beside the folders `models` and `output`:

    slow: seconds that each chunk takes longer          memory: the chunk of this sitting from which on it is short
    full: part of a file name that cannot be written    readonly: part of a folder name that cannot be made
    clock: seconds by which the clock goes back at every look
"""

import errno
import json
import os
import time
from pathlib import Path

import comfy.samplers
import torch

FAULTS = Path(__file__).resolve().parents[1] / "faults.json"
NODE_CLASS_MAPPINGS = {}

state = {"chunks": 0, "looks": 0}
plain = {
    "sample": comfy.samplers.CFGGuider.sample,
    "fsync": os.fsync,
    "mkdir": os.mkdir,
    "time": time.time,
}


def faults():
    try:
        return json.loads(FAULTS.read_text())
    except (OSError, ValueError):
        return {}


def sample(self, *args, **kwargs):
    now = faults()
    state["chunks"] = state["chunks"] + 1 if now.get("sitting") == state.get("sitting") else 1
    state["sitting"] = now.get("sitting")
    time.sleep(now.get("slow", 0))
    # Also when it is tried again, which counts as another one here.
    if now.get("memory") and state["chunks"] >= now["memory"]:
        raise torch.OutOfMemoryError("made up by a test")
    return plain["sample"](self, *args, **kwargs)


def fsync(handle):
    name = now if (now := faults().get("full")) else None
    if name and name in os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return plain["fsync"](handle)


def mkdir(path, *args, **kwargs):
    name = faults().get("readonly")
    if name and name in str(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    return plain["mkdir"](path, *args, **kwargs)


def backwards():
    step = faults().get("clock")
    if step:
        state["looks"] += 1
    return plain["time"]() - (step or 0) * state["looks"]


comfy.samplers.CFGGuider.sample = sample
os.fsync, os.mkdir, time.time = fsync, mkdir, backwards

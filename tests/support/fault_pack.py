"""A custom node file that makes a real ComfyUI unlucky. Tests put it into custom_nodes; see tests/host/test_faults.py.

What shall go wrong stands in faults.json beside the folders `models` and `output`:

    slow: seconds that each chunk takes longer          memory: the chunk of this execution from which on it is short
    full: part of a file name that cannot be written    readonly: part of a folder name that cannot be made
    clock: seconds by which the clock goes back at every look
    long: every voice counts as a long one, whose features are kept
    pause: a moment of PHASES; at the first such one of the execution the server waits for an interrupt (for 20 s at
        most) and then goes on; meanwhile there is a file `paused`
"""

import errno
import json
import os
import sys
import time
from functools import wraps
from pathlib import Path

import comfy.model_management
import comfy.samplers
import comfy.sd
import torch

BASE = Path(__file__).resolve().parents[1]
FAULTS = BASE / "faults.json"
NODE_CLASS_MAPPINGS = {}
# Moments of a job, in the order in which they come: (module, owner in it, function). A job loads its
# VAE before it comes to anything of the pack.
PHASES = {
    "loading the VAE": ("comfy.sd", "VAE", "__init__"),
    "encoding the voice": ("nodes.host.media.audio", "HostAudioEncoder", "encode"),
    "encoding the sound": ("infinitetalk_core.runs.session", "", "encode_sound"),
    "encoding pictures": ("comfy.sd", "VAE", "encode"),
    "denoising": ("comfy.samplers", "CFGGuider", "sample"),
    "decoding pictures": ("comfy.sd", "VAE", "decode"),
    "encoding the segment": ("infinitetalk_core.runs.runner", "", "encode_segment"),
    "keeping the chunk": ("infinitetalk_core.runs.store", "RunStore", "commit"),
    "joining the chunk": ("infinitetalk_core.video.writer", "VideoWriter", "append"),
    "closing the file": ("infinitetalk_core.video.writer", "VideoWriter", "_finish"),
}

state = {"chunks": 0, "looks": 0}
plain = {
    "sample": comfy.samplers.CFGGuider.sample,
    "vae": comfy.sd.VAE.__init__,
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
    state["chunks"] = state["chunks"] + 1 if now.get("execution") == state.get("execution") else 1
    state["execution"] = now.get("execution")
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


def pausing(phase, inner):
    """`inner`, which can be told to wait for an interrupt before it begins."""

    @wraps(inner)
    def outer(*args, **kwargs):
        now = faults()
        if phase == "encoding the voice":
            sys.modules[inner.__module__].KEPT_FROM_SECONDS = 0 if now.get("long") else 60
        if now.get("pause") == phase and state.get("paused") != now["execution"]:
            state["paused"] = now["execution"]
            (BASE / "paused").touch()
            end = time.monotonic() + 20
            while not comfy.model_management.processing_interrupted() and time.monotonic() < end:
                time.sleep(0.01)
        return inner(*args, **kwargs)

    return outer


def watch():
    """Make every phase a moment at which the server can wait; once, when all packs are loaded."""
    if state.get("watching"):
        return
    state["watching"] = True
    for phase, (module, owner, name) in PHASES.items():
        if name == "__init__":
            continue
        (found,) = (m for n, m in list(sys.modules.items()) if n == module or n.endswith("." + module))
        target = getattr(found, owner) if owner else found
        setattr(target, name, pausing(phase, getattr(target, name)))


def load_vae(self, *args, **kwargs):
    watch()
    pausing("loading the VAE", plain["vae"])(self, *args, **kwargs)


comfy.samplers.CFGGuider.sample = sample
comfy.sd.VAE.__init__ = load_vae
os.fsync, os.mkdir, time.time = fsync, mkdir, backwards

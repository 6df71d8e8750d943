"""A custom node file that injects faults into a real ComfyUI, for tests/host/test_faults.py.

faults.json, beside the folders `models` and `output`, sets the faults:

    session: identifies this set of faults; chunks and pauses are counted from its start
    slow: additional seconds per chunk          memory: the first chunk of the session that raises out of memory
    full: part of a file name that cannot be written    readonly: part of a folder name that cannot be created
    clock: seconds by which the clock goes back at every call
    long: features of every voice are stored, as for long voices
    pause: a phase of PHASES; at its first occurrence in the session the server waits for an interrupt (for at most
        20 s) and then continues; a file `paused` marks that it was reached
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
# Phases of a job in their order: (module, class in it or "", function). The VAE is loaded before the pack runs.
PHASES = {
    "loading the VAE": ("comfy.sd", "VAE", "__init__"),
    "encoding the voice": ("nodes.host.media.audio", "HostAudioEncoder", "encode"),
    "encoding the sound": ("infinitetalk_core.runs.sound_encoding", "", "encode_sound"),
    "encoding pictures": ("comfy.sd", "VAE", "encode"),
    "denoising": ("comfy.samplers", "CFGGuider", "sample"),
    "decoding pictures": ("comfy.sd", "VAE", "decode"),
    "converting the frames": ("infinitetalk_core.runs.runner", "", "to_pictures"),
    "keeping the chunk": ("infinitetalk_core.runs.store", "RunStore", "commit"),
    "encoding the frames": ("infinitetalk_core.chunks.assembly", "Assembly", "add"),
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
    state["chunks"] = state["chunks"] + 1 if now.get("session") == state.get("session") else 1
    state["session"] = now.get("session")
    time.sleep(now.get("slow", 0))
    # A retry of the same chunk is counted as another one.
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
    """Wrap `inner` so that it can wait for an interrupt before it begins."""

    @wraps(inner)
    def outer(*args, **kwargs):
        now = faults()
        if phase == "encoding the voice":
            sys.modules[inner.__module__].KEPT_FROM_SECONDS = 0 if now.get("long") else 60
        if now.get("pause") == phase and state.get("paused") != now["session"]:
            state["paused"] = now["session"]
            (BASE / "paused").touch()
            end = time.monotonic() + 20
            while not comfy.model_management.processing_interrupted() and time.monotonic() < end:
                time.sleep(0.01)
        return inner(*args, **kwargs)

    return outer


def watch():
    """Wrap the functions of all phases, once; all packs must be loaded."""
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

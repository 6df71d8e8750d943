"""The models of all graphs: one copy of each in this process, kept in the engine's cache, moved by ComfyUI.

A graph gets a clone of the cached ModelPatcher, and with it, as attachments that ComfyUI hands on to every further
clone, the lease and the fingerprint of the weights that were read. So the lease ends exactly when the last patcher made
from it is gone: when ComfyUI forgets the outputs of the loader and of the nodes behind it. The cached patcher itself is
the parent of them all, so ComfyUI goes on counting an idle model that is still on the GPU, and unloads it when it needs
the room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from ...infinitetalk_core.cache import FileStamp, ModelCache, ModelKey
from ...infinitetalk_core.fingerprint import FileFingerprints
from .fingerprint import LoadedFiles
from .patchers import Patcher

log = logging.getLogger("infinitetalk")
LEASE = "infinitetalk_lease"
FINGERPRINT = "infinitetalk_fingerprint"
GB = 1e9
SHARE_OF_RAM = 4
FREE_ROUTES = ("/free", "/api/free")
LOOK_SECONDS, LOOKS = 0.2, 300


def default_budget_bytes() -> int:
    """A quarter of the machine's memory."""
    return int(comfy.model_management.get_total_memory(torch.device("cpu"))) // SHARE_OF_RAM


class SharedModels:
    """Loads models, or hands out those that are loaded. The extension has one; without it every owner is alone."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        budget = default_budget_bytes() if budget_bytes is None else budget_bytes
        self.cache = ModelCache(budget, lambda patcher: int(patcher.model_size()))
        self.files = FileFingerprints(
            comfy.model_management.throw_exception_if_processing_interrupted
        )  # so that the next run does not read the same files again
        self.loaded = LoadedFiles()

    def patcher(
        self, path: Path, kind: str, load: Callable[[], tuple[Patcher, str]], options: tuple[Any, ...] = ()
    ) -> Patcher:
        """The model of a file as a ModelPatcher of the caller's own. kind: for people. options: what makes other
        weights of the same file. load: makes it, if it is not here, and the fingerprint of what it read."""
        begun, read = time.perf_counter(), []

        def make() -> Patcher:
            read.append(path)
            loaded, fingerprint = load()
            loaded.set_attachments(FINGERPRINT, fingerprint)
            return loaded

        lease = self.cache.get(ModelKey(FileStamp.of(path), kind, options), make)
        size = lease.value.model_size() / GB
        if read:
            seconds = time.perf_counter() - begun
            log.info("InfiniteTalk: %s %s: read %.2f GB in %.1f s", kind, path.name, size, seconds)
        else:
            log.info("InfiniteTalk: %s %s: %.2f GB from the cache", kind, path.name, size)
        mine: Patcher = lease.value.clone()
        mine.set_attachments(LEASE, lease)
        return mine

    def describe(self) -> str:
        """What is in the cache, line by line, for people."""
        found = self.cache.contents()
        ram, gpu = (sum(sizes) for sizes in zip((0, 0), *(split(e.value) for e in found.entries), strict=True))
        lines = [
            f"{len(found.entries)} models: {ram / GB:.2f} GB in RAM, {gpu / GB:.2f} GB on the GPU",
            f"hits {found.hits}, misses {found.misses}, dropped for want of room {found.evictions}",
            f"unused models {found.idle_bytes / GB:.2f} GB, of {found.budget_bytes / GB:.2f} GB that they may take",
        ]
        for entry in reversed(found.entries):
            ram, gpu = split(entry.value)
            use = "in use" if entry.users else "unused"
            name = Path(entry.key.file.path).name
            lines.append(f"{entry.key.kind} {name}: {ram / GB:.2f} GB in RAM, {gpu / GB:.2f} GB on the GPU, {use}")
        return "\n".join(lines)

    def set_budget_gb(self, budget_gb: float) -> None:
        """What unused models may take; below 0: the default."""
        self.cache.set_budget(default_budget_bytes() if budget_gb < 0 else round(budget_gb * GB))


def fingerprint_of(patcher: Patcher) -> str:
    """Of the weights that were read for a model of `SharedModels`, or for the model that it is a clone of."""
    found = patcher.get_attachment(FINGERPRINT)
    if found is None:
        raise ValueError("this model was not loaded by SharedModels, so it has no fingerprint")
    return str(found)


def split(patcher: Patcher) -> tuple[int, int]:
    """The bytes of a model in RAM and on the GPU."""
    size = int(patcher.model_size())
    gpu = 0
    if patcher.load_device.type != "cpu":
        gpu = min(size, int(patcher.loaded_size()))
    return size - gpu, gpu


def empty_on_free(models: SharedModels) -> None:
    """Empty the cache whenever somebody asks ComfyUI to unload models or to free memory (`POST /free`).

    ComfyUI tells no extension of it. What is used is aiohttp's own signal before each answer of the server: nothing of
    ComfyUI is replaced, and no request is touched.
    """
    from server import PromptServer  # late: it exists only where ComfyUI is a server

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    waiting: set[asyncio.Task[None]] = set()

    async def look(request: Any, answer: Any) -> None:
        if request.method == "POST" and request.path in FREE_ROUTES and answer.status == 200:
            task = asyncio.get_running_loop().create_task(_empty_when_unloaded(models, server.prompt_queue))
            waiting.add(task)
            task.add_done_callback(waiting.discard)

    server.app.on_response_prepare.append(look)


async def _empty_when_unloaded(models: SharedModels, queue: Any) -> None:
    """Let models go that ComfyUI has unloaded. It does so in another thread, between two prompts, and a model that it
    counts as loaded must not vanish meanwhile; so this looks until all are gone, or the next prompt has begun, in which
    the first lease that ends takes the rest along."""
    while queue.get_flags(reset=False):
        await asyncio.sleep(LOOK_SECONDS)
    log.info("InfiniteTalk: emptying the model cache, as ComfyUI was asked to free memory")
    for _ in range(LOOKS):
        loaded = {id(patcher.model) for patcher in comfy.model_management.loaded_models() if patcher is not None}
        gone = models.cache.empty(lambda patcher, loaded=loaded: id(patcher.model) not in loaded)
        if gone or queue.get_tasks_remaining():
            return
        await asyncio.sleep(LOOK_SECONDS)

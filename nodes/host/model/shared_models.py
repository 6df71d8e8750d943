"""Models shared by all graphs: one copy of each in this process, kept in the engine's cache, moved by ComfyUI.

A graph gets a clone of the cached ModelPatcher. The lease and the fingerprint of the weights are attachments, which
ComfyUI copies to every further clone. So the lease ends exactly when the last clone is gone: when ComfyUI drops the
outputs of the loader and of the nodes after it. The cached patcher is the parent of all clones, so ComfyUI still counts
an unused model that is on the GPU, and unloads it when it needs the memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import comfy.model_management
import torch

from ....infinitetalk_core.checkpoints.opened import stamp_of
from ....infinitetalk_core.fingerprint import FileFingerprints
from ....infinitetalk_core.log import log
from ....infinitetalk_core.model_cache import FileStamp, ModelCache, ModelKey
from .loaded_files import LoadedFiles
from .patchers import Patcher

LEASE = "infinitetalk_lease"
FINGERPRINT = "infinitetalk_fingerprint"
GB = 1e9
SHARE_OF_RAM = 4
Fact = TypeVar("Fact")
FREE_ROUTES = ("/free", "/api/free")
LOOK_SECONDS, LOOKS = 0.2, 300


def default_budget_bytes() -> int:
    """Return a quarter of the machine's RAM."""
    return int(comfy.model_management.get_total_memory(torch.device("cpu"))) // SHARE_OF_RAM


class SharedModels:
    """Loads models, or returns those already loaded.

    The extension has the instance that all nodes share; a caller without it shares nothing.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        budget = default_budget_bytes() if budget_bytes is None else budget_bytes
        self.cache = ModelCache(budget, lambda patcher: int(patcher.model_size()))
        self.files = FileFingerprints(
            comfy.model_management.throw_exception_if_processing_interrupted
        )  # kept here so that the next run does not read the same files again
        self.loaded = LoadedFiles()
        self._facts: dict[tuple[str, str], tuple[FileStamp, Any]] = {}

    def patcher(
        self, path: Path, kind: str, load: Callable[[], tuple[Patcher, str]], options: tuple[Any, ...] = ()
    ) -> Patcher:
        """Return a clone of the model of a file; load it if it is not in the cache.

        kind: the kind of weights, for messages and the cache key. load: returns a new patcher and the fingerprint of
        its weights. options: whatever else the weights depend on, part of the cache key. Raises InputError if there is
        no file.
        """
        started, reads = time.perf_counter(), []

        def make() -> Patcher:
            reads.append(path)
            loaded, fingerprint = load()
            loaded.set_attachments(FINGERPRINT, fingerprint)
            return loaded

        lease = self.cache.get(ModelKey(stamp_of(path), kind, options), make)
        size = lease.value.model_size() / GB
        if reads:
            seconds = time.perf_counter() - started
            log.info("%s %s: read %.2f GB in %.1f s", kind, path.name, size, seconds)
        else:
            log.info("%s %s: %.2f GB from the cache", kind, path.name, size)
        clone: Patcher = lease.value.clone()
        clone.set_attachments(LEASE, lease)
        return clone

    def fact(self, path: Path, name: str, find: Callable[[], Fact]) -> Fact:
        """Return `find()`, something about a file; found once for each state of it. Raises InputError without a file.

        Kept for the last state of each file. name: of the fact.
        """
        stamp = stamp_of(path)
        known = self._facts.get((stamp.path, name))
        if known is None or known[0] != stamp:
            known = self._facts[stamp.path, name] = (stamp, find())
        return cast(Fact, known[1])

    def describe(self) -> str:
        """Describe the contents of the cache as text, one model per line."""
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
        """Set the memory in GB that unused models may take; below 0: the default."""
        self.cache.set_budget(default_budget_bytes() if budget_gb < 0 else round(budget_gb * GB))


def fingerprint_of(patcher: Patcher) -> str:
    """Return the fingerprint of the weights of a patcher from `SharedModels`, or of a clone of one.

    Raises ValueError for any other patcher.
    """
    found = patcher.get_attachment(FINGERPRINT)
    if found is None:
        raise ValueError("this model was not loaded by SharedModels, so it has no fingerprint")
    return str(found)


def split(patcher: Patcher) -> tuple[int, int]:
    """Return the bytes of a model in RAM and on the GPU."""
    size = int(patcher.model_size())
    gpu = 0
    if patcher.load_device.type != "cpu":
        gpu = min(size, int(patcher.loaded_size()))
    return size - gpu, gpu


def empty_on_free(models: SharedModels) -> None:
    """Empty the cache whenever ComfyUI is asked to unload models or to free memory (`POST /free`).

    ComfyUI does not notify extensions of it. So this uses aiohttp's signal before each response of the server, which
    replaces nothing in ComfyUI and changes no request.
    """
    from server import PromptServer  # imported here, since it exists only where ComfyUI runs as a server

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    tasks: set[asyncio.Task[None]] = set()

    async def on_response(request: Any, response: Any) -> None:
        if request.method == "POST" and request.path in FREE_ROUTES and response.status == 200:
            task = asyncio.get_running_loop().create_task(_empty_when_unloaded(models, server.prompt_queue))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server.app.on_response_prepare.append(on_response)


async def _empty_when_unloaded(models: SharedModels, queue: Any) -> None:
    """Drop the cached models that ComfyUI has unloaded.

    ComfyUI unloads in another thread, between two prompts, and a model that it counts as loaded must not disappear
    meanwhile. So this polls until all are dropped or the next prompt has begun; then the first lease that ends drops
    the rest.
    """
    while queue.get_flags(reset=False):
        await asyncio.sleep(LOOK_SECONDS)
    log.info("emptying the model cache, as ComfyUI was asked to free memory")
    for _ in range(LOOKS):
        loaded = {id(patcher.model) for patcher in comfy.model_management.loaded_models() if patcher is not None}
        emptied = models.cache.empty(partial(_is_unloaded, loaded))
        if emptied or queue.get_tasks_remaining():
            return
        await asyncio.sleep(LOOK_SECONDS)


def _is_unloaded(loaded: set[int], patcher: Patcher) -> bool:
    return id(patcher.model) not in loaded

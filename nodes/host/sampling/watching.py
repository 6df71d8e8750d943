"""Runs as a browser watches them: the numbers of their chunks, and pieces of the video while it is made.

A node of a workflow is its place. Events say that something has changed, and the routes what: so a page that was
reloaded, a second tab and a lost message all end with the same picture. Nothing is written to the disk.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from ....infinitetalk_core.chunks.plan import Chunk
from ....infinitetalk_core.log import log
from ....infinitetalk_core.rate import FRAMES_PER_SECOND
from ....infinitetalk_core.runs.runner import Run
from ....infinitetalk_core.video.clip import encode_clip
from ..media.video import output_folder

EVENT = "infinitetalk.run"
NUMBERS = ("seam", "color_drift", "sharpness", "seconds_taken")  # of a chunk, in this order after its index
MOST_RUNS = 32
QUIET_SECONDS = 0.5  # between events of chunks that are only joined, of which there may be thousands
RUNNING, FINISHED, STOPPED = "running", "finished", "stopped"


@dataclass(frozen=True)
class Place:
    """Where a run is shown. node: its id as executed, in subgraphs behind theirs; client: the page that started it."""

    workflow: str
    node: str
    client: str | None = None

    @staticmethod
    def of(hidden: Any, client: str | None) -> Place | None:
        """Return the place of the running node; None for a prompt without a workflow, which no page shows."""
        workflow = ((getattr(hidden, "extra_pnginfo", None) or {}).get("workflow") or {}).get("id")
        node = getattr(hidden, "unique_id", None)
        return Place(workflow, str(node), client) if isinstance(workflow, str) and node is not None else None


@dataclass
class WatchedRun:
    """An execution of a run. Changes come from the threads of the run, questions from the server's.

    place: None where nothing is shown. send: sends an event to all pages. entries: index and numbers of each chunk, in
    the order in which they became known. video: the file to show when the execution has ended, as ComfyUI's /view wants
    it. An execution that ends before its run is opened, such as by an unusable input, is not shown at all.
    """

    place: Place | None = None
    send: Callable[[dict[str, Any]], None] = lambda event: None
    begun: Callable[[WatchedRun], None] = lambda run: None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: str = RUNNING
    video: dict[str, str] | None = None
    kept: bool = False  # whether chunks can be made again without the others
    starts: list[int] = field(default_factory=list)
    frames: int = 0
    entries: list[list[float | int | None]] = field(default_factory=list)
    _known: dict[int, int] = field(default_factory=dict)  # length of `entries` by chunk, when it was last noted
    _run: Run | None = None
    _sound: Path | None = None
    _sent: float = 0.0

    def begin(self, run: Run) -> None:
        """Note the plan of a run that is opened, and listen to its store."""
        self._run, self.kept = run, run.store.keep_all
        chunks = [task.chunk for task in run.tasks]
        self.starts, self.frames = [chunk.first for chunk in chunks], chunks[-1].stop
        self.begun(self)
        run.store.on_commit = lambda task, metrics: self.chunk_stored(task.chunk, metrics, made=True)
        self._tell()

    def chunk_stored(self, chunk: Chunk, metrics: Mapping[str, Any], *, made: bool = False) -> None:
        """Note a chunk whose frames can be shown. made: just now, and not before this execution."""
        self._note(chunk.index, metrics)
        if made or time.monotonic() - self._sent > QUIET_SECONDS:
            self._tell()

    def finish(self, path: Path, report: str) -> None:
        """Note the finished video and the numbers of all chunks, from its report."""
        for index, metrics in enumerate(json.loads(report).get("chunks", [])):
            if index not in self._known:
                self._note(index, metrics)
        self.video = _view(path.relative_to(output_folder()).as_posix())
        self._end(FINISHED)

    def stop(self, video: str | None = None) -> None:
        """Note the end of an execution that did not finish, and the unfinished video that it has kept, if any.

        video: relative to ComfyUI's output folder.
        """
        if self._run is not None:
            self.video = None if video is None else _view(video)
            self._end(STOPPED)

    def _end(self, state: str) -> None:
        self.state, self._run = state, None  # a run holds its models
        self._tell()

    def _note(self, index: int, metrics: Mapping[str, Any]) -> None:
        self.entries.append([index, *(metrics.get(name) for name in NUMBERS)])
        self._known[index] = len(self.entries)

    def _tell(self) -> None:
        if self.place is None:
            return
        self._sent = time.monotonic()
        newest = self.entries[-1] if self.entries else None
        self.send({**self._names(), "state": self.state, "entries": len(self.entries), "newest": newest})

    def _names(self) -> dict[str, Any]:
        place = self.place
        assert place is not None
        return {"run": self.id, "workflow": place.workflow, "node": place.node, "client": place.client}

    def to_json(self, since: int = 0) -> dict[str, Any]:
        """Return what a page needs: everything, or what came after the first `since` entries."""
        found = {**self._names(), "state": self.state, "video": self.video, "chunks": self.entries[since:]}
        plan = {"starts": self.starts, "frames": self.frames, "rate": FRAMES_PER_SECOND, "kept": self.kept}
        return found if since else {**found, **plan}

    def clip(self, index: int) -> tuple[bytes, str] | None:
        """Return the frames and the sound of a chunk as (file, MIME type); None if they are not there (any more)."""
        run = self._run
        if run is None or not 0 <= index < len(run.tasks) or index not in self._known:
            return None
        task = run.tasks[index]
        try:
            pictures = run.stored_frames(task)
            self._sound = self._sound or run.store.sound()
            if pictures is None or self._sound is None:
                return None
            return encode_clip(pictures, task.chunk.first, self._sound)
        except (OSError, FFmpegError) as error:  # the run has ended meanwhile, and its files are gone
            log.debug("chunk %d cannot be shown: %s", index + 1, error)
            return None


class RunWatch:
    """The latest runs of this process. send: sends an event to all pages."""

    def __init__(self, send: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self._send = send
        self._runs: dict[str, WatchedRun] = {}  # by id, the latest last

    @contextlib.contextmanager
    def watching(self, place: Place | None) -> Iterator[WatchedRun]:
        """Give the `WatchedRun` of an execution, which ends with the block; as stopped unless it was finished."""
        watched = WatchedRun(place, self._send, self._add)
        try:
            yield watched
        finally:
            if watched.state == RUNNING:
                watched.stop()

    def _add(self, watched: WatchedRun) -> None:
        if watched.place is not None:
            self._runs[watched.id] = watched
            for old in list(self._runs)[:-MOST_RUNS]:
                self._runs.pop(old, None)

    def find(self, run: str) -> WatchedRun | None:
        """Return a run by its id."""
        return self._runs.get(run)

    def latest(self, workflow: str, node: str, client: str) -> WatchedRun | None:
        """Return the latest run of a node; the latest that `client` started, if it started any."""
        found = [
            run
            for run in reversed(list(self._runs.values()))
            if run.place is not None and (run.place.workflow, run.place.node) == (workflow, node)
        ]
        own = [run for run in found if run.place is not None and run.place.client == client]
        return next(iter(own or found), None)


def _view(name: str) -> dict[str, str]:
    """Return the parameters of /view for a file relative to the output folder."""
    subfolder, _, filename = name.rpartition("/")
    return {"filename": filename, "subfolder": subfolder, "type": "output"}


def send_to_pages(event: dict[str, Any]) -> None:
    """Send an event to every page that is open."""
    from server import PromptServer  # imported here, since it exists only where ComfyUI runs as a server

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    try:
        server.send_sync(EVENT, event)
    except RuntimeError as error:  # the server's loop has ended: nobody watches any more
        log.debug("an event was not sent: %s", error)


def current_client() -> str | None:
    """Return the id of the page whose prompt is executed."""
    from server import PromptServer

    return getattr(getattr(PromptServer, "instance", None), "client_id", None)

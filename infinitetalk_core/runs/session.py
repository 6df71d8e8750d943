"""One sitting at a run: open its folder, go on where it stopped, and finish it or leave it so that the next one can."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..audio.sound import Sound
from ..fingerprint import file_fingerprint
from ..video.soundtrack import encode_sound
from ..video.writer import VideoWriter
from .disk import Disk
from .lock import RunLock
from .run_log import RunLog
from .runner import Run, Watcher, first_missing
from .store import RunStore, read_object
from .upgrade import begun_with_other_versions

LOCK = "lock"

log = logging.getLogger("infinitetalk")


@dataclass(frozen=True)
class OutputSpec:
    """The video that a run is to become.

    made_of: everything that changes it, as JSON; place: what a person chose for its name, with which `new_path` finds a
    path that is free; root: the folder that the run's notes name files relative to. report: (numbers of the chunks,
    whether they are all, at which chunk this sitting began) → the text beside the video, JSON
    with the run's folder as `run`.
    """

    made_of: Mapping[str, Any]
    place: str
    root: Path
    new_path: Callable[[], Path]
    metadata: Mapping[str, str]
    sound: Sound
    report: Callable[[list[dict[str, Any]], bool, int], str]


@dataclass(frozen=True)
class Switches:
    """start_over: make everything anew; keep: leave the chunks of a finished run, so that some can be made again."""

    start_over: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Outcome:
    """A finished video and the report on it. continued_at: position of the first chunk that was made now."""

    path: Path
    report: str
    continued_at: int


class RunListener(Watcher, Protocol):
    """Who is told what a sitting finds, besides how it goes on."""

    def found(self, done: int, missing: int, store: RunStore) -> None:
        """`done` chunks are finished before the first that is missing; `missing` are to be made in all."""

    def warn(self, text: str) -> None:
        """Something that the user should know of before the work begins."""

    def between(self) -> None:
        """Called during longer work; what it raises stops the run."""


def execute_run(
    folder: Path,
    wanted: OutputSpec,
    run_in: Callable[[RunStore], Run],
    watcher: RunListener,
    switches: Switches,
    disk: Disk | None = None,
) -> Outcome:
    """Carry the run in `folder` out to its end, from wherever it is.

    Whatever ends it early leaves it to be continued, and the video up to there as `…_interrupted.mp4`.
    """
    disk = disk or Disk()
    disk.make_folder(folder)
    with RunLock(folder / LOCK) as lock:
        store = RunStore(folder, lock, disk=disk, keep_all=switches.keep, start_over=switches.start_over)
        run = run_in(store)
        outcome, notes = _finished_earlier(store, wanted, run), {}
        if outcome is None:
            outcome, sittings = _make_missing(store, wanted, run, watcher)
            notes = {"sittings": sittings.entries}
        store.describe(state="finished", report=json.loads(outcome.report), **notes)
        if not switches.keep:
            store.give_up_intermediates()
        return outcome


def _make_missing(store: RunStore, wanted: OutputSpec, run: Run, watcher: RunListener) -> tuple[Outcome, RunLog]:
    """Make what is missing of the video; how it went is noted in the manifest."""
    begun = bool(store.manifest)
    earlier = _earlier_path(store, wanted, run)
    done = first_missing(store, run.steps)
    sittings = RunLog(store, done)
    with sittings.noting_failure():
        other = None if begun else begun_with_other_versions(store.folder.parent, wanted.made_of)
        if other is not None:
            watcher.warn(str(other))
        path = earlier or wanted.new_path()
        while True:
            # Noted before it is claimed, so that a power cut in between does not lose the name.
            store.describe(
                made_of=wanted.made_of,
                place=wanted.place,
                variant=run.variant,
                state="unfinished",
                video=_name(path, wanted),
                result=None,
                sittings=sittings.entries,
            )
            if path == earlier or _claim(store, path):
                break
            path = wanted.new_path()
        with _freeing(store, path):
            missing = sum(not store.done(step) for step in run.steps)
            watcher.found(done, missing, store)
            sound = store.sound() or store.put_sound(encode_sound(wanted.sound, watcher.between))
            report = _make(store, wanted, run, VideoWriter(path, sound, metadata=wanted.metadata), watcher, done)
    sittings.finish()
    return Outcome(path, report, done), sittings


def _make(store: RunStore, wanted: OutputSpec, run: Run, writer: VideoWriter, watcher: RunListener, done: int) -> str:
    """Make the file; its report lies beside it before it gets its name."""
    numbers: list[dict[str, Any]] = []

    def closed(part: Path) -> None:
        report = wanted.report(numbers, True, done).encode()
        store.disk.write(writer.path.with_suffix(".json"), report)
        store.describe(result={"fingerprint": file_fingerprint(part)})

    writer.on_closed = closed
    try:
        with writer:
            run.carry_out(writer, watcher, numbers)
    except BaseException:
        if writer.kept is not None:
            _note_unfinished(store, wanted, writer, numbers, done)
        raise
    return wanted.report(numbers, True, done)


def _note_unfinished(
    store: RunStore, wanted: OutputSpec, writer: VideoWriter, numbers: list[dict[str, Any]], done: int
) -> None:
    """Write beside the unfinished video what it holds. A second failure must not hide the first one."""
    assert writer.kept is not None
    try:
        store.disk.write(writer.path.with_suffix(".json"), wanted.report(numbers, False, done).encode())
        kept = {"video": _name(writer.kept, wanted), "bytes": writer.kept.stat().st_size}
        store.describe(interrupted=[*store.manifest.get("interrupted", []), kept])
    except OSError as error:
        log.warning("InfiniteTalk: %s", error)


def _same_file(store: RunStore, wanted: OutputSpec, run: Run) -> bool:
    """Whether the notes speak of the video that is wanted: of one name, and with the same chunks made again."""
    notes = store.manifest
    return bool(notes.get("video")) and (notes.get("place"), notes.get("variant")) == (wanted.place, run.variant)


def _earlier_path(store: RunStore, wanted: OutputSpec, run: Run) -> Path | None:
    """Where the video was going already, if that is still free. The unfinished ones of this run make room for it."""
    notes = store.manifest
    changed = []  # by somebody, whose they are now
    for old in notes.get("interrupted", []):
        path = wanted.root / old["video"]
        if path.is_file() and path.stat().st_size == old["bytes"]:
            store.disk.remove(path)
        elif path.is_file():
            changed.append(old)
    if notes.get("interrupted", []) != changed:
        store.describe(interrupted=changed)
    if not _same_file(store, wanted, run):
        return None
    path = wanted.root / notes["video"]
    if path.exists() or not path.parent.is_dir() or not _claim(store, path, noted=True):
        return None
    store.disk.remove(VideoWriter.part_of(path))
    # A disk too full for the video was too full for the note of it as well.
    for left in VideoWriter.interrupted_of(path):
        if _name(left, wanted) not in [old["video"] for old in changed]:
            store.disk.remove(left)
    return path


def _claim(store: RunStore, path: Path, noted: bool = False) -> bool:
    """Take the name of a video by the report beside it, or see that this run has it already.

    Two servers with one output folder make two videos at once, and would choose the same name. noted: this run has had
    the name before, so that what cannot be read there is its own, from a power cut.
    """
    report = path.with_suffix(".json")
    if store.disk.create(report, json.dumps(_placeholder(store)).encode()):
        return True
    found = read_object(report)
    return noted if found is None else found.get("run") == _placeholder(store)["run"]


def _placeholder(store: RunStore) -> dict[str, Any]:
    """What stands in a report before there is one."""
    return {"run": f"{store.folder.parent.name}/{store.folder.name}", "complete": False}


@contextlib.contextmanager
def _freeing(store: RunStore, path: Path) -> Iterator[None]:
    """Give a claimed name back where an early end leaves nothing under it."""
    try:
        yield
    except BaseException:
        report = path.with_suffix(".json")
        with contextlib.suppress(OSError):  # a second failure must not hide the first one
            if read_object(report) == _placeholder(store):
                store.disk.remove(report)
        raise


def _finished_earlier(store: RunStore, wanted: OutputSpec, run: Run) -> Outcome | None:
    """The video that this very run has become already, if it is still there and still the same."""
    notes = store.manifest
    if not notes.get("result") or not _same_file(store, wanted, run):
        return None
    path = wanted.root / notes["video"]
    if not path.is_file() or file_fingerprint(path) != notes["result"].get("fingerprint"):
        return None
    report = path.with_suffix(".json")
    text = report.read_text(encoding="utf-8") if report.is_file() else json.dumps(notes.get("report", {}))
    log.info("InfiniteTalk: this video was made before and is taken as it is (start_over makes it anew): %s", path)
    return Outcome(path, text, len(run.steps))


def _name(path: Path, wanted: OutputSpec) -> str:
    return path.relative_to(wanted.root).as_posix()

"""Execution of a run from its folder: resumes where it stopped, and leaves it resumable if it fails again."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..audio.sound import Sound
from ..errors import RunError
from ..file_access import is_own_file, read_object
from ..fingerprint import file_fingerprint
from ..log import log
from ..video.writer import VideoWriter, free_path, is_interrupted_name, is_part_name
from .disk import Disk
from .lock import RunLock
from .other_versions import begun_with_other_versions
from .readable_report import write_readable_report
from .run_log import RunLog
from .runner import ChunkListener, Run
from .sound_encoding import encoded_sound
from .store import RunStore

LOCK = "lock"


@dataclass(frozen=True)
class OutputSpec:
    """The output video of a run.

    key_contents: everything that changes the video, as JSON, from which the run's key is computed; filename_prefix: the
    name chosen by the user; root: folder to which file names in the manifest are relative; new_path: returns a free
    path made from that name; metadata: tags of the file; sound: the video's sound; report: (metrics of the chunks,
    whether the video is complete, index of the first chunk made now) -> the text of the JSON file beside the video,
    with the run's folder as `run`; readable: whether that report is also written as a text for people.
    """

    key_contents: Mapping[str, Any]
    filename_prefix: str
    root: Path
    new_path: Callable[[], Path]
    metadata: Mapping[str, str]
    sound: Sound
    report: Callable[[list[dict[str, Any]], bool, int], str]
    readable: bool = False


@dataclass(frozen=True)
class RunOptions:
    """start_over: discard stored chunks; keep: keep the chunks of a finished run, so that some can be made again."""

    start_over: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Outcome:
    """A finished video and the text of its report.

    continued_at: index of the first chunk that was made now; made: number of chunks that were made now; whole: False
    for the video of a first chunk only; existed: whether an earlier execution had finished it.
    """

    path: Path
    report: str
    continued_at: int
    made: int
    whole: bool
    existed: bool = False


class RunListener(ChunkListener, Protocol):
    """Callbacks of `execute_run`, in addition to those of the chunks."""

    def found(self, done: int, missing: int, store: RunStore) -> None:
        """Called before the work. done: chunks before the first missing one; missing: chunks to make in all."""

    def check_interrupted(self) -> None:
        """Called repeatedly during longer work; an exception from it stops the run."""


def execute_run(
    folder: Path,
    spec: OutputSpec,
    run_in: Callable[[RunStore], Run],
    listener: RunListener,
    options: RunOptions,
    disk: Disk | None = None,
) -> Outcome:
    """Execute the run in `folder`, resuming it if it was begun before, and return the finished video.

    run_in: creates the run for an open store. On any exception the run stays resumable, and the video made so far is
    kept as `…_interrupted.mp4`.
    """
    disk = disk or Disk()
    disk.make_folder(folder)
    if folder.is_symlink():
        raise RunError(f"the run's folder {folder} is a link; remove it, then run again")
    with RunLock(folder / LOCK) as lock:
        store = RunStore(folder, lock, disk=disk, keep_all=options.keep, start_over=options.start_over)
        run = run_in(store)
        store.keep_all |= run.job.first_chunk_only  # the whole video goes on from its files
        outcome, notes = _load_finished(store, spec, run), {}
        if outcome is None:
            outcome, run_log = _make_video(store, spec, run, listener)
            notes = {"executions": run_log.entries}
        state = "finished" if outcome.whole else "unfinished"
        store.describe(state=state, report=json.loads(outcome.report), **notes)
        if outcome.whole and not options.keep:
            store.remove_intermediates()
        return outcome


def _make_video(store: RunStore, spec: OutputSpec, run: Run, listener: RunListener) -> tuple[Outcome, RunLog]:
    """Make the missing chunks and the video file. Returns the outcome and the log of this execution."""
    begun = bool(store.manifest)
    earlier = _reusable_path(store, spec, run)
    unmade = [i for i, task in enumerate(run.tasks) if not run.done(task)]
    done = unmade[0] if unmade else len(run.tasks)
    run_log = RunLog(store, done)
    with run_log.noting_failure():
        other = None if begun else begun_with_other_versions(store.folder.parent, spec.key_contents)
        if other is not None:
            listener.warn(str(other))
        path = earlier or spec.new_path()
        while True:
            part = free_path(VideoWriter.part_of(path))
            # Written to the manifest before it is claimed, so that a power cut in between does not lose the name.
            store.describe(
                key_contents=spec.key_contents,
                filename_prefix=spec.filename_prefix,
                variant=run.variant,
                state="unfinished",
                video=_relative_name(path, spec),
                part=_relative_name(part, spec),
                result=None,
                executions=run_log.entries,
            )
            if path == earlier or _claim_path(store, path):
                break
            path = spec.new_path()
        with _release_on_failure(store, path, part):
            listener.found(done, len(unmade), store)
            with encoded_sound(store, spec.sound, listener.check_interrupted) as sound:
                whole = not run.job.first_chunk_only
                writer = VideoWriter(path, sound, part=part, whole_sound=whole, metadata=spec.metadata)
                report = _write_video(store, spec, run, writer, listener, done)
    run_log.finish()
    return Outcome(path, report, done, len(unmade), whole), run_log


def _write_video(
    store: RunStore, spec: OutputSpec, run: Run, writer: VideoWriter, listener: RunListener, done: int
) -> str:
    """Write the video file and return its report, which is stored beside the file before that gets its final name."""
    metrics: list[dict[str, Any]] = []
    whole = not run.job.first_chunk_only

    def closed(part: Path) -> None:
        _write_report(store, spec, writer.path, spec.report(metrics, whole, done))
        store.describe(result={"fingerprint": file_fingerprint(part)})

    def kept(part: Path, target: Path) -> None:
        note = {
            "video": _relative_name(target, spec),
            "bytes": part.stat().st_size,
            "fingerprint": file_fingerprint(part),
        }
        try:
            _write_report(store, spec, writer.path, spec.report(metrics, False, done))
            store.describe(interrupted=[*store.manifest.get("interrupted", []), note])
        except RunError as error:  # another process has the run, and must not find a note that is not its own
            raise OSError(str(error)) from error

    writer.on_closed, writer.on_kept = closed, kept
    with writer:
        run.execute(writer, listener, metrics)
    return spec.report(metrics, whole, done)


def _write_report(store: RunStore, spec: OutputSpec, video: Path, text: str) -> None:
    """Write the report beside the video, unless somebody has put another file there."""
    path = video.with_suffix(".json")
    found = read_object(path)
    if found is not None and not _is_own_report(store, found):
        log.warning("%s is another program's, so the report of this video is only in the run's folder", path)
        return
    store.disk.write(path, text.encode())
    if spec.readable:
        write_readable_report(store.disk, video, json.loads(text))


def _is_same_video(store: RunStore, spec: OutputSpec, variant: str) -> bool:
    """Return whether the manifest describes this video: the same name, and the same variant of the run."""
    notes = store.manifest
    named = bool(notes.get("video")) and notes.get("filename_prefix") == spec.filename_prefix
    return named and notes.get("variant") == variant


def _reusable_path(store: RunStore, spec: OutputSpec, run: Run) -> Path | None:
    """Return the path the video was written to before, if it is still free, else None.

    Deletes the run's interrupted videos, except those that the user has changed.
    """
    store.lock.check()
    notes = store.manifest
    kept = notes.get("interrupted", [])
    for old in kept:
        path = spec.root / old["video"]
        if is_interrupted_name(path) and _is_unchanged(path, old):
            store.disk.remove(path)
    left = [old for old in kept if (spec.root / old["video"]).is_file()]  # the user has changed them
    if left != kept:
        store.describe(interrupted=left)
    if not _is_same_video(store, spec, run.variant):
        return None
    path = spec.root / notes["video"]
    claimed = os.path.lexists(path.with_suffix(".json"))  # by this run, if the next line says so
    if path.exists() or not path.parent.is_dir() or not _claim_path(store, path, recorded=True):
        return None
    part = spec.root / notes.get("part", notes["video"])
    if claimed and is_part_name(part, path) and is_own_file(part):
        store.disk.remove(part)
    return path


def _is_unchanged(path: Path, noted: Mapping[str, Any]) -> bool:
    """Return whether a file is the one of this note: its size and content."""
    return (
        is_own_file(path) and path.stat().st_size == noted["bytes"] and file_fingerprint(path) == noted["fingerprint"]
    )


def _claim_path(store: RunStore, path: Path, recorded: bool = False) -> bool:
    """Reserve a video name by creating its report file. Returns whether this run has the name, from now or from before.

    Needed because two servers with one output folder may choose the same name at once. recorded: the manifest says that
    this run had the name, so an unreadable report is its own, from a power cut.
    """
    report = path.with_suffix(".json")
    if store.disk.create(report, json.dumps(_placeholder(store)).encode()):
        return True
    found = read_object(report)
    return recorded if found is None else _is_own_report(store, found)


def _placeholder(store: RunStore) -> dict[str, Any]:
    """Return the content of a report file that only reserves a name."""
    return {"run": f"{store.folder.parent.name}/{store.folder.name}", "complete": False}


def _is_own_report(store: RunStore, report: Mapping[str, Any]) -> bool:
    """Return whether the report beside a video says that it is this run's."""
    return report.get("run") == _placeholder(store)["run"]


@contextlib.contextmanager
def _release_on_failure(store: RunStore, path: Path, part: Path) -> Iterator[None]:
    """Delete the report that reserves the name of `path` if the block raises before a real report is written.

    With a part file the name is still taken, and says to the next execution whose that file is.
    """
    try:
        yield
    except BaseException:
        report = path.with_suffix(".json")
        with contextlib.suppress(OSError):  # a failure of this must not hide the first exception
            if read_object(report) == _placeholder(store) and not is_own_file(part):
                store.disk.remove(report)
        raise


def _load_finished(store: RunStore, spec: OutputSpec, run: Run) -> Outcome | None:
    """Return the outcome of an earlier execution if its video exists and is unchanged, else None.

    The whole video is also the outcome where its first chunk is wanted: nothing is left to be tried.
    """
    notes = store.manifest
    whole = _is_same_video(store, spec, run.whole_variant)
    if not notes.get("result") or not (whole or _is_same_video(store, spec, run.variant)):
        return None
    path = spec.root / notes["video"]
    if not path.is_file() or file_fingerprint(path) != notes["result"].get("fingerprint"):
        return None
    found = read_object(path.with_suffix(".json"))
    mine = found is not None and _is_own_report(store, found)
    text = json.dumps(found if mine else notes.get("report", {}), indent=1)
    part = spec.root / notes.get("part", notes["video"])
    if is_part_name(part, path) and is_own_file(part) and part.samefile(path):  # ended between its two names
        store.disk.remove(part)
    log.info("this video was made before and is taken as it is (start_over makes it anew): %s", path)
    return Outcome(path, text, len(run.tasks), 0, whole, existed=True)


def _relative_name(path: Path, spec: OutputSpec) -> str:
    return path.relative_to(spec.root).as_posix()

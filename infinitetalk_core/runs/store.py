"""Storage of a run on disk: its manifest, finished chunks, and the context frames for the next chunk.

One folder per run, named by the run's key:

    run.json            manifest: description and state of the run; written at its beginning and its end
    sound.mp4, .json    the encoded sound of the video, and its record
    00004-5f….mp4       the encoded frames of a chunk
    00004-5f….context   its last frames as floats: the context frames of the next chunk
    00004-5f….json      its record: sizes and checksums of the two files above, and the chunk's metrics
    lock                the lock file, with its owner

A chunk is finished when its record, which is written last, exists. Its other files are verified against the record. The
manifest and each record contain the key, so files copied from another run are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ..chunks.context import ContextFrames
from ..errors import InputError
from ..log import log
from .disk import SCRATCH, Disk
from .lock import RunLock
from .tasks import ChunkTask

FORMAT, VERSION = "infinitetalk run", 2
MANIFEST, SOUND = "run.json", "sound"
CONTEXT_EVERY = 8  # the context frames of every 8th chunk are kept, so that a damaged file costs at most so many chunks


class RunStore:
    """The folder of one run. The caller holds `lock`. Every change is atomic.

    Raises RunError if another process has taken the run, InputError if a newer version of the pack began it, OSError if
    the disk fails.
    """

    def __init__(
        self, folder: Path, lock: RunLock, *, disk: Disk | None = None, keep_all: bool = False, start_over: bool = False
    ) -> None:
        """keep_all: keep the context frames of all chunks, so that any can be redone; start_over: delete old files."""
        self.folder, self.lock, self.disk, self.keep_all = folder, lock, disk or Disk(), keep_all
        self.bytes_used = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        # Partly written files of a crash.
        self._remove(folder.glob("*" + SCRATCH))
        if start_over:
            self._remove(path for path in folder.iterdir() if path.name != lock.path.name)
        self.manifest = read_manifest(folder)
        if self.manifest.get("version", 0) > VERSION:
            raise InputError(
                f"the unfinished run in {self.folder} was begun by a newer version of this pack (format "
                f"{self.manifest['version']}, this one knows {VERSION}); update the pack, or switch start_over on"
            )

    @property
    def key(self) -> str:
        """The run's key, which is the name of its folder."""
        return self.folder.name

    def describe(self, **changes: Any) -> None:
        """Rewrite run.json with these entries changed."""
        self.manifest = {**self.manifest, "format": FORMAT, "version": VERSION, "key": self.key, **changes}
        self._write(self.folder / MANIFEST, json.dumps(self.manifest, indent=1, ensure_ascii=False).encode())

    def remove_intermediates(self) -> None:
        """Delete everything except run.json and the lock."""
        self._remove(p for p in self.folder.iterdir() if p.name not in (self.lock.path.name, MANIFEST))

    # -- the sound

    def sound(self) -> Path | None:
        """Return the file of the encoded sound; None if it is missing or damaged."""
        path = self.folder / f"{SOUND}.mp4"
        return path if self._read_verified(SOUND, path) is not None else None

    def put_sound(self, encoded: bytes) -> Path:
        """Store the encoded sound and return its file."""
        path = self.folder / f"{SOUND}.mp4"
        self._write_with_record(SOUND, {path.name: encoded}, {})
        return path

    # -- the chunks

    def done(self, task: ChunkTask) -> bool:
        """Return whether a chunk has a record and a file of the recorded size. Does not read the file."""
        entry = self._files(task.stem).get(f"{task.stem}.mp4", {})
        try:
            return (self.folder / f"{task.stem}.mp4").stat().st_size == entry.get("bytes")
        except OSError:
            return False

    def record(self, task: ChunkTask) -> dict[str, Any]:
        """Return the metrics of a finished chunk; empty if it is not finished."""
        return self._record(task.stem).get("metrics", {})

    def segment(self, task: ChunkTask) -> bytes | None:
        """Return a chunk's frames as encoded by `encode_segment`; None if they are missing or damaged."""
        return self._read_verified(task.stem, self.folder / f"{task.stem}.mp4")

    def context(self, task: ChunkTask) -> ContextFrames | None:
        """Return the context frames for the next chunk, bit-exact; None if they are missing or damaged."""
        data = self._read_verified(task.stem, self.folder / f"{task.stem}.context")
        if data is None:
            return None
        chunk = task.chunk
        frames = load_tensors(data)["frames"]
        return ContextFrames(frames, chunk.start + chunk.length - len(frames))

    def commit(
        self, task: ChunkTask, segment: bytes, context: ContextFrames | None, metrics: Mapping[str, Any]
    ) -> None:
        """Store a finished chunk and delete context frames that are no longer needed.

        context: None if no chunk continues from it.
        """
        self.lock.check()
        files = {f"{task.stem}.mp4": segment}
        if context is not None:
            files[f"{task.stem}.context"] = save_tensors({"frames": context.frames.cpu().contiguous()})
        self._write_with_record(task.stem, files, metrics)
        if not self.keep_all:
            older = ((int(path.name[:5]), path) for path in self.folder.glob("*.context"))
            self._remove(path for number, path in older if number < task.chunk.index and number % CONTEXT_EVERY)

    # -- files

    def _write_with_record(self, stem: str, files: Mapping[str, bytes], metrics: Mapping[str, Any]) -> None:
        """Write files, then their record, which marks them as finished."""
        for name, data in files.items():
            self._write(self.folder / name, data)
        sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
        record = {"key": self.key, "metrics": dict(metrics), "files": sums}
        text = json.dumps({"record": record, "sha256": _checksum(record)}, indent=1)
        self._write(self.folder / f"{stem}.json", text.encode())

    def _files(self, stem: str) -> dict[str, Any]:
        """Return sizes and checksums by file name, from the record of `stem`."""
        return self._record(stem).get("files", {})

    def _record(self, stem: str) -> dict[str, Any]:
        return _read_record(self.folder / f"{stem}.json")

    def _write(self, path: Path, data: bytes) -> None:
        before = path.stat().st_size if path.exists() else 0
        self.disk.write(path, data)
        self.bytes_used += len(data) - before

    def _remove(self, paths: Any) -> None:
        for path in list(paths):
            if path.exists():
                self.bytes_used -= path.stat().st_size
                self.disk.remove(path)

    def _read_verified(self, stem: str, path: Path) -> bytes | None:
        """Read a file and verify it against its record; None if it is missing or damaged."""
        entry = self._files(stem).get(path.name)
        if entry is None or not path.exists():
            return None
        data = path.read_bytes()
        if len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]:
            return data
        log.warning("%s is damaged and is made again", path)
        return None


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None if it is missing or invalid."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a run's run.json; empty if it is missing, damaged, of another run or of an older format, whose chunks are
    ignored. A run can continue without it, because the key already identifies the run."""
    found = read_object(folder / MANIFEST) or {}
    version = found.get("version")
    if found.get("format") != FORMAT or not isinstance(version, int) or version < VERSION:
        return {}
    return found if version > VERSION or found.get("key") == folder.name else {}


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of all records in a run's folder, chunks that were made again included."""
    records = [_read_record(path) for path in sorted(folder.glob("[0-9]*.json"))]
    return [record["metrics"] for record in records if record]


def _read_record(path: Path) -> dict[str, Any]:
    """Read a record; empty if it is missing, fails its checksum, or belongs to another run."""
    found = read_object(path) or {}
    record = found.get("record", {})
    whole = isinstance(record, dict) and found.get("sha256") == _checksum(record)
    return record if whole and record.get("key") == path.parent.name else {}


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

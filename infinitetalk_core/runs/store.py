"""Storage of a run on disk: its manifest, finished chunks, encoded groups, and context frames for the next chunk.

One folder per run, named by the run's key:

    run.json            manifest: description and state of the run; written at its beginning and its end
    sound.mp4, .json    the encoded sound of the video, and its record
    00004-5f….mp4       the frames of a chunk without loss, until all groups that contain them are encoded
    00004-5f….context   its last frames as floats: the context frames of the next chunk
    00004-5f….json      its record: sizes and checksums of the two files above, and the chunk's metrics
    g00003-5f….mp4      an encoded group of pictures: a piece of the video
    g00003-5f….json     its record
    lock                the lock file, with its owner

A chunk is finished when its record, which is written last, exists. Its other files are verified against the record. The
manifest and each record contain the key, so files copied from another run are ignored. Nothing read here is trusted,
and nothing is touched whose name the pack does not give: an API client and other programs can write to this folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from av import VideoFrame
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ..chunks.context import ContextFrames
from ..errors import InputError
from ..file_access import is_own_file, read_object, read_regular
from ..log import log
from ..video.segment import decode_lossless, encode_lossless
from .disk import SCRATCH, Disk
from .lock import RunLock
from .manifest import MANIFEST, VERSION, checksum, encode_manifest, read_manifest
from .tasks import ChunkTask, GroupTask

SOUND = "sound"
CONTEXT_EVERY = 8  # the context frames of every 8th chunk are kept, so that a damaged file costs at most so many chunks
_OWN = r"(run\.json|sound\.(mp4|json)|g?[0-9]{5,}-[0-9a-f]{10}\.(mp4|context|json))(\.new)?"
_CHUNK_FRAMES = r"([0-9]{5,})-[0-9a-f]{10}\.mp4"
_CONTEXT = r"([0-9]{5,})-[0-9a-f]{10}\.context"


class RunStore:
    """The folder of one run. The caller holds `lock`. Every change is atomic, also from several threads.

    Raises RunError if another process has taken the run, InputError if a newer version of the pack began it, OSError if
    the disk fails.
    """

    def __init__(
        self, folder: Path, lock: RunLock, *, disk: Disk | None = None, keep_all: bool = False, start_over: bool = False
    ) -> None:
        """keep_all: keep frames and context frames of all chunks, so that any can be redone; start_over: delete old
        files."""
        self.folder, self.lock, self.disk, self.keep_all = folder, lock, disk or Disk(), keep_all
        # Called in the thread that stores a chunk, at once: listeners of a run hear of it only after the next step.
        self.on_commit: Callable[[ChunkTask, Mapping[str, Any]], None] = lambda task, metrics: None
        self._changing = threading.RLock()
        self.bytes_used = sum(path.stat().st_size for path in own_files(folder))
        # Partly written files of a crash.
        self._remove(path for path in own_files(folder) if path.suffix == SCRATCH)
        if start_over:
            self._remove(own_files(folder))
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
        with self._changing:
            self.manifest = {**self.manifest, **changes}
            self._write(self.folder / MANIFEST, encode_manifest(self.key, self.manifest))

    def remove_intermediates(self) -> None:
        """Delete all files of the run except run.json and the lock."""
        self._remove(path for path in own_files(self.folder) if path.name != MANIFEST)

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

    def has_record(self, task: ChunkTask) -> bool:
        """Return whether a chunk was finished, whatever became of its frames."""
        return bool(self.record(task))

    def has_frames(self, task: ChunkTask) -> bool:
        """Return whether a chunk has a record and its frames the recorded size. Does not read the frames."""
        return self._has_file(task.stem, ".mp4")

    def record(self, task: ChunkTask) -> dict[str, Any]:
        """Return the metrics of a finished chunk; empty if it is not finished."""
        metrics = self._record(task.stem).get("metrics", {})
        fit = metrics.get("frames") == task.chunk.keep and isinstance(metrics.get("seconds_taken"), (int, float))
        return metrics if fit else {}

    def pictures(self, task: ChunkTask) -> list[VideoFrame] | None:
        """Return a chunk's new frames as given to `commit`; None if they are missing or damaged."""
        data = self._read_verified(task.stem, self.folder / f"{task.stem}.mp4")
        found = None if data is None else decode_lossless(data)
        if found is None or len(found) != task.chunk.keep:
            return None
        return found

    def context(self, task: ChunkTask) -> ContextFrames | None:
        """Return the context frames for the next chunk, bit-exact; None if they are missing or damaged."""
        data = self._read_verified(task.stem, self.folder / f"{task.stem}.context")
        if data is None:
            return None
        try:
            frames = load_tensors(data).get("frames")
        except SafetensorError:
            return None
        if frames is None or frames.dim() != 4 or frames.dtype != torch.float32 or len(frames) > task.chunk.length:
            return None
        return ContextFrames(frames, task.chunk.start + task.chunk.length - len(frames))

    def commit(
        self,
        task: ChunkTask,
        pictures: list[VideoFrame],
        context: ContextFrames | None,
        metrics: Mapping[str, Any],
    ) -> None:
        """Store a finished chunk and delete context frames that are no longer needed.

        pictures: its new frames, from `to_pictures`; context: None if no chunk continues from it.
        """
        files = {f"{task.stem}.mp4": encode_lossless(pictures)}
        if context is not None:
            files[f"{task.stem}.context"] = save_tensors({"frames": context.frames.cpu().contiguous()})
        self._write_with_record(task.stem, files, metrics)
        if not self.keep_all:
            older = self._numbered(_CONTEXT)
            self._remove(path for number, path in older if number < task.chunk.index and number % CONTEXT_EVERY)
        self.on_commit(task, metrics)

    # -- the groups

    def has_group(self, group: GroupTask) -> bool:
        """Return whether a group has a record and a file of the recorded size. Does not read the file."""
        return self._has_file(group.stem, ".mp4")

    def group(self, group: GroupTask) -> bytes | None:
        """Return the encoded group; None if it is missing or damaged."""
        return self._read_verified(group.stem, self.folder / f"{group.stem}.mp4")

    def put_group(self, group: GroupTask, segment: bytes) -> None:
        """Store an encoded group, and delete the frames of chunks that no later group contains."""
        self._write_with_record(group.stem, {f"{group.stem}.mp4": segment}, {})
        if not self.keep_all:
            ended = max((task.chunk.index for task in group.tasks if task.chunk.stop <= group.group.stop), default=-1)
            self._remove(path for number, path in self._numbered(_CHUNK_FRAMES) if number <= ended + 1)

    # -- files

    def _has_file(self, stem: str, suffix: str) -> bool:
        entry = self._files(stem).get(f"{stem}{suffix}", {})
        path = self.folder / f"{stem}{suffix}"
        try:
            return is_own_file(path) and path.stat().st_size == entry.get("bytes")
        except OSError:
            return False

    def _numbered(self, pattern: str) -> list[tuple[int, Path]]:
        """Return own files whose names match `pattern`, with the number of their chunk, from 1."""
        found = ((re.fullmatch(pattern, path.name), path) for path in own_files(self.folder))
        return [(int(match[1]), path) for match, path in found if match]

    def _write_with_record(self, stem: str, files: Mapping[str, bytes], metrics: Mapping[str, Any]) -> None:
        """Write files, then their record, which marks them as finished."""
        for name, data in files.items():
            self._write(self.folder / name, data)
        sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
        record = {"key": self.key, "metrics": dict(metrics), "files": sums}
        text = json.dumps({"record": record, "sha256": checksum(record)}, indent=1)
        self._write(self.folder / f"{stem}.json", text.encode())

    def _files(self, stem: str) -> dict[str, Any]:
        """Return sizes and checksums by file name, from the record of `stem`."""
        return self._record(stem).get("files", {})

    def _record(self, stem: str) -> dict[str, Any]:
        return _read_record(self.folder / f"{stem}.json")

    def _write(self, path: Path, data: bytes) -> None:
        self.lock.check()
        with self._changing:
            before = path.lstat().st_size if path.exists() else 0
            self.disk.write(path, data)
            self.bytes_used += len(data) - before

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            self.lock.check()
            with self._changing:
                self.bytes_used -= path.lstat().st_size
                self.disk.remove(path)

    def _read_verified(self, stem: str, path: Path) -> bytes | None:
        """Read a file and verify it against its record; None if it is missing or damaged."""
        entry = self._files(stem).get(path.name)
        data = None if entry is None else read_regular(path, entry["bytes"])
        if entry is None or (data is None and not path.exists()):
            return None
        if data is not None and len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]:
            return data
        log.warning("%s is damaged and is made again", path)
        return None


def own_files(folder: Path) -> list[Path]:
    """Return the regular files in a run's folder that have one of the pack's names there, except the lock."""
    return [path for path in sorted(folder.iterdir()) if re.fullmatch(_OWN, path.name) and is_own_file(path)]


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of all records in a run's folder, chunks that were made again included."""
    records = [_read_record(path) for path in sorted(folder.glob("[0-9]*.json"))]
    return [record["metrics"] for record in records if record]


def _read_record(path: Path) -> dict[str, Any]:
    """Read a record; empty if it is missing, fails its checksum, belongs to another run or has other contents."""
    found = read_object(path) or {}
    record = found.get("record")
    if not isinstance(record, dict) or found.get("sha256") != checksum(record) or record.get("key") != path.parent.name:
        return {}
    files = record.get("files")
    fit = isinstance(record.get("metrics"), dict) and isinstance(files, dict) and all(map(_is_entry, files.values()))
    return record if fit else {}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)

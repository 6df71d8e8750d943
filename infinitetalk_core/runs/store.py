"""A run on the disk: what it is, what of it is finished, and what the next chunk continues from.

A folder a run, named by its key:

    run.json            what the run is made of, and how far it came; written at its beginning and its end
    sound.mp4, .json    the sound as it goes into the video
    00004-5f….mp4       the pictures of a chunk
    00004-5f….tail      its last frames, as the floats they are
    00004-5f….json      its record: sizes and checksums of the two above, and its numbers
    lock                who writes it

A chunk counts from the moment its record is there, which is written last. Everything else is checked against it. The
manifest and each record name the key, so files of another run that were copied here do not count.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ..chunks.dub import ContextFrames
from ..errors import InputError
from .disk import SCRATCH, Disk
from .lock import RunLock
from .tasks import ChunkTask

FORMAT, VERSION = "infinitetalk run", 2
MANIFEST, SOUND = "run.json", "sound"
TAIL_EVERY = 8  # of the tails of earlier chunks, each so many-th stays: a damaged file costs no more than these

log = logging.getLogger("infinitetalk")


class RunStore:
    """The folder of one run, under a lock that its opener holds. Every change to it is whole or not there.

    Raises InputError where another process or a newer version of the pack has the run, OSError where the disk fails.
    """

    def __init__(
        self, folder: Path, lock: RunLock, *, disk: Disk | None = None, keep_all: bool = False, start_over: bool = False
    ) -> None:
        """keep_all: tails of all chunks, so that any of them can be made again; start_over: forget what is there."""
        self.folder, self.lock, self.disk, self.keep_all = folder, lock, disk or Disk(), keep_all
        self.bytes_used = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        # Of a crash: half written.
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
        """What the run is known by: the name of its folder."""
        return self.folder.name

    def describe(self, **changes: Any) -> None:
        """Write run.json anew with these entries."""
        self.manifest = {**self.manifest, "format": FORMAT, "version": VERSION, "key": self.key, **changes}
        self._write(self.folder / MANIFEST, json.dumps(self.manifest, indent=1, ensure_ascii=False).encode())

    def give_up_intermediates(self) -> None:
        """Keep run.json only."""
        self._remove(p for p in self.folder.iterdir() if p.name not in (self.lock.path.name, MANIFEST))

    # -- the sound

    def sound(self) -> Path | None:
        """The encoded sound, if it is there and whole."""
        path = self.folder / f"{SOUND}.mp4"
        return path if self._whole(SOUND, path) is not None else None

    def put_sound(self, encoded: bytes) -> Path:
        """Keep the encoded sound."""
        path = self.folder / f"{SOUND}.mp4"
        self._put(SOUND, {path.name: encoded}, {})
        return path

    # -- the chunks

    def done(self, step: ChunkTask) -> bool:
        """Whether the pictures of a step seem to be there: their record, and a file of the right size."""
        entry = self._files(step.stem).get(f"{step.stem}.mp4", {})
        try:
            return (self.folder / f"{step.stem}.mp4").stat().st_size == entry.get("bytes")
        except OSError:
            return False

    def record(self, step: ChunkTask) -> dict[str, Any]:
        """The numbers of a finished step; empty if it is not finished."""
        return self._record(step.stem).get("numbers", {})

    def segment(self, step: ChunkTask) -> bytes | None:
        """The pictures of a step (what `encode_segment` gave); None if they are not there or damaged."""
        return self._whole(step.stem, self.folder / f"{step.stem}.mp4")

    def tail(self, step: ChunkTask) -> ContextFrames | None:
        """What the next chunk continues from, bit by bit; None if it is not there or damaged."""
        data = self._whole(step.stem, self.folder / f"{step.stem}.tail")
        if data is None:
            return None
        chunk = step.chunk
        frames = load_tensors(data)["frames"]
        return ContextFrames(frames, chunk.start + chunk.length - len(frames))

    def commit(self, step: ChunkTask, segment: bytes, tail: ContextFrames | None, numbers: Mapping[str, Any]) -> None:
        """Keep a finished step; tail: None if nothing continues from it. Tails that are not needed any more go."""
        self.lock.check()
        files = {f"{step.stem}.mp4": segment}
        if tail is not None:
            files[f"{step.stem}.tail"] = save_tensors({"frames": tail.frames.cpu().contiguous()})
        self._put(step.stem, files, numbers)
        if not self.keep_all:
            older = ((int(path.name[:5]), path) for path in self.folder.glob("*.tail"))
            self._remove(path for number, path in older if number < step.chunk.index and number % TAIL_EVERY)

    # -- files

    def _put(self, stem: str, files: Mapping[str, bytes], numbers: Mapping[str, Any]) -> None:
        """Write files, and then the record that makes them count."""
        for name, data in files.items():
            self._write(self.folder / name, data)
        sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
        record = {"key": self.key, "numbers": dict(numbers), "files": sums}
        text = json.dumps({"record": record, "sha256": _sum_of(record)}, indent=1)
        self._write(self.folder / f"{stem}.json", text.encode())

    def _files(self, stem: str) -> dict[str, Any]:
        """Sizes and checksums by name, from a record."""
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

    def _whole(self, stem: str, path: Path) -> bytes | None:
        """The content of a file if it is what its record says."""
        entry = self._files(stem).get(path.name)
        if entry is None or not path.exists():
            return None
        data = path.read_bytes()
        if len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]:
            return data
        log.warning("InfiniteTalk: %s is damaged and is made again", path)
        return None


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a run's run.json says; empty if there is none, if it is damaged or of another run: it only repeats what the
    key stands for. Of older formats too: their chunks do not count."""
    found = read_object(folder / MANIFEST) or {}
    version = found.get("version")
    if found.get("format") != FORMAT or not isinstance(version, int) or version < VERSION:
        return {}
    return found if version > VERSION or found.get("key") == folder.name else {}


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The numbers of a run's finished chunks, also of those that were made again."""
    records = [_read_record(path) for path in sorted(folder.glob("[0-9]*.json"))]
    return [record["numbers"] for record in records if record]


def _read_record(path: Path) -> dict[str, Any]:
    """What a record says; empty if there is none, a bit of it is wrong, or it is another run's."""
    found = read_object(path) or {}
    record = found.get("record", {})
    whole = isinstance(record, dict) and found.get("sha256") == _sum_of(record)
    return record if whole and record.get("key") == path.parent.name else {}


def _sum_of(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

"""run.json of a run: its name, state and video. What it says is not trusted: each entry is checked on reading.

The file is in ComfyUI's output folder, where an API client can write, and disks fail. An entry that is not as
docs/run.schema.json says is left out; chunks need none of them, since their records have checksums of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..file_access import read_object
from ..log import log
from ..video.writer import CONTAINERS

FORMAT, VERSION = "infinitetalk run", 3
MANIFEST = "run.json"
CHECKSUM = "sha256"
LONGEST_PATH = 4000
_UNFIT = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]"  # in no file name
_FINGERPRINT = r"[0-9a-zA-Z:_-]{1,200}"


def is_video_name(value: object) -> bool:
    """Return whether `value` is the name of a video relative to the output folder, and inside it."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_PATH or re.search(_UNFIT, value):
        return False
    path, on_windows = PurePosixPath(value), PureWindowsPath(value)
    inside = not path.is_absolute() and not on_windows.anchor and ".." not in (*path.parts, *on_windows.parts)
    return inside and path.suffix.lower() in CONTAINERS and not (os.name == "nt" and ":" in value)


def _is_result(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and _is_fingerprint(value.get("fingerprint"))


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(_FINGERPRINT, value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_interrupted(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(kept, dict)
        and is_video_name(kept.get("video"))
        and _is_count(kept.get("bytes"))
        and _is_fingerprint(kept.get("fingerprint"))
        for kept in value
    )


def _is_executions(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("warnings"), list) for entry in value
    )


_VALID: Mapping[str, Callable[[Any], bool]] = {
    "key_contents": lambda value: isinstance(value, dict),
    "filename_prefix": lambda value: isinstance(value, str),
    "variant": lambda value: isinstance(value, str),
    "state": lambda value: value in ("unfinished", "finished"),
    "video": is_video_name,
    "part": is_video_name,
    "result": _is_result,
    "interrupted": _is_interrupted,
    "executions": _is_executions,
    "plain_attention_from": lambda value: _is_count(value) and value > 0,
    "report": lambda value: isinstance(value, dict),
}


def encode_manifest(key: str, entries: Mapping[str, Any]) -> bytes:
    """Return the content of run.json with its checksum."""
    whole = json.loads(json.dumps({**entries, "format": FORMAT, "version": VERSION, "key": key}))
    return json.dumps({**whole, CHECKSUM: checksum(whole)}, indent=1, ensure_ascii=False).encode(errors="replace")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a run's run.json; empty if it is missing, unreadable, of another run or of an older format.

    A damaged file gives its valid entries. The entry `version` is there only if a newer version wrote the file.
    """
    found = read_object(folder / MANIFEST)
    if found is None:
        return {}
    whole = found.get(CHECKSUM) == checksum({name: value for name, value in found.items() if name != CHECKSUM})
    version = found.get("version")
    if whole or CHECKSUM not in found:
        if found.get("format") != FORMAT or not isinstance(version, int) or version < VERSION:
            return {}
        if version > VERSION:
            return {"version": version}
        if found.get("key") != folder.name:
            return {}
    valid = {name: found[name] for name, fits in _VALID.items() if name in found and fits(found[name])}
    if not whole:
        lost = sorted(set(found) & set(_VALID) - set(valid))
        what = f" ({', '.join(lost)} lost)" if lost else ""
        log.warning(
            "%s is damaged%s; what is valid in it is used, and finished chunks are kept", folder / MANIFEST, what
        )
    return valid


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, independent of the order of its names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode(errors="replace")).hexdigest()

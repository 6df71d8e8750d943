"""Damage to the folder of a run, as disks, other programs and API clients do it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from infinitetalk_core.file_access import read_object
from infinitetalk_core.runs.manifest import checksum

ODD_VALUES = (None, True, -1, 2**80, 1e308, float("nan"), "", "../../x.mp4", "\0", [], {}, [[]], {"a": {}}, "x" * 5000)


def _flip(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def _truncate(path: Path, random: Random) -> None:
    path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])


def _grow(path: Path, random: Random) -> None:
    path.write_bytes(path.read_bytes() + random.randbytes(random.randint(1, 5000)))


def _swap(path: Path, random: Random) -> None:
    other = random.choice(_files(path.parent))
    mine = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(mine)


def _remove(path: Path, random: Random) -> None:
    path.unlink()


def _folder(path: Path, random: Random) -> None:
    path.unlink()
    if path.suffix == ".json":  # a folder in place of a file that must be written again is the user's to remove
        path.write_bytes(random.randbytes(20))
    else:
        (path.parent / f"{path.name}.d").mkdir()


def _pipe(path: Path, random: Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, random: Random) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)


def _edit(path: Path, random: Random) -> None:
    """Replace a value at a random place of a JSON file, with the checksums made right again."""
    objects = [each for each in _files(path.parent) if each.suffix == ".json" and read_object(each)]
    if not objects:  # damaged before
        return
    path = random.choice(objects)
    content = json.loads(path.read_text())
    holder = content
    while True:
        name = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if not (isinstance(holder[name], (dict, list)) and holder[name] and random.random() < 0.7):
            break
        holder = holder[name]
    newer = holder is content and name == "version"  # left alone, since it would be a newer version's
    holder[name] = "3" if newer else random.choice(ODD_VALUES)
    path.write_text(json.dumps(_sealed(content)))


def _sealed(content: dict[str, Any]) -> dict[str, Any]:
    if isinstance(content.get("record"), dict):
        return {**content, "sha256": checksum(content["record"])}
    return {**content, "sha256": checksum({name: value for name, value in content.items() if name != "sha256"})}


_KINDS: Mapping[str, Callable[[Path, Random], None]] = {
    "bits flipped": _flip,
    "truncated": _truncate,
    "grown": _grow,
    "two files swapped": _swap,
    "removed": _remove,
    "a folder": _folder,
    "a pipe": _pipe,
    "a link": _link,
    "a JSON value changed": _edit,
}
DAMAGES = tuple(kind for kind in _KINDS if kind != "a pipe" or hasattr(os, "mkfifo"))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "lock" and path.is_file() and path.stat().st_size)


def damage_run(folder: Path, kind: str, random: Random) -> str:
    """Do one damage of this kind to a file of the run; return what was done."""
    path = random.choice(_files(folder))
    _KINDS[kind](path, random)
    return f"{kind}: {path.name}"

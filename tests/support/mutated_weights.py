"""Right weights files with random damage, by seed."""

from __future__ import annotations

import io
import json
import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infinitetalk_core.checkpoints.gguf_file import read_gguf
from tests.support.crafted import Crafted
from tests.support.crafted_encoders import saved
from tests.support.weight_files import right_bytes, right_gguf, right_tensors

EDGES = (0, 1, 2, 3, 255, 65535, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
NUMBERS = (*map(str, EDGES), "-1", "1e400", "0.5", "NaN", "null", "true", '"7"', "[]", "{}", "9" * 400)
SETTINGS = {
    "model_type": "wav2vec2",
    "hidden_act": "gelu",
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_attention_heads": 1,
    "layer_norm_eps": 1e-5,
    "do_stable_layer_norm": False,
}


@dataclass(frozen=True)
class Right:
    """A right file. header: the bytes at its start that are damaged; is_text: whether numbers in them are digits."""

    kind: str
    name: str
    content: bytes
    header: int
    is_text: bool = False


@cache
def right_files() -> tuple[Right, ...]:
    """Return the files to damage."""
    found = []
    for kind in ("infinitetalk", "uni3c", "base", "encoder"):
        content = right_bytes(kind)
        found.append(Right(kind, "x.safetensors", content, 8 + struct.unpack("<Q", content[:8])[0], True))
    for kind in ("infinitetalk", "uni3c", "base"):
        content = right_gguf(kind)
        entries, _ = read_gguf(io.BytesIO(content), Path("x.gguf"))
        found.append(Right(kind, "x.gguf", content, min(entry.start for entry in entries.values())))
    for zipped in (True, False):
        content = saved(dict(right_tensors("encoder")), zipped)
        found.append(Right("encoder", "x.bin", content, len(content)))
    settings = json.dumps(SETTINGS).encode()
    found.append(Right("encoder", "config.json", settings, len(settings), True))
    return tuple(found)


def _flip(chance: random.Random, content: bytearray, header: int) -> None:
    for _ in range(chance.randint(1, 8)):
        content[chance.randrange(header)] ^= 1 << chance.randrange(8)


def _cut(chance: random.Random, content: bytearray, header: int) -> None:
    del content[chance.choice((chance.randrange(header), chance.randrange(len(content)))) :]


def _overwrite(chance: random.Random, content: bytearray, header: int) -> None:
    place = chance.randrange(header)
    content[place : place + 8] = struct.pack("<Q", chance.choice(EDGES))[: len(content) - place]


def _copy(chance: random.Random, content: bytearray, header: int) -> None:
    """A piece of the header over another."""
    length = chance.randint(1, min(200, header))
    source, target = (chance.randrange(header - length + 1) for _ in range(2))
    content[target : target + length] = content[source : source + length]


def _insert(chance: random.Random, content: bytearray, header: int) -> None:
    place = chance.randrange(header)
    content[place:place] = chance.randbytes(chance.randint(1, 20))


def _erase(chance: random.Random, content: bytearray, header: int) -> None:
    place = chance.randrange(header)
    length = min(chance.randint(1, 64), len(content) - place)
    content[place : place + length] = bytes(length)


MUTATIONS: tuple[Callable[[random.Random, bytearray, int], None], ...] = (
    _flip,
    _cut,
    _overwrite,
    _copy,
    _insert,
    _erase,
)


def _change_number(chance: random.Random, right: Right) -> bytes:
    """Another number in a text header, whose length is given rightly."""
    start = 8 if right.name.endswith("safetensors") else 0
    text = right.content[start : right.header]
    found = chance.choice(list(re.finditer(rb"\d+", text)))
    text = text[: found.start()] + chance.choice(NUMBERS).encode() + text[found.end() :]
    return (struct.pack("<Q", len(text)) if start else b"") + text + right.content[right.header :]


def mutated(seed: int) -> Crafted:
    """Return the right file with the damage of this seed; the loader may read it or refuse it."""
    chance = random.Random(seed)
    right = chance.choice(right_files())
    if right.is_text and chance.random() < 0.5:
        how, content = "_change_number", _change_number(chance, right)
    else:
        mutate, damaged = chance.choice(MUTATIONS), bytearray(right.content)
        mutate(chance, damaged, right.header)
        how, content = mutate.__name__, bytes(damaged)

    def write(folder: Path) -> Path:
        (folder / right.name).write_bytes(content)
        if right.name != "config.json":
            return folder / right.name
        (folder / "model.safetensors").write_bytes(right_bytes("encoder"))
        return folder

    return Crafted(f"seed {seed}: {how.strip('_')} in {right.name} of {right.kind}", right.kind, write, None)

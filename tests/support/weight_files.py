"""Right weights files of tiny models, and raw safetensors and GGUF files to damage them with."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter
from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig
from infinitetalk_core.model.wan import WanBackbone, WanConfig
from tests.support.speech import file_tensors, tiny_wav2vec

HEADS = 1
ADAPTER = AdapterConfig(dim=128, heads=HEADS, blocks=2, audio_width=24, hidden=32, tokens=4, token_dim=16)
CAMERA = Uni3CConfig(
    dim=32, ffn_dim=32, heads=16, blocks=2, embed_dim=16, time_dim=16, out_dim=16, view_channels=7, view_dim=8
)
WAN = WanConfig(dim=128, ffn_dim=64, heads=HEADS, layers=2, text_dim=16, text_len=8, clip_dim=16, freq_dim=16)
Entries = dict[str, Any]

U8, I32, F32, BOOL, STRING, ARRAY, U32, U64 = 0, 5, 6, 7, 8, 9, 4, 10  # GGUF's types of metadata values
GGUF_F32, GGUF_F16, GGUF_Q8_0 = 0, 1, 8  # GGUF's types of tensors


@cache
def right_tensors(kind: str) -> dict[str, Tensor]:
    """Return the tensors of a right file: `infinitetalk`, `uni3c`, `base` or `encoder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "encoder":
            return file_tensors(tiny_wav2vec(), prefix="wav2vec2.")
        network = {
            "infinitetalk": lambda: AudioAdapter(ADAPTER),
            "uni3c": lambda: Uni3C(CAMERA),
            "base": lambda: WanBackbone(WAN),
        }[kind]()
        return {name: torch.randn_like(value) * 0.02 for name, value in network.state_dict().items()}


def right_bytes(kind: str, dtype: torch.dtype = torch.float16) -> bytes:
    """Return a right safetensors file."""
    return save({name: value.to(dtype) for name, value in right_tensors(kind).items()})


def split(content: bytes) -> tuple[Entries, bytes]:
    """Return the header and the data of a safetensors file."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def safetensors(header: Entries | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file. length: what it says that its header's length is, if not the true one."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def edited(kind: str, change: Callable[[Entries], Any], dtype: torch.dtype = torch.float16) -> bytes:
    """Return a right safetensors file whose header was changed in place, or replaced by what `change` returns."""
    header, data = split(right_bytes(kind, dtype))
    found = change(header)
    return safetensors(header if found is None else found, data)


def with_tensors(kind: str, change: Callable[[dict[str, Tensor]], Any], dtype: torch.dtype = torch.float16) -> bytes:
    """Return a safetensors file of the right tensors, changed in place."""
    tensors = {name: value.to(dtype) for name, value in right_tensors(kind).items()}
    change(tensors)
    return save({name: value.contiguous() for name, value in tensors.items()})


def sparse(path: Path, shapes: dict[str, Sequence[int]], dtype: str = "F16", size: int = 2) -> Path:
    """Write a safetensors file of these tensors whose data is a hole in the disk."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + size * prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    content = safetensors(entries)
    with path.open("wb") as file:
        file.write(content)
        file.truncate(len(content) + end)
    return path


def text(value: str | bytes) -> bytes:
    """Return a string of GGUF."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


@dataclass
class Gguf:
    """A GGUF file to be written, whose counts may be other than what it holds.

    values: encoded metadata (key, type, content). tensors: (name, dimensions in the file's order, type, data).
    places: offsets of tensors that are other than their places.
    """

    values: list[tuple[Any, int, bytes]]
    tensors: list[tuple[Any, Sequence[int], int, bytes]]
    version: int = 3
    counts: tuple[int, int] | None = None
    places: dict[str, int] | None = None
    dimensions: int | None = None
    alignment: int = 32

    def bytes(self) -> bytes:
        """Return the file."""
        tensors, values = self.counts or (len(self.tensors), len(self.values))
        parts = [b"GGUF" + struct.pack("<IQQ", self.version, tensors, values)]
        parts += [text(key) + struct.pack("<I", kind) + content for key, kind, content in self.values]
        data, end = [], 0
        for name, shape, kind, content in self.tensors:
            place = (self.places or {}).get(name, end)
            count = len(shape) if self.dimensions is None else self.dimensions
            parts += [text(name), struct.pack("<I", count), struct.pack(f"<{len(shape)}Q", *shape)]
            parts.append(struct.pack("<IQ", kind, place))
            data.append(content + bytes(-len(content) % self.alignment))
            end += len(data[-1])
        header = b"".join(parts)
        return header + bytes(-len(header) % self.alignment) + b"".join(data)


def right_gguf(kind: str = "infinitetalk", change: Callable[[Gguf], Any] = lambda file: None) -> bytes:
    """Return a right GGUF file (linear weights in Q8_0, others in float32), changed in place before it is written."""
    values: list[tuple[Any, int, bytes]] = [("general.architecture", STRING, text("wan"))]
    tensors: list[tuple[Any, Sequence[int], int, bytes]] = []
    for name, value in right_tensors(kind).items():
        shape, array = list(value.shape), value.numpy()
        if len(shape) > 4:
            values.append((f"comfy.gguf.orig_shape.{name}", ARRAY, array_of(I32, "i", shape)))
            shape = [shape[0], value[0].numel()]
        if value.ndim == 2 and value.shape[1] % 32 == 0:
            tensors.append((name, shape[::-1], GGUF_Q8_0, q8_0(array)))
        else:
            tensors.append((name, shape[::-1], GGUF_F32, array.astype("<f4").tobytes()))
    file = Gguf(values, tensors)
    change(file)
    return file.bytes()


def array_of(kind: int, letter: str, items: Iterable[Any], count: int | None = None) -> bytes:
    """Return an array of GGUF."""
    found = list(items)
    said = len(found) if count is None else count
    return struct.pack("<IQ", kind, said) + struct.pack(f"<{len(found)}{letter}", *found)


def q8_0(array: np.ndarray) -> bytes:
    """Quantize rows of whole blocks of 32 to Q8_0."""
    blocks = array.reshape(-1, 32)
    scales = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype("<f2")
    values = np.round(blocks / np.maximum(scales.astype(np.float32), 1e-8)).clip(-127, 127).astype(np.int8)
    return np.concatenate([scales.view(np.uint8), values.view(np.uint8)], axis=1).tobytes()

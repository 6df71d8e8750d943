"""Make the two files that ComfyUI loads of a model that holds Wan and InfiniteTalk in one, such as SoulX-FlashTalk-14B.

    python client/split_model.py SoulX-FlashTalk-14B /path/to/ComfyUI/models

The first is the downloaded folder, whose diffusion_pytorch_model-00001-of-… files it reads, or a single .safetensors
file. It writes diffusion_models/NAME_wan.safetensors, for Load Diffusion Model, and model_patches/
NAME_infinitetalk.safetensors, for the InfiniteTalk Model Loader; the tensors are copied as they are. A single merged
file need not be split, since the two loaders take it as it is. It needs Python alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

INDEX = "*.safetensors.index.json"
NUMBERED = r"(.+)-\d{5}-of-(\d{5})\.safetensors"
PREFIX = r"(model\.diffusion_model|diffusion_model|model)\."
SPEECH = r"audio_proj\.|blocks\.\d+\.(audio_cross_attn|norm_x)\."
MARKER = "scaled_fp8"  # of a file's layout, needed in both
QUANTIZATION = "_quantization_metadata"
# Each part: the folder, the end of the file's name, and tensors without which it is none.
WAN = ("diffusion_models", "wan", ("patch_embedding.weight", "head.modulation"))
TALK = ("model_patches", "infinitetalk", ("audio_proj.proj1_vf.weight", "blocks.0.audio_cross_attn.q_linear.weight"))
COPIED_AT_ONCE = 1 << 24  # bytes
MAX_HEADER_BYTES = 100_000_000  # what the format allows
NOT_A_HEADER = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


class SplitError(Exception):
    """A sentence for the user: why there is nothing to split."""


@dataclass(frozen=True)
class Source:
    """Where a tensor is: in `file`, `size` bytes from `start`."""

    file: Path
    start: int
    size: int
    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class Model:
    """All tensors by name, without prefix, and the metadata of the files."""

    tensors: Mapping[str, Source]
    metadata: Mapping[str, str]


def is_speech(name: str) -> bool:
    """Return whether a tensor, without prefix, belongs to InfiniteTalk and not to Wan."""
    return re.match(SPEECH, name) is not None


def files_of(source: Path) -> list[Path]:
    """Return the files of a model: one, or all that its index names. Raises SplitError where some are missing."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise SplitError(f"there is no {source}; give the downloaded folder, or a .safetensors file")
    found = {path.name for path in source.glob("*.safetensors")}
    indexes = sorted(source.glob(INDEX))
    if len(indexes) > 1:
        raise SplitError(f"{source} holds {len(indexes)} models; put the files of one into a folder of its own")
    wanted = _named_by(indexes[0]) if indexes else _of_numbered(found, source)
    if missing := sorted(wanted - found):
        raise SplitError(f"{source} lacks {len(missing)} files of the model, first {missing[0]}; download them too")
    return [source / name for name in sorted(wanted)]


def _named_by(index: Path) -> set[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not all(Path(name).name == name for name in names):
            raise ValueError("a file elsewhere")
    except NOT_A_HEADER as error:
        raise SplitError(f"{index.name} is no index of a model's files; download it again") from error
    return names


def _of_numbered(found: Iterable[str], source: Path) -> set[str]:
    names = [name for name in sorted(found) if re.fullmatch(NUMBERED, name)]
    if not names:
        raise SplitError(
            f"{source} holds no diffusion_pytorch_model-00001-of-….safetensors; give the folder in which they are"
        )
    stem, count = re.fullmatch(NUMBERED, names[0]).groups()  # type: ignore[union-attr]
    return {f"{stem}-{number:05}-of-{count}.safetensors" for number in range(1, int(count) + 1)}


def read_model(files: Iterable[Path]) -> Model:
    """Read the headers of a model's files. Raises SplitError for a damaged file, and a tensor that two of them hold."""
    tensors: dict[str, Source] = {}
    metadata: dict[str, str] = {}
    for file in files:
        model = _read_header(file)
        if twice := sorted((tensors.keys() & model.tensors.keys()) - {MARKER}):
            raise SplitError(
                f"{file.name} holds {twice[0]}, which another file holds too; remove files of other models"
            )
        tensors |= model.tensors
        metadata |= model.metadata
    return Model(tensors, metadata)


def _read_header(file: Path) -> Model:
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if start[:4] == b"GGUF":
            raise SplitError(f"{file.name} is a GGUF file: choose it in both loaders, it need not be split")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise SplitError(f"{file.name} ({size} bytes) is no complete safetensors file; download it again")
        try:
            model = _parse(file, json.loads(opened.read(length)), 8 + length)
        except NOT_A_HEADER as error:
            raise SplitError(f"{file.name} has a header that cannot be read; download it again") from error
    end = max((source.start + source.size for source in model.tensors.values()), default=8 + length)
    if end != size:
        raise SplitError(f"{file.name} is incomplete: it has {size} of {end} bytes; download it again")
    return model


def _parse(file: Path, header: dict[str, Any], base: int) -> Model:
    """Return what a header says. base: where the data begin. Raises one of NOT_A_HEADER where it is damaged."""
    metadata = dict(header.pop("__metadata__", None) or {})
    _layers(metadata)
    prefix = re.match(PREFIX, next(iter(header), ""))
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not (isinstance(begin, int) and isinstance(end, int) and 0 <= begin <= end):
            raise ValueError("no place in the file")
        source = Source(file, base + begin, end - begin, entry["dtype"], entry["shape"])
        tensors[name.removeprefix(prefix[0] if prefix else "")] = source
    return Model(tensors, metadata)


def _layers(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what the metadata say about quantized layers, by name without prefix."""
    layers = json.loads(metadata.get(QUANTIZATION, "{}")).get("layers", {})
    return {re.sub(f"^{PREFIX}", "", name, count=1): layer for name, layer in layers.items()}


def part_of(model: Model, speech: bool) -> Model:
    """Return one of the two models."""
    tensors = {n: source for n, source in model.tensors.items() if n == MARKER or is_speech(n) is speech}
    metadata = dict(model.metadata)
    if QUANTIZATION in metadata:
        layers = {name: layer for name, layer in _layers(metadata).items() if f"{name}.weight" in tensors}
        metadata[QUANTIZATION] = json.dumps({**json.loads(metadata[QUANTIZATION]), "layers": layers})
    return Model(tensors, metadata)


def write(model: Model, path: Path) -> None:
    """Write a safetensors file; it gets its name when it is complete."""
    header: dict[str, Any] = {"__metadata__": dict(model.metadata)} if model.metadata else {}
    end = 0
    for name, source in model.tensors.items():
        header[name] = {"dtype": source.dtype, "shape": source.shape, "data_offsets": [end, end + source.size]}
        end += source.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(path.name + ".part")
    try:
        with ExitStack() as stack, part.open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            opened = {file: stack.enter_context(file.open("rb")) for file in {s.file for s in model.tensors.values()}}
            for source in model.tensors.values():
                _copy(opened[source.file], out, source)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _copy(file: BinaryIO, out: BinaryIO, source: Source) -> None:
    file.seek(source.start)
    left = source.size
    while left:
        block = file.read(min(left, COPIED_AT_ONCE))
        if not block:
            raise SplitError(f"{source.file.name} was changed while it was read; run this again")
        out.write(block)
        left -= len(block)


def split(source: Path, models: Path) -> list[Path]:
    """Write the two files of the model at `source` into the folder `models` of ComfyUI; return their paths.

    Raises SplitError for what is no such model, for files that are there already, and for too little space.
    """
    if not models.is_dir():
        raise SplitError(f"there is no folder {models}; give the models folder of ComfyUI")
    model = read_model(files_of(source))
    name = source.stem if source.is_file() else source.resolve().name
    planned = []
    for speech, (folder, what, needed) in ((False, WAN), (True, TALK)):
        part = part_of(model, speech)
        if missing := [tensor for tensor in needed if tensor not in part.tensors]:
            raise SplitError(
                f"{source} is no Wan with InfiniteTalk in one: it lacks {missing[0]}; files of Wan alone or of "
                "InfiniteTalk alone need no splitting"
            )
        planned.append((part, models / folder / f"{name}_{what}.safetensors"))
    for _, path in planned:
        if path.exists():
            raise SplitError(f"{path} exists already; delete it to write it again")
    size = sum(tensor.size for part, _ in planned for tensor in part.tensors.values())
    if size > (free := shutil.disk_usage(models).free):
        raise SplitError(f"{models} has {free / 1e9:.1f} GB free, and {size / 1e9:.1f} GB are written; make room")
    for part, path in planned:
        path.parent.mkdir(exist_ok=True)
        print(f"writing {path} ({sum(tensor.size for tensor in part.tensors.values()) / 1e9:.1f} GB)", flush=True)
        write(part, path)
    return [path for _, path in planned]


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the downloaded folder, or a .safetensors file")
    parser.add_argument("models", type=Path, help="ComfyUI's folder models")
    options = parser.parse_args(arguments)
    try:
        wan, talk = split(options.source, options.models)
    except (SplitError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    print(f"done: load {wan.name} with Load Diffusion Model and {talk.name} with the InfiniteTalk Model Loader")
    return 0


if __name__ == "__main__":
    sys.exit(main())

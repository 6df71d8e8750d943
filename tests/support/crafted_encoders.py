"""Crafted speech encoders: folders with their settings, and PyTorch files."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.support.crafted import DEEP, Crafted, cast, changed, crafted, set_one, with_more, without
from tests.support.weight_files import right_bytes, right_tensors, sparse

KIND = "encoder"
NAN = float("nan")
W = "wav2vec2."
QUERY, CONV = f"{W}encoder.layers.0.attention.q_proj.weight", f"{W}feature_extractor.conv_layers.0.conv.weight"
MAGNITUDE, DIRECTION = (f"{W}encoder.pos_conv_embed.conv.weight_{letter}" for letter in "gv")
LARGE = "x" * 1_000_000


def folder(what: str, files: dict[str, bytes | Callable[[Path], Any]], reads: bool | None = False) -> Crafted:
    """A folder of a right encoder with these files, which may also be made by a function of the path."""

    def write(parent: Path) -> Path:
        (parent / "model.safetensors").write_bytes(right_bytes(KIND))
        for name, content in files.items():
            path = parent / name
            path.unlink(missing_ok=True)
            content(path) if callable(content) else path.write_bytes(content)
        return parent

    return Crafted(f"encoder folder with {what}", KIND, write, reads)


def _config(what: str, value: Any, reads: bool | None = False) -> Crafted:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return folder(f"config.json {what}", {"config.json": content}, reads)


def _setting(name: str, value: Any, reads: bool | None = False) -> Crafted:
    return _config(f"of {name} {str(value)[:40]}", {name: value}, reads)


def _processor(what: str, value: Any, reads: bool | None = False) -> Crafted:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return folder(f"preprocessor_config.json {what}", {"preprocessor_config.json": content}, reads)


def _shards(what: str, places: dict[str, str], *names: str) -> Crafted:
    """A folder whose weights are split into several files, by an index that may name files elsewhere."""

    def write(parent: Path) -> Path:
        (parent / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        for name in names:
            (parent / name).write_bytes(right_bytes(KIND))
        return parent

    return Crafted(f"encoder in pieces {what}", KIND, write)


STRIDES = [5, 2, 2, 2, 2, 2, 2]
BOM = b"\xef\xbb\xbf"
FOLDERS = (
    folder("nothing else", {}, True),
    _config("of nothing", b""),
    _config("of rubbish", b"{not json"),
    _config("with a byte order mark", BOM + b'{"num_attention_heads": 1}', True),
    _config("in UTF-16", '{"num_attention_heads": 1}'.encode("utf-16")),
    _config("that is no text", b"\xff\xfe\xfa" * 9),
    *(_config(f"that is {value!r}", value) for value in ([1], 5, "text", None, True)),
    _config("of a page", b"<!DOCTYPE html><html>Sign in</html>"),
    _config("of lists in lists", b"[" * DEEP),
    _config("of objects in objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    _config("of 20 MB", b'{"a": "' + b"x" * 20_000_000 + b'"}'),
    _config("of 20 MB of lists", b'{"a": [' + b"[]," * 7_000_000 + b"[]]}"),
    _config("with a number of 5,000 digits", b'{"num_attention_heads": ' + b"9" * 5000 + b"}"),
    *(_setting("num_attention_heads", value) for value in (10**9, 10**30, 0, -1, 1.0, 0.5, "1", True, [1], {}, NAN)),
    _setting("num_attention_heads", None, None),
    *(_setting("conv_stride", value) for value in (5, "5222222", [], {}, [[5]], [5, 2], [0, *STRIDES[1:]])),
    *(_setting("conv_stride", [value, *STRIDES[1:]]) for value in (-5, 10**9, "5", 5.0, True, None, NAN, [5], 11)),
    _setting("conv_stride", STRIDES, True),
    *(_setting("layer_norm_eps", value) for value in ("small", NAN, float("inf"), -1, 0, [], {}, True, 1e300, "1e-5")),
    _setting("layer_norm_eps", None, None),
    _setting("layer_norm_eps", 1e-6, True),
    *(_setting("do_stable_layer_norm", value) for value in ("no", 1, [], 0.5)),
    *(_setting("hidden_act", value) for value in ("relu", [], 5, LARGE, "a\nb. C")),
    *(_setting("model_type", value) for value in ("hubert", [], 5, LARGE, "a\nb. C")),
    *(_setting(name, 10**9, None) for name in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size")),
    *(_setting(name, "x", None) for name in ("hidden_size", "conv_dim", "architectures", "torch_dtype", "auto_map")),
    folder("config.json a folder", {"config.json": lambda path: path.mkdir()}),
    folder("config.json a pipe", {"config.json": os.mkfifo}),
    folder("config.json a link to itself", {"config.json": lambda path: path.symlink_to(path)}),
    folder("config.json a link to a device", {"config.json": lambda path: path.symlink_to("/dev/zero")}),
    *(_processor(f"of do_normalize {value!r}", {"do_normalize": value}) for value in ("no", 1, [], 0.0)),
    _processor("of do_normalize true", {"do_normalize": True}, True),
    _processor("of rubbish", b"{"),
    _processor("of lists in lists", b"[" * DEEP),
    folder("a broken vocabulary", {"vocab.json": b"{", "tokenizer_config.json": b"\xff"}, True),
    folder("foreign code", {"modeling.py": b"import os; os.abort()"}, True),
    folder("weights that are a folder", {"model.safetensors": lambda path: path.mkdir()}),
    folder("weights that are a pipe", {"model.safetensors": os.mkfifo}),
    folder("weights that link to themselves", {"model.safetensors": lambda path: path.symlink_to(path)}),
    folder("weights that are a page", {"model.safetensors": b"<html>"}),
    Crafted("encoder folder of nothing", KIND, lambda parent: parent),
    _shards("above the folder", {QUERY: "../../x.safetensors"}),
    _shards("at the root", {QUERY: "/etc/passwd"}, "model-00001-of-00002.safetensors"),
    _shards("in the folder", {QUERY: "a.safetensors", CONV: "b.safetensors"}, "a.safetensors", "b.safetensors"),
)

TENSORS = (
    *(without(KIND, name) for name in (QUERY, CONV, MAGNITUDE, DIRECTION)),
    *(with_more(KIND, f"{W}encoder.layers.{n}.a") for n in (3, 10**9, "²", "x", "-1")),
    *(with_more(KIND, f"{W}feature_extractor.conv_layers.{n}.a") for n in (9, 10**9, "²")),
    with_more(KIND, QUERY.removeprefix(W), reads=None),
    changed("transposed and one less", KIND, QUERY, lambda t: t.T[1:]),
    changed("a number", KIND, QUERY, lambda t: t[0, 0]),
    changed("flat", KIND, CONV, lambda t: t.flatten()),
    changed("a number", KIND, CONV, lambda t: t[0, 0, 0]),
    changed("empty", KIND, CONV, lambda t: t[:0]),
    changed("flat", KIND, DIRECTION, lambda t: t.flatten()),
    changed("of nothing but zeros", KIND, DIRECTION, lambda t: t * 0),
    changed("of two channels", KIND, MAGNITUDE, lambda t: t.expand(1, 2, -1)),
    changed("empty", KIND, DIRECTION, lambda t: t[:, :0]),
    changed("with NaN", KIND, QUERY, set_one(NAN)),
    changed("infinite", KIND, CONV, set_one(float("inf"))),
    *(changed(f"in {dtype}", KIND, QUERY, cast(dtype)) for dtype in (torch.int8, torch.complex64, torch.float8_e4m3fn)),
    changed("in float64", KIND, QUERY, cast(torch.float64), True),
    Crafted("encoder, a hole in the disk", KIND, lambda parent: sparse(parent / "x.safetensors", _huge())),
)


def _huge() -> dict[str, list[int]]:
    return {name: list(t.shape) for name, t in right_tensors(KIND).items()} | {QUERY: [1 << 20, 1 << 20]}


def saved(value: Any, zipped: bool = True) -> bytes:
    """Return a PyTorch file. zipped: not in the format of torch before 1.6."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _torch(what: str, change: Callable[[dict[Any, Any]], Any], reads: bool | None = False) -> Crafted:
    """A PyTorch file of a right encoder, changed in place, or of what `change` returns."""

    def content() -> bytes:
        tensors: dict[Any, Any] = dict(right_tensors(KIND))
        found = change(tensors)
        return saved(tensors if found is None else found)

    return crafted(f"PyTorch file {what}", KIND, content, reads, ".bin")


def _pickled(what: str, content: Callable[[], bytes] | bytes, reads: bool | None = False) -> Crafted:
    return crafted(f"PyTorch file {what}", KIND, content, reads, ".bin")


class Bomb:
    """Ends the process where it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


def _inside_itself() -> bytes:
    found: dict[str, Any] = {}
    found["state_dict"] = found
    return saved(found)


def _packed(change: Callable[[dict[str, bytes]], Any], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A PyTorch file whose archive was unpacked, changed and packed again."""
    with zipfile.ZipFile(io.BytesIO(saved(dict(right_tensors(KIND))))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _part(parts: dict[str, bytes], end: str) -> str:
    return next(name for name in parts if name.endswith(end))


def _many_parts(parts: dict[str, bytes]) -> None:
    parts.update((f"archive/data/more{i}", b"") for i in range(70_000))


def _swap(parts: dict[str, bytes]) -> None:
    parts[_part(parts, "data.pkl")] = pickle.dumps({"a": Bomb()})


def _wide(tensors: dict[Any, Any]) -> None:
    tensors[QUERY] = torch.ones(1).as_strided((1 << 20, 1 << 20), (0, 0))


def _legacy(keep: int | None = None) -> bytes:
    return saved(dict(right_tensors(KIND)), False)[:keep]


PICKLES = (
    _torch("right", lambda t: None, True),
    _pickled("of the old format", lambda: _legacy(), True),
    _torch("with state_dict", lambda t: {"state_dict": dict(t)}, True),
    *(_torch(f"of {value!r}", lambda t, value=value: value) for value in ([], 5, "text", {})),
    _torch("of a tensor", lambda t: torch.zeros(3)),
    _torch("with names that are numbers", lambda t: t.update({5: torch.zeros(2)}), None),
    _torch("of names that are numbers", lambda t: {i: value for i, value in enumerate(t.values())}),
    _torch("with a name of lines", lambda t: t.update({"a\nb. C": torch.zeros(2)}), None),
    _torch("of names of lines", lambda t: {"a\nb. C": torch.zeros(2)}),
    _torch("of names of a megabyte", lambda t: {LARGE: torch.zeros(2)}),
    _torch("wider than it is", _wide),
    _torch("with a sparse tensor", lambda t: t.update({QUERY: t[QUERY].to_sparse()})),
    _torch("with a tensor without data", lambda t: t.update({QUERY: t[QUERY].to("meta")})),
    _torch(
        "with a quantized tensor", lambda t: t.update({QUERY: torch.quantize_per_tensor(t[QUERY], 0.1, 0, torch.qint8)})
    ),
    _torch("with a tensor of tensors", lambda t: t.update({QUERY: torch.nested.nested_tensor([torch.ones(2)])})),
    _torch("with integers", lambda t: t.update({QUERY: t[QUERY].int()})),
    _torch("with NaN", lambda t: t.update({QUERY: set_one(NAN)(t[QUERY])})),
    _torch("with a missing tensor", lambda t: dict.__delitem__(t, QUERY)),
    _torch("with a path", lambda t: t.update({"args": Path("x")})),
    _torch("transposed in memory", lambda t: t.update({QUERY: t[QUERY].T.contiguous().T}), True),
    _pickled("inside itself", _inside_itself),
    _pickled("of code", pickle.dumps({"a": Bomb()})),
    _pickled("of code in an archive", lambda: _packed(_swap)),
    _pickled("compressed", lambda: _packed(lambda parts: None, zipfile.ZIP_DEFLATED)),
    _pickled(
        "that unpacks to 100 MB",
        lambda: _packed(lambda p: p.update({_part(p, "data/0"): bytes(100 << 20)}), zipfile.ZIP_DEFLATED),
    ),
    _pickled("of 70,000 parts", lambda: _packed(_many_parts)),
    _pickled("without its pickle", lambda: _packed(lambda parts: parts.pop(_part(parts, "data.pkl")))),
    _pickled("without a part", lambda: _packed(lambda parts: parts.pop(_part(parts, "data/0")))),
    _pickled("with a short part", lambda: _packed(lambda parts: parts.update({_part(parts, "data/0"): b"ab"}))),
    _pickled(
        "of the other byte order",
        lambda: _packed(lambda parts: parts.update({_part(parts, "byteorder"): b"big"})),
        None,
    ),
    _pickled(
        "of an odd byte order", lambda: _packed(lambda parts: parts.update({_part(parts, "byteorder"): b"\xff"})), None
    ),
    _pickled(
        "of an odd version", lambda: _packed(lambda parts: parts.update({_part(parts, "version"): b"\xff"})), None
    ),
    _pickled(
        "that is an archive of texts", lambda: _packed(lambda parts: (parts.clear(), parts.update({"a.txt": b"a"})))
    ),
    _pickled("with a bytearray of 10^12", b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x10\xa5\xd4\xe8\x85R."),
    _pickled("of 200,000 tuples", b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b"."),
    _pickled("of endless text", b"\x80\x02" + b"V" + b"x" * 10_000_000),
    _pickled("of unknown marks", b"\x80\x02" + bytes(range(128, 256)) * 9),
    *(
        _pickled(f"cut off after {n}", lambda n=n: saved(dict(right_tensors(KIND)))[:n])
        for n in (4, 60, 1000, 5000, -1, -200)
    ),
    *(
        _pickled(f"of the old format cut off after {n}", lambda n=n: _legacy(n))
        for n in (2, 20, 50, 500, 3000, 9000, -1)
    ),
)
ENCODERS = (*FOLDERS, *TENSORS, *PICKLES)

"""Crafted safetensors files whose header is right, and whose tensors are not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from tests.support.crafted import DEEP, Crafted, cast, changed, crafted, set_one, special, with_more, without
from tests.support.weight_files import edited, right_bytes, right_tensors, safetensors, sparse, with_tensors

PROJ, NORM, BIAS = "audio_proj.proj1.weight", "blocks.0.norm_x.weight", "blocks.1.audio_cross_attn.proj.bias"
TALK = "infinitetalk"
INF, NAN = float("inf"), float("nan")
MISSING = {
    TALK: (PROJ, NORM, BIAS, "audio_proj.proj1.bias", "audio_proj.norm.weight", "audio_proj.proj3.weight"),
    "uni3c": ("proj_out.0.weight", "controlnet_blocks.0.norm1.linear.weight", "controlnet_patch_embedding.bias"),
    "base": ("head.head.weight", "text_embedding.0.weight", "blocks.1.ffn.0.bias", "img_emb.proj.0.weight"),
}
MORE = {
    TALK: ("more", "blocks.7.norm_x.weight", "blocks.1000000000.a", "blocks.x.a", "blocks.²", "blocks.", "blocks.-1.a"),
    "uni3c": ("more", "controlnet_blocks.1000000000.a", "controlnet_blocks.x", "controlnet.proj_in.bias"),
    "base": ("more", "blocks.1000000000.a", "blocks.x"),
}
SHAPES: dict[tuple[str, str], dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    (TALK, PROJ): {
        "transposed": lambda t: t.T,
        "flat": lambda t: t.flatten(),
        "a number": lambda t: t[0, 0],
        "empty": lambda t: t[:, :0],
        "of 7 inputs": lambda t: t[:, :7],
        "of five dimensions": lambda t: t[None, None, None],
    },
    (TALK, NORM): {"a number": lambda t: t[0], "empty": lambda t: t[:0]},
    (TALK, "audio_proj.norm.weight"): {"empty": lambda t: t[:0]},
    (TALK, BIAS): {"one less": lambda t: t[:-1]},
    ("uni3c", "controlnet_patch_embedding.weight"): {
        "flat": lambda t: t.flatten(),
        "one channel less": lambda t: t[:, :-1],
    },
    ("uni3c", "controlnet_mask_embedding.mask_proj.0.weight"): {"a number": lambda t: t.flatten()[0]},
    ("uni3c", "proj_out.0.weight"): {"flat": lambda t: t.flatten(), "transposed": lambda t: t.T},
    ("uni3c", "controlnet_blocks.0.ffn.0.weight"): {"a number": lambda t: t[0, 0]},
    ("base", "patch_embedding.weight"): {
        "flat": lambda t: t.flatten(),
        "empty": lambda t: t[:0],
        "of 64 rows": lambda t: t[:64],
    },
    ("base", "head.head.weight"): {"a number": lambda t: t[0, 0]},
    ("base", "text_embedding.0.weight"): {"flat": lambda t: t.flatten()},
}
NUMBERS = (
    (NAN, torch.float16, PROJ),
    (INF, torch.bfloat16, PROJ),
    (-INF, torch.float32, NORM),
    (NAN, torch.float64, NORM),
    (NAN, torch.float8_e4m3fn, PROJ),
    (INF, torch.float8_e5m2, PROJ),
    (NAN, torch.float16, BIAS),
)


def _note(value: torch.Tensor) -> Crafted:
    return with_more(TALK, "audio_proj.proj1.comfy_quant", value)


def _scale(value: torch.Tensor, layer: str = "audio_proj.proj1") -> Crafted:
    return with_more(TALK, f"{layer}.scale_weight", value)


def _sparse(what: str, more: dict[str, list[int]]) -> Crafted:
    """A file whose data is a hole in the disk, so that it can be of any size."""

    def write(folder: Path) -> Path:
        shapes = {name: list(value.shape) for name, value in right_tensors(TALK).items()}
        return sparse(folder / "crafted.safetensors", shapes | more)

    return Crafted(f"a hole in the disk with {what}", TALK, write)


def _bytes(content: bytes) -> torch.Tensor:
    return torch.tensor(list(content), dtype=torch.uint8)


MODELS = (
    *(
        crafted(f"right {kind}", kind, lambda k=kind: right_bytes(k), True)
        for kind in (TALK, "uni3c", "base", "encoder")
    ),
    *(without(kind, name) for kind, names in MISSING.items() for name in names),
    *(with_more(kind, name) for kind, names in MORE.items() for name in names),
    *(changed(what, *where, change) for where, shapes in SHAPES.items() for what, change in shapes.items()),
    *(changed(f"with {value} in {dtype}", TALK, name, cast(dtype, value)) for value, dtype, name in NUMBERS),
    changed("with NaN", "uni3c", "proj_in.weight", set_one(NAN)),
    changed("infinite", "base", "head.head.weight", set_one(INF)),
    *(changed(f"in {dtype}", TALK, PROJ, cast(dtype)) for dtype in (torch.int64, torch.bool, torch.complex64)),
    changed("in bfloat16", TALK, PROJ, cast(torch.bfloat16), True),
    changed("in fp8", TALK, PROJ, cast(torch.float8_e4m3fn), True),
    _note(torch.full((DEEP,), ord("["), dtype=torch.uint8)),
    _note(torch.full((3000,), ord("["), dtype=torch.uint8)),
    _note(torch.zeros(0, dtype=torch.uint8)),
    _note(torch.full((3,), NAN)),
    _note(torch.zeros(3, dtype=torch.int64)),
    _note(_bytes(b'{"format": ["float8_e4m3fn"]}')),
    _note(_bytes(b"[]")),
    _note(torch.zeros(2_000_000, dtype=torch.uint8)),
    _scale(torch.tensor(NAN)),
    _scale(torch.tensor([INF])),
    _scale(torch.ones(1, dtype=torch.int32)),
    _scale(torch.ones(1, dtype=torch.uint8)),
    _scale(torch.zeros(0)),
    _scale(torch.ones(3)),
    _scale(torch.ones(1), "audio_proj.nothing"),
    crafted(
        "a scale of a number",
        TALK,
        lambda: with_tensors(
            TALK, lambda t: t.update({"a.weight": torch.tensor(1.0), "a.scale_weight": torch.ones(2)})
        ),
    ),
    _sparse("a norm of 2^42", {NORM: [1 << 42]}),
    _sparse("a projection of 2^40", {PROJ: [1 << 20, 1 << 20]}),
    _sparse("8 TB more", {"more": [1 << 42]}),
    _sparse("a note of 1 TB", {"audio_proj.proj1.comfy_quant": [1 << 39]}),
    crafted(
        "names with a prefix",
        TALK,
        lambda: edited(TALK, lambda h: {f"model.diffusion_model.{k}": v for k, v in h.items()}),
        True,
    ),
    crafted("a VAE without weights", "vae", safetensors(b"{}")),
    crafted("a VAE that is a page", "vae", b"<html>"),
    crafted("a VAE cut off", "vae", lambda: right_bytes("base")[:-7]),
    crafted("a VAE that is a Wan model", "vae", lambda: right_bytes("base")),
)

TEXTS = {
    "nothing": b"",
    "one byte": b"{",
    "seven bytes": bytes(7),
    "eight bytes": bytes(8),
    "nine bytes": bytes(8) + b"{",
    "nothing but zeros": bytes(1_000_000),
    "a login page": b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>",
    "a page after spaces": b" \r\n\t <html>",
    "a page with a byte order mark": b"\xef\xbb\xbf<!doctype html>",
    "a page in UTF-16": "<html>".encode("utf-16"),
    "an XML error": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a JSON error": b'{"error":"Invalid username or password."}',
    "a text with a brace": b"a text; {a}" * 30,
    "a text": b"Access to model X is restricted. You must have access to it and be authenticated to access it.",
    "not found": b"Entry not found",
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 5000000000\n",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(90),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(90),
    "RAR": b"Rar!\x1a\x07\x00" + bytes(90),
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(90),
    "MP4": b"\0\0\0 ftypisom" + bytes(90),
    "a numpy array": b"\x93NUMPY\x01\x00v\x00{'descr'" + bytes(90),
    "a program": b"MZ" + bytes(90),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(90),
    "PDF": b"%PDF-1.7\n" + bytes(90),
    "a PK mark": b"PK\x03\x04" + bytes(30),
    "a pickle mark": b"\x80",
    "the mark of GGUF": b"GGUF",
    "GGUF and text": b"GGUF is a format for weights, and this is a text about it",
}
PLACES: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "a broken link": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a missing file": lambda path: None,
}
CUTS: dict[str, Callable[[int], int]] = {
    "half": lambda n: n // 2,
    "at the last byte": lambda n: n - 1,
    "after 20 bytes": lambda n: 20,
    "after 500 bytes": lambda n: 500,
}


def _cut(what: str, keep: Callable[[int], int], kind: str) -> Crafted:
    def content() -> bytes:
        whole = right_bytes(kind)
        return whole[: keep(len(whole))]

    return crafted(f"{kind} cut off: {what}", kind, content)


NO_WEIGHTS = (
    *(crafted(f"{what}, for {kind}", kind, content) for kind in (TALK, "encoder") for what, content in TEXTS.items()),
    *(_cut(what, keep, kind) for kind in (TALK, "encoder", "base") for what, keep in CUTS.items()),
    *(special(what, kind, make) for kind in (TALK, "uni3c", "encoder", "vae") for what, make in PLACES.items()),
    crafted("one byte too many", TALK, lambda: right_bytes(TALK) + b"\0"),
    crafted("a file twice", TALK, lambda: right_bytes(TALK) * 2),
    crafted("a page behind the weights", TALK, lambda: right_bytes(TALK) + b"<html>"),
)

"""Sections of gpu_report.py: the card's ceilings, the attention map of two speakers, attention kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from gpu_bench import Bench
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, HEAD_DIM = 40, 128
TOKENS = {"480p": (21, 1560), "720p": (21, 3600)}  # latent frames, tokens of one
FEW_KEYS = {"audio of one speaker": 32, "picture": 257, "text": 512}
DRAWS = 50
PROBES = 64  # queries for which the exact result is computed
PYTORCH = {
    "PyTorch flash": SDPBackend.FLASH_ATTENTION,
    "PyTorch cuDNN": SDPBackend.CUDNN_ATTENTION,
    "PyTorch efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def ceilings(bench: Bench) -> None:
    """Copies within the card and over the bus, and the rate of large matrix products."""
    n = bench.of(2**28, 2**12)
    a, b = (torch.randn(n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    bench.rows.add(
        what="copy in the card, GB/s read and written", value=2 * 2 * n / bench.timed(lambda: b.copy_(a)) / 1e9
    )
    for pinned in (True, False):
        host = torch.zeros(n, dtype=torch.bfloat16)
        host = host.pin_memory() if pinned else host
        memory = "pinned" if pinned else "pageable"
        bench.rows.add(
            what=f"to the card from {memory} memory, GB/s", value=2 * n / bench.timed(partial(a.copy_, host)) / 1e9
        )
        bench.rows.add(
            what=f"from the card to {memory} memory, GB/s", value=2 * n / bench.timed(partial(host.copy_, a)) / 1e9
        )
    size = bench.of(8192, 64)
    for dtype in (torch.bfloat16, torch.float16):
        x, y = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        rate = 2 * size**3 / bench.timed(partial(torch.matmul, x, y), 10) / 1e12
        bench.rows.add(what=f"matrix products in {str(dtype).removeprefix('torch.')}, TFLOP/s", value=rate)


def speaker_map(bench: Bench) -> None:
    """Time, error and NaN of `reference_attention_map`, and which of PyTorch's kernels take its shapes."""
    positions = bench.module("infinitetalk_core.model.speaker_positions")
    for size, (frames, tokens) in TOKENS.items():
        frames, tokens, heads = bench.of((frames, tokens, HEADS), (3, 16, 4))
        q, k, v = (_randn(1, frames * tokens, heads, HEAD_DIM) for _ in range(3))
        masks = (torch.arange(tokens) * 3 // tokens == torch.arange(3)[:, None]).float().to("cuda")
        attention = bench.timed(lambda q=q, k=k, v=v: _sdpa(q, k, v), 3)
        exact = _exact_map(q, k, masks)
        for name, backend in {"PyTorch's choice": None, **PYTORCH}.items():
            row = {"size": size, "kernel": name}
            try:
                with _only(backend):
                    found = positions.reference_attention_map(q, k, masks)
                    took = bench.timed(lambda q=q, k=k, m=masks: positions.reference_attention_map(q, k, m), 3)
                error = _error(found[:, :, : exact.shape[-1]], exact)
                bench.rows.add(**row, ms=1e3 * took, **{"share of a self-attention": took / attention}, error=error)
            except RuntimeError as error:
                bench.rows.add(**row, ms=f"refused: {str(error)[:60]}")
        if size == "480p":
            broken = sum(
                not bool(torch.isfinite(positions.reference_attention_map(_loud(q, i), k, masks)).all())
                for i in range(bench.of(DRAWS, 2))
            )
            bench.rows.note(f"Draws with a number that is not finite: {broken} of {bench.of(DRAWS, 2)}.")


def kernels(bench: Bench) -> None:
    """Time, error and NaN of the attention kernels for few keys (32, 257, 512) and for the whole video."""
    own = bench.module("infinitetalk_core.model.kernels")
    functions: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        name: _pytorch(backend) for name, backend in {"PyTorch's choice": None, **PYTORCH}.items()
    }
    if not bench.small and own._is_installed("sageattention"):
        functions["SageAttention"] = lambda q, k, v: own.attend(q, k, v, "sageattention", "sageattn")
    frames, tokens, heads = bench.of((*TOKENS["480p"], HEADS), (3, 16, 4))
    q = _randn(1, frames * tokens, heads, HEAD_DIM)
    shapes = {f"{keys} keys ({what})": (q, keys) for what, keys in FEW_KEYS.items()}
    shapes[f"{q.shape[1]} keys (480p)"] = (q, q.shape[1])
    for shape, (queries, keys) in shapes.items():
        _compare_kernels(bench, functions, shape, queries, keys)
    del q, shapes
    if not bench.small:
        frames, tokens = TOKENS["720p"]
        large = _randn(1, frames * tokens, HEADS, HEAD_DIM)
        _compare_kernels(bench, functions, f"{large.shape[1]} keys (720p)", large, large.shape[1])


def _compare_kernels(bench: Bench, functions: dict[str, Any], shape: str, q: Tensor, keys: int) -> None:
    k, v = (_randn(1, keys, *q.shape[2:]) for _ in range(2))
    exact = _exact(q[:, :PROBES], k, v)
    few = keys <= max(FEW_KEYS.values())
    for name, function in functions.items():
        row: dict[str, Any] = {"keys": shape, "kernel": name}
        try:
            error = _error(function(q, k, v)[:, :PROBES], exact)
            took = bench.timed(lambda f=function: f(q, k, v), 3, inner=5 if few else 1)
            draws = bench.of(DRAWS if few else 3, 2)
            part = q[:, :4096] if few else q
            broken = sum(
                not bool(torch.isfinite(function(_loud(part, i), _randn(*k.shape), v)).all()) for i in range(draws)
            )
            bench.rows.add(**row, ms=1e3 * took, error=error, **{"not finite": f"{broken} of {draws} draws"})
        except Exception as error:  # a kernel of another package may raise anything
            bench.rows.add(**row, ms=f"refused: {str(error)[:60]}")


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def _loud(q: Tensor, draw: int) -> Tensor:
    """Return other queries, from small ones to ones that make the softmax nearly a choice."""
    return torch.randn_like(q) * (0.5 * 1.1**draw)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


def _only(backend: SDPBackend | None) -> Any:
    return sdpa_kernel([*PYTORCH.values(), SDPBackend.MATH] if backend is None else [backend])


def _pytorch(backend: SDPBackend | None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if backend is None:
            return _sdpa(q, k, v)
        with _only(backend):
            return _sdpa(q, k, v)

    return run


def _exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in float64 for the few queries q (1, P, H, D), one head at a time -> (1, P, H, D)."""
    heads = []
    for h in range(q.shape[2]):
        weights = (q[0, :, h].double() @ k[0, :, h].double().T * q.shape[-1] ** -0.5).softmax(-1)
        heads.append(weights @ v[0, :, h].double())
    return torch.stack(heads, dim=1)[None]


def _exact_map(q: Tensor, k: Tensor, masks: Tensor) -> Tensor:
    """`reference_attention_map` in float64 for the first `PROBES` tokens -> (1, S+1, P)."""
    values = (masks / masks.sum(dim=1, keepdim=True)).double().T
    tokens = masks.shape[1]
    found = torch.zeros(min(PROBES, q.shape[1]), masks.shape[0], device="cuda", dtype=torch.float64)
    for h in range(q.shape[2]):
        weights = q[0, :PROBES, h].double() @ k[0, :tokens, h].double().T * q.shape[-1] ** -0.5
        found += weights.softmax(-1) @ values
    return (found / q.shape[2]).T[None]


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())

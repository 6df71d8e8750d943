"""How far two tensors are from each other."""

from __future__ import annotations

from torch import Tensor


def relative(got: Tensor, want: Tensor) -> float:
    """||got − want|| / ||want||; tensors of different shapes are an error."""
    assert got.shape == want.shape, f"{tuple(got.shape)} is not {tuple(want.shape)}"
    return ((got.float() - want.float()).norm() / want.float().norm()).item()

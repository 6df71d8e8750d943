"""Muon: an optimizer for matrices and convolutions whose step has equal length in every direction of a weight matrix.

Small autoencoders have few channels with strong correlations; Adam learns the weak directions late. Orthogonal updates
(Jordan et al., "Muon", 2024), scaled to Adam's usual step (Liu et al., arXiv 2502.16982, equation 4), reach the same
loss in fewer steps. Biases and gains are trained with Adam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from infinitetalk_core.model.precision import fast_dtype

MOMENTUM, ADAM_BETAS, EPSILON = 0.95, (0.9, 0.98), 1e-8
POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # moves all singular values towards 1 in five iterations


class Muon:
    """Train `weights` (float32 tensors that hold `.grad`): matrices by Muon, tensors of a single column by Adam."""

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.steps = 0
        self.first = [torch.zeros_like(w) for w in weights]
        self.second = [torch.zeros_like(w) if not is_matrix(w) else torch.zeros(()) for w in weights]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], learning_rate: float) -> None:
        """Update the weights with `gradients` (float32); None leaves a weight as it is."""
        self.steps += 1
        for weight, gradient, first, second in zip(self.weights, gradients, self.first, self.second, strict=True):
            if gradient is None:
                continue
            if is_matrix(weight):
                first.mul_(MOMENTUM).add_(gradient)
                ahead = (gradient + MOMENTUM * first).flatten(1)
                size = 0.2 * math.sqrt(max(ahead.shape))
                weight.add_(orthogonal(ahead).view_as(weight), alpha=-learning_rate * size)
            else:
                first.lerp_(gradient, 1 - ADAM_BETAS[0])
                second.lerp_(gradient.square(), 1 - ADAM_BETAS[1])
                mean = first / (1 - ADAM_BETAS[0] ** self.steps)
                spread = (second / (1 - ADAM_BETAS[1] ** self.steps)).sqrt() + EPSILON
                weight.add_(mean / spread, alpha=-learning_rate)

    def state(self) -> dict[str, Tensor]:
        """Return the state that a resumed run needs."""
        named = {f"first.{i}": t for i, t in enumerate(self.first)}
        named |= {f"second.{i}": t for i, t in enumerate(self.second)}
        return named | {"steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""
        self.steps = int(state["steps"])
        self.first = [state[f"first.{i}"] for i in range(len(self.weights))]
        self.second = [state[f"second.{i}"] for i in range(len(self.weights))]


def is_matrix(weight: Tensor) -> bool:
    """Return whether a weight has several columns; gains and biases have one."""
    return weight.ndim >= 2 and weight[0].numel() > 1


def orthogonal(matrix: Tensor) -> Tensor:
    """Return the nearest matrix with equal singular values near 1, by Newton and Schulz's iteration in `fast_dtype`."""
    x = matrix.to(fast_dtype(matrix.device))
    x = x / (x.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    a, b, c = POLYNOMIAL
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x if wide else x.T).to(matrix.dtype)

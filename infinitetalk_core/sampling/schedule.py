"""The noise schedule: evenly spaced steps, moved towards high noise by `shift`."""

from __future__ import annotations

import torch
from torch import Tensor

TIMESTEPS = 1000


def shifted_sigmas(steps: int, shift: float) -> Tensor:
    """Noise levels (steps + 1,) from 1 down to 0, float32.

    linspace(1000, 1, steps), then 0, then shift·t / (1 + (shift−1)·t): the reference ends its steps at 1 and not
    at 0 (wan/multitalk.py, `timestep_transform`). Timesteps are sigmas times 1000.
    """
    spaced = torch.linspace(TIMESTEPS, 1, steps, dtype=torch.float64).float()
    t = torch.cat([spaced, torch.zeros(1)]) / TIMESTEPS
    return shift * t / (1 + (shift - 1) * t)

"""The noise schedule: evenly spaced timesteps, shifted towards high noise levels by `shift`."""

from __future__ import annotations

import torch
from torch import Tensor

TIMESTEPS = 1000


def shifted_sigmas(steps: int, shift: float) -> Tensor:
    """Return the noise levels (steps + 1,) from 1 down to 0, float32.

    They are linspace(1000, 1, steps) followed by 0, then shift·t / (1 + (shift-1)·t): the last timestep of the
    reference is 1 and not 0 (wan/multitalk.py, `timestep_transform`). Timesteps are sigmas times 1000.
    """
    spaced = torch.linspace(TIMESTEPS, 1, steps, dtype=torch.float64).float()
    t = torch.cat([spaced, torch.zeros(1)]) / TIMESTEPS
    return shift * t / (1 + (shift - 1) * t)

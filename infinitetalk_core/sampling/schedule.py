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
    return _shifted(t, shift)


def even_sigmas(steps: int, shift: float) -> Tensor:
    """Return the noise levels (steps + 1,) from 1 down to 0, float32: t = 1 - k / steps for k = 0 … steps, then shift.

    For samplers that use several predictions in a step. The last step but one of `shifted_sigmas` ends just above 0
    (0.007 at shift 7, after 0.54 with 8 steps): a jump of the signal-to-noise ratio over which they extrapolate.
    """
    return _shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def _shifted(t: Tensor, shift: float) -> Tensor:
    return shift * t / (1 + (shift - 1) * t)

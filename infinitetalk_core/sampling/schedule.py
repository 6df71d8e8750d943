"""The noise schedule: evenly spaced timesteps, shifted towards high noise levels by `shift`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

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


def check_range(name: str, start: float, end: float) -> None:
    """Raise InputError unless start and end are shares of a schedule, in this order. name: of both, for the error."""
    if not 0 <= start <= end <= 1:
        raise InputError(f"{name} must be between 0 and 1 and in this order, got {start:g} and {end:g}")


def acts_at(sigma: float, sigmas: Tensor, start: float, end: float) -> bool:
    """Return whether noise level `sigma` lies between the shares `start` and `end` of `sigmas` (steps + 1,).

    start 0 and end 1 set no bound: samplers that add noise exceed the schedule.
    """
    low = 0.0 if end == 1 else level_at(sigmas, end) - 1e-6
    high = float("inf") if start == 0 else level_at(sigmas, start) + 1e-6
    return low <= sigma <= high


def level_at(sigmas: Tensor, share: float) -> float:
    """Return the noise level after `share` of the steps, linearly interpolated between steps."""
    position = share * (len(sigmas) - 1)
    low = min(int(position), len(sigmas) - 2)
    return float(sigmas[low] + (sigmas[low + 1] - sigmas[low]) * (position - low))

"""The SAMPLER that a job uses where none is connected."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ....infinitetalk_core.sampling.renoise import renoise
from ....infinitetalk_core.sampling.settings import SamplingSettings


def own_sampler(settings: SamplingSettings) -> comfy.samplers.KSAMPLER:
    """Return Euler's, as in the reference, or for a model whose estimates are noised anew the engine's for that.

    ComfyUI's `lcm` does the same, but with noise that depends on version and device: 0.3.75 repeats the chunk's own on
    a CPU.
    """
    return comfy.samplers.KSAMPLER(_renoise) if settings.renoise else comfy.samplers.sampler_object("euler")


@torch.no_grad()
def _renoise(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Any = None, disable: bool | None = None
) -> Tensor:
    """Sample, with the arguments of ComfyUI's sampler functions."""
    ones = x.new_ones([len(x)])

    def after_step(step: int, denoised: Tensor, x: Tensor) -> None:
        if callback is not None:
            level = sigmas[step]
            callback({"x": x, "i": step, "sigma": level, "sigma_hat": level, "denoised": denoised})

    return renoise(lambda x, sigma: model(x, sigma * ones, **extra_args), x, sigmas, extra_args["seed"], after_step)

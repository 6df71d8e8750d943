"""Classifier-free guidance by text and by audio.

The model predicts a velocity for up to three conditions (branches), which are then combined. Source: wan/multitalk.py
of the reference; adaptive projected guidance: arXiv 2410.02416.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .schedule import acts_at, check_range


class Branch(enum.Enum):
    """The condition of a prediction; the names are the reference's (`noise_pred_cond`, `noise_pred_drop_text` …)."""

    COND = "text and speech"
    DROP_TEXT = "speech, negative text"
    DROP_AUDIO = "text, no speech"
    UNCOND = "negative text, no speech"

    @property
    def uses_audio(self) -> bool:
        """Whether this branch is conditioned on the speech."""
        return self in (Branch.COND, Branch.DROP_TEXT)

    @property
    def uses_text(self) -> bool:
        """Whether this branch is conditioned on the positive prompt."""
        return self in (Branch.COND, Branch.DROP_AUDIO)


@dataclass(frozen=True)
class Apg:
    """Settings of adaptive projected guidance, which keeps strong guidance from over-saturating.

    Each guidance difference is accumulated over the steps with `momentum`, clipped to the norm `norm_threshold` (0: not
    clipped), and its component parallel to the conditional prediction is removed.
    """

    momentum: float = -0.75
    norm_threshold: float = 55.0


@dataclass(frozen=True)
class Guidance:
    """Guidance scales of text and audio. A scale of 1 means no guidance, and one prediction less per step.

    start, end: the range in which there is guidance, as shares of the schedule; outside of it a step is one prediction.
    """

    text_scale: float = 5.0
    audio_scale: float = 4.0
    apg: Apg | None = None
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("text", self.text_scale), ("audio", self.audio_scale)):
            if not math.isfinite(value) or value < 0:
                raise InputError(f"{name} guidance must be a number from 0 up, got {value}; 1 means none")
        check_range("start and end of the guidance", self.start, self.end)

    @property
    def text_is_off(self) -> bool:
        """Whether the text scale is 1, for which the reference uses its two-branch rule."""
        return math.isclose(self.text_scale, 1.0)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches to predict: those whose weight in the combination is not zero."""
        speech_is_on = not math.isclose(self.audio_scale, 1.0)
        if self.text_is_off:
            return (Branch.COND, Branch.DROP_AUDIO) if speech_is_on else (Branch.COND,)
        if not speech_is_on:
            return (Branch.COND, Branch.DROP_TEXT)
        if self.apg is None and math.isclose(self.text_scale, self.audio_scale):
            return (Branch.COND, Branch.UNCOND)
        return (Branch.COND, Branch.DROP_TEXT, Branch.UNCOND)

    def branches_at(self, sigma: float, sigmas: Tensor) -> tuple[Branch, ...]:
        """Return the branches to predict at noise level `sigma` of the schedule `sigmas` (steps + 1,)."""
        return self.branches if acts_at(sigma, sigmas, self.start, self.end) else (Branch.COND,)


# Velocities by branch, each (..., C, T, H, W) -> the guided velocity.
Combine = Callable[[Mapping[Branch, Tensor]], Tensor]


def guided(guidance: Guidance) -> Combine:
    """Return the function that combines the branches; the condition alone stays as it is.

    Create one for each chunk: with APG it holds the momentum.
    """
    if guidance.apg is not None:
        return _with_apg(guidance, guidance.apg)
    text, audio = guidance.text_scale, guidance.audio_scale

    def combine(v: Mapping[Branch, Tensor]) -> Tensor:
        cond = v[Branch.COND]
        if len(v) == 1:
            return cond
        if guidance.text_is_off:
            other = v.get(Branch.DROP_AUDIO)
            return cond if other is None else other + audio * (cond - other)
        if Branch.UNCOND not in v:  # audio scale 1: its two terms cancel
            return v[Branch.DROP_TEXT] + text * (cond - v[Branch.DROP_TEXT])
        uncond = v[Branch.UNCOND]
        if Branch.DROP_TEXT not in v:  # text scale = audio scale: drop_text cancels
            return uncond + text * (cond - uncond)
        return uncond + text * (cond - v[Branch.DROP_TEXT]) + audio * (v[Branch.DROP_TEXT] - uncond)

    return combine


def _with_apg(guidance: Guidance, apg: Apg) -> Combine:
    """Return the rule of `guided` with adaptive projected guidance; text and audio have a momentum buffer each."""
    project_text, project_audio = _projected(apg), _projected(apg)

    def combine(v: Mapping[Branch, Tensor]) -> Tensor:
        cond = v[Branch.COND]
        if len(v) == 1:
            return cond
        out = cond
        with_audio = cond
        if not guidance.text_is_off:
            with_audio = v[Branch.DROP_TEXT]
            out = out + (guidance.text_scale - 1) * project_text(cond - with_audio, cond)
        no_audio = v.get(Branch.DROP_AUDIO if guidance.text_is_off else Branch.UNCOND)
        if no_audio is not None:
            out = out + (guidance.audio_scale - 1) * project_audio(with_audio - no_audio, cond)
        return out

    return combine


def _projected(apg: Apg) -> Callable[[Tensor, Tensor], Tensor]:
    """Return APG's function (difference, cond) -> projected difference. The closure holds the momentum buffer."""
    average: Tensor | None = None

    def project(difference: Tensor, cond: Tensor) -> Tensor:
        nonlocal average
        average = difference if average is None else difference + apg.momentum * average
        diff = average.double()
        if apg.norm_threshold > 0:
            diff = diff * min(1.0, apg.norm_threshold / diff.norm().clamp_min(1e-12).item())
        direction = torch.nn.functional.normalize(cond.double().flatten(), dim=0).view_as(diff)
        return (diff - (diff * direction).sum() * direction).to(cond.dtype)

    return project

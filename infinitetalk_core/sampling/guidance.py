"""Guidance by text and by speech.

A prediction is made for up to three conditions (branches) and combined. Source: wan/multitalk.py of the reference;
adaptive projected guidance: arXiv 2410.02416.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


class Branch(enum.Enum):
    """What a prediction is conditioned on."""

    COND = "text and speech"
    DROP_TEXT = "speech, negative text"
    DROP_AUDIO = "text, no speech"
    UNCOND = "negative text, no speech"

    @property
    def uses_audio(self) -> bool:
        """Whether this branch is given the speech."""
        return self in (Branch.COND, Branch.DROP_TEXT)

    @property
    def uses_text(self) -> bool:
        """Whether this branch is given the positive text."""
        return self in (Branch.COND, Branch.DROP_AUDIO)


@dataclass(frozen=True)
class Apg:
    """Adaptive projected guidance: smoothed by `momentum`, clipped to `norm_threshold`, freed of the part along
    the conditional prediction. Keeps strong guidance from over-saturating."""

    momentum: float = -0.75
    norm_threshold: float = 55.0


@dataclass(frozen=True)
class Guidance:
    """How strongly text and speech pull. 1 means no extra pull (and one prediction less a step)."""

    text_scale: float = 5.0
    audio_scale: float = 4.0
    apg: Apg | None = None

    def __post_init__(self) -> None:
        for name, value in (("text", self.text_scale), ("audio", self.audio_scale)):
            if not math.isfinite(value) or value < 0:
                raise InputError(f"{name} guidance must be a number from 0 up, got {value}; 1 means none")

    @property
    def text_is_off(self) -> bool:
        """Whether text guidance is 1, which takes the two-branch rule."""
        return math.isclose(self.text_scale, 1.0)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches whose weight is not zero."""
        speech_is_on = not math.isclose(self.audio_scale, 1.0)
        if self.text_is_off:
            return (Branch.COND, Branch.DROP_AUDIO) if speech_is_on else (Branch.COND,)
        if not speech_is_on:
            return (Branch.COND, Branch.DROP_TEXT)
        if self.apg is None and math.isclose(self.text_scale, self.audio_scale):
            return (Branch.COND, Branch.UNCOND)
        return (Branch.COND, Branch.DROP_TEXT, Branch.UNCOND)


# Velocities by branch, each (..., C, T, H, W) → the guided velocity.
Combine = Callable[[Mapping[Branch, Tensor]], Tensor]


def guided(guidance: Guidance) -> Combine:
    """The rule that combines the branches. Make a fresh one for each chunk: APG keeps momentum inside."""
    if guidance.apg is not None:
        return _with_apg(guidance, guidance.apg)
    text, audio = guidance.text_scale, guidance.audio_scale

    def combine(v: Mapping[Branch, Tensor]) -> Tensor:
        cond = v[Branch.COND]
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
    text_pull, audio_pull = _projected(apg), _projected(apg)

    def combine(v: Mapping[Branch, Tensor]) -> Tensor:
        cond = v[Branch.COND]
        out = cond
        hearing = cond
        if not guidance.text_is_off:
            hearing = v[Branch.DROP_TEXT]
            out = out + (guidance.text_scale - 1) * text_pull(cond - hearing, cond)
        deaf = v.get(Branch.DROP_AUDIO if guidance.text_is_off else Branch.UNCOND)
        if deaf is not None:
            out = out + (guidance.audio_scale - 1) * audio_pull(hearing - deaf, cond)
        return out

    return combine


def _projected(apg: Apg) -> Callable[[Tensor, Tensor], Tensor]:
    """The part of a guidance difference that is kept; the running average lives as long as the closure."""
    average: Tensor | None = None

    def keep(difference: Tensor, cond: Tensor) -> Tensor:
        nonlocal average
        average = difference if average is None else difference + apg.momentum * average
        kept = average.double()
        if apg.norm_threshold > 0:
            kept = kept * min(1.0, apg.norm_threshold / kept.norm().clamp_min(1e-12).item())
        along = torch.nn.functional.normalize(cond.double().flatten(), dim=0).view_as(kept)
        return (kept - (kept * along).sum() * along).to(cond.dtype)

    return keep

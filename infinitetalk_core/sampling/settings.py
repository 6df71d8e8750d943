"""Sampling settings (steps, guidance scales, shift) and presets that set all of them together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import InputError
from .guidance import Apg, Guidance
from .schedule import check_range, even_sigmas, shifted_sigmas


@dataclass(frozen=True)
class SamplingSettings:
    """The sampling settings of a chunk; the defaults are the reference's at 480p.

    guidance_start, guidance_end: the range with guidance, as shares of the schedule.
    renoise: whether the model is distilled so that each step noises its estimate anew (sampling/renoise.py).
    chunk_frames, context_frames: on which it was trained, if on other numbers than InfiniteTalk.
    """

    steps: int = 40
    text_scale: float = 5.0
    audio_scale: float = 4.0
    shift: float = 7.0
    apg: Apg | None = None
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    renoise: bool = False
    chunk_frames: int | None = None
    context_frames: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"there must be at least 1 step, got {self.steps}")
        if not self.shift > 0:
            raise InputError(f"shift must be above 0, got {self.shift}; 7 for 480p, 11 for 720p")
        check_range("guidance_start and guidance_end", self.guidance_start, self.guidance_end)

    @property
    def guidance(self) -> Guidance:
        """The guidance scales, their range and the APG settings."""
        return Guidance(self.text_scale, self.audio_scale, self.apg, self.guidance_start, self.guidance_end)

    @property
    def sigmas(self) -> Tensor:
        """The noise levels (steps + 1,), see `shifted_sigmas`; evenly spaced ones where estimates are noised anew."""
        return self.even_sigmas if self.renoise else shifted_sigmas(self.steps, self.shift)

    @property
    def even_sigmas(self) -> Tensor:
        """The noise levels (steps + 1,) for another sampler than Euler's, see `even_sigmas` of the schedule."""
        return even_sigmas(self.steps, self.shift)


# The reference's defaults (README and generate_infinitetalk.py): shift 7 at 480p, 11 at 720p; with a distill LoRA
# text scale 1 and audio scale 1 to 2. Audio guidance alone, and in the middle of the schedule only (61 predictions of
# 120): benchmarks/RESULTS.md, guidance in a range of the steps.
PRESETS = {
    "quality 480p (40 steps)": SamplingSettings(40, 5.0, 4.0, 7.0),
    "quality 720p (40 steps)": SamplingSettings(40, 5.0, 4.0, 11.0),
    "audio guidance 480p (40 steps)": SamplingSettings(40, 1.0, 4.0, 7.0),
    "audio guidance 720p (40 steps)": SamplingSettings(40, 1.0, 4.0, 11.0),
    "half the predictions 480p (40 steps)": SamplingSettings(
        40, 1.0, 4.0, 7.0, guidance_start=0.125, guidance_end=0.625
    ),
    "half the predictions 720p (40 steps)": SamplingSettings(
        40, 1.0, 4.0, 11.0, guidance_start=0.125, guidance_end=0.625
    ),
    "distill LoRA (4 steps)": SamplingSettings(4, 1.0, 1.0, 7.0),
    "distill LoRA (8 steps)": SamplingSettings(8, 1.0, 2.0, 7.0),
    # flash_talk/configs/infer_params.yaml and flash_talk_pipeline.py of Soul-AILab/SoulX-FlashTalk: the timesteps 1000,
    # 750, 500, 250 and 0 with shift 5, one prediction each.
    "FlashTalk (4 steps)": SamplingSettings(4, 1.0, 1.0, 5.0, renoise=True, chunk_frames=33, context_frames=5),
}


# Pixels; between the areas of the two classes of size buckets, about 640 x 640 and 960 x 960.
_LARGE_PIXELS = 640 * 960


def preset_for(height: int, width: int) -> SamplingSettings:
    """Return the 40-step preset for a video of this size in pixels: a larger video needs a larger shift."""
    return PRESETS["quality 720p (40 steps)" if height * width > _LARGE_PIXELS else "quality 480p (40 steps)"]


def with_apg(settings: SamplingSettings, use_apg: bool, momentum: float, norm_threshold: float) -> SamplingSettings:
    """Return `settings`, with adaptive projected guidance if `use_apg`."""
    return replace(settings, apg=Apg(momentum, norm_threshold)) if use_apg else settings

"""A job: all settings and inputs of a video as frozen dataclasses, and the plan made from them.

The fields of these classes identify a run (fingerprint.py). A new option is a field here, an input of a node and a line
of help; a field that does not change the video is marked with `excluded`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..fingerprint import Component, describe, excluded
from ..sampling.guidance import Guidance
from ..sampling.settings import SamplingSettings
from ..sampling.step_cache import StepCaching
from ..speakers import speaker_masks, token_masks
from ..speech import Speech
from ..video.cuts import find_cuts
from ..video.format import VideoFormat
from ..video.source import FrameSource, pixels_of
from .camera_control import CameraControl, CameraGuide, FilmedGuide, stack_shown
from .color import COLOR_HOLD_FRAMES
from .lip_tries import check_retries
from .pinned import Pinned
from .plan import CHUNK_FRAMES, CONTEXT_FRAMES, Chunk, check_4n_plus_1, chunk_seed, plan_chunks
from .redo import ChunkOverride, Redo, parse_redo
from .reference import AfterEnd, PlannedChunk, Policy, ReferenceSettings, choose_references, output_cuts, shown_frames
from .seam import SEAM_FADE, check_seam_fade
from .sizes import fit_8_bits, from_8_bits

SIGMA_SLACK = 0.02  # by which a schedule may begin below 1
ROUNDING = 1e-4  # of noise levels


@dataclass(frozen=True)
class Components:
    """The models that the user connected. None: not connected."""

    model: Component
    vae: Component
    clip_vision: Component | None = None
    positive: Component | None = None
    negative: Component | None = None
    sampler: Component | None = None


@dataclass(frozen=True)
class Reference:
    """The source of identity, background and camera. cuts: source frames at which another shot begins."""

    source: FrameSource
    height: int
    width: int
    settings: ReferenceSettings = field(default_factory=ReferenceSettings)
    cuts: tuple[int, ...] = field(
        default=(), metadata=excluded("they change the plan, which counts; more of them are found in a longer search")
    )

    def pixels(self, frame: int) -> Tensor:
        """Read source frame `frame` at the video's size as 8-bit numbers: (height, width, 3)."""
        return fit_8_bits(pixels_of(self.source, frame), self.height, self.width)

    def picture(self, frame: int) -> Tensor:
        """Read source frame `frame` at the video's size: (height, width, 3) in [0, 1]."""
        return from_8_bits(self.pixels(frame))

    def window(self, chunk: Chunk) -> Tensor:
        """Read the source frames of the chunk at the video's size: (length, height, width, 3)."""
        return stack_shown(shown_frames(chunk, self.source.length, self.settings.after_end), self.picture)


class HoldBy(enum.Enum):
    """What colors are held by: mean and deviation of the whole picture, or the color of each region of the anchor."""

    REGION = "region"  # local_color.py
    PICTURE = "picture"  # color.py


@dataclass(frozen=True)
class ColorHold:
    """Settings of color matching to the reference frame of each chunk, or (`to_first`) of the first chunk."""

    strength: float = 1.0
    to_first: bool = False
    over: int = COLOR_HOLD_FRAMES  # odd number of frames whose statistics are averaged for each correction
    by: HoldBy = HoldBy.PICTURE
    device: torch.device | None = field(
        default=None, metadata=excluded("where it is computed; the machine counts by itself")
    )  # None: the device of the frames


@dataclass(frozen=True)
class Sampling:
    """Settings for planning, denoising and joining chunks. The defaults are those of the Chunk Sampler."""

    seed: int = 0
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    sigmas: Tensor | None = None  # (steps + 1,) noise levels that replace those of `settings`
    step_cache: StepCaching | None = None
    chunk_frames: int = CHUNK_FRAMES
    context_frames: int = CONTEXT_FRAMES  # last frames of a chunk that the next one starts from
    color: ColorHold = field(default_factory=ColorHold)
    seam_fade: int = SEAM_FADE  # new frames over which the VAE's change of the context fades in; 0: off
    sdedit: tuple[float, ...] = ()  # SDEdit's t0 by chunk index, the last value repeats; empty: off
    pinned: Pinned | None = None
    camera: CameraControl | None = None
    retry_lips: int = 0  # further tries of a chunk whose lips do not follow the voice (lip_tries.py)

    def __post_init__(self) -> None:
        check_4n_plus_1("chunk length", self.chunk_frames)
        check_4n_plus_1("context frames", self.context_frames)
        check_seam_fade(self.seam_fade)
        check_retries(self.retry_lips)

    @property
    def schedule(self) -> Tensor:
        """The noise levels (steps + 1,), decreasing to 0."""
        return self.settings.sigmas if self.sigmas is None else self.sigmas

    @property
    def guidance(self) -> Guidance:
        """The guidance that combines the predictions of a step."""
        return self.settings.guidance

    def with_lengths_of_model(self) -> Sampling:
        """Return the settings with the lengths that the model was trained on where they are InfiniteTalk's."""
        own = self.settings
        chunk_frames, context_frames = self.chunk_frames, self.context_frames
        if own.chunk_frames is not None and chunk_frames == CHUNK_FRAMES:
            chunk_frames = own.chunk_frames
        if own.context_frames is not None and context_frames == CONTEXT_FRAMES:
            context_frames = own.context_frames
        return replace(self, chunk_frames=chunk_frames, context_frames=context_frames)

    def strength(self, chunk: Chunk) -> float:
        """Return SDEdit's t0 of `chunk`; 1 if SDEdit is off."""
        return self.sdedit[min(chunk.index, len(self.sdedit) - 1)] if self.sdedit else 1.0


@dataclass(frozen=True)
class Output:
    """Settings of the output file and of the run's intermediate files."""

    format: VideoFormat = field(default_factory=VideoFormat)
    filename_prefix: str = field(
        default="video/InfiniteTalk", metadata=excluded("where the file goes, not what is in it")
    )
    start_over: bool = field(default=False, metadata=excluded("makes the same video anew"))
    keep_intermediates: bool = field(default=False, metadata=excluded("what stays beside the finished video"))
    first_chunk_only: bool = field(default=False, metadata=excluded("how much of the same video is made now"))


@dataclass(frozen=True)
class Job:
    """All settings and inputs of a video.

    components: None without a host, when the models are given as functions only (`dub.Models`).
    """

    speech: Speech
    reference: Reference
    sampling: Sampling = field(default_factory=Sampling)
    components: Components | None = None
    output: Output = field(default_factory=Output)
    redo: Redo = field(
        default_factory=Redo,
        metadata=excluded("chunks made again are further files of the same run (runs/tasks.py), which names them"),
    )

    @cached_property
    def plan(self) -> tuple[PlannedChunk, ...]:
        """The planned chunks in order."""
        sampling = self.sampling
        return plan_video(
            self.reference, self.speech.frames, sampling.chunk_frames, sampling.context_frames, sampling.seed
        )

    @property
    def first_chunk_only(self) -> bool:
        """Whether the video is to be left unfinished after its first chunk; not where that is all of it."""
        return self.output.first_chunk_only and len(self.plan) > 1

    @cached_property
    def overrides(self) -> dict[int, ChunkOverride]:
        """The overrides of chunks to make again, by index. Raises InputError if the text is not valid."""
        return parse_redo(self.redo.chunks, len(self.plan), self.reference.source.length)

    @cached_property
    def masks(self) -> Tensor | None:
        """Speaker masks (S+1, tokens of a frame), the last one for the background; None for a single voice."""
        voices, reference = len(self.speech.voices), self.reference
        if voices == 1:
            return None
        picture, size = (reference.source.height, reference.source.width), (reference.height, reference.width)
        return token_masks(speaker_masks(voices, self.speech.areas, picture, size))

    @property
    def camera_guide(self) -> CameraGuide | None:
        """The guidance of Uni3C: the given one, else the source itself; None without camera control."""
        camera = self.sampling.camera
        if camera is None:
            return None
        return camera.guide or FilmedGuide(self.reference.source, self.reference.settings.after_end)

    def check(self) -> None:
        """Raise InputError if settings and inputs do not fit each other. Needs no loaded model."""
        source = self.reference.source
        if self.sampling.pinned is not None:
            self.sampling.pinned.check((source.height, source.width), source.length)
        self.output.format.check(self.reference.height, self.reference.width)
        assert self.plan and self.overrides is not None  # computing them raises InputError for invalid settings

    def description(self) -> dict[str, Any]:
        """Describe everything that decides the video as JSON: equal exactly when the videos are, on one machine."""
        return {"job": describe(self), "plan": [_describe_planned(planned) for planned in self.plan]}


def _describe_planned(planned: PlannedChunk) -> list[Any]:
    chunk, choice = planned.chunk, planned.choice
    numbers = [chunk.index, chunk.start, chunk.length, chunk.context, chunk.keep]
    return [numbers, [list(choice.frames), choice.last, choice.previous], planned.seed]


def plan_video(
    reference: Reference,
    frames: int,
    chunk_frames: int = CHUNK_FRAMES,
    context_frames: int = CONTEXT_FRAMES,
    seed: int = 0,
) -> tuple[PlannedChunk, ...]:
    """Plan the chunks of a video of `frames` frames, each with its reference and its seed."""
    length, settings = reference.source.length, reference.settings
    # A still uses one source frame for the whole video, so cuts do not matter.
    cuts: Sequence[int] = () if settings.policy is Policy.STILL else reference.cuts
    chunks = plan_chunks(frames, chunk_frames, context_frames, output_cuts(frames, cuts, length, settings.after_end))
    choices = choose_references(chunks, settings, length, cuts)
    return tuple(
        PlannedChunk(chunk, choice, chunk_seed(seed, chunk)) for chunk, choice in zip(chunks, choices, strict=True)
    )


def scene_cuts(
    source: FrameSource, settings: ReferenceSettings, frames: int | None, report: Callable[[float], None]
) -> tuple[int, ...]:
    """Find the scene cuts in the part of the source that a video of `frames` frames (None: any length) shows.

    report: called with the finished share of the search; an exception from it stops the search.
    """
    if source.length == 1 or settings.policy is Policy.STILL:
        return ()
    shown = source.length
    if frames is not None and settings.after_end is AfterEnd.HOLD:
        shown = min(shown, frames)
    return tuple(find_cuts(source, shown, report))


def check_sigmas(sigmas: Tensor, from_source: bool) -> Tensor:
    """Return `sigmas` if they are a valid schedule, else raise InputError.

    from_source: SDEdit is on and sets their start.
    """
    check_levels(sigmas)
    if sigmas[0] < 1 - SIGMA_SLACK and not from_source:
        raise InputError(
            f"the SIGMAS start at {sigmas[0]:g}, but a video that is made from noise starts at 1: choose a scheduler "
            "that begins there, such as simple, denoise 1, and the whole schedule (ddim_uniform begins lower with most "
            "numbers of steps); a lower start is for videos made from the source, with SDEdit Strength connected"
        )
    return sigmas


def check_levels(sigmas: Tensor) -> Tensor:
    """Return `sigmas` if they fall from 1 or less to 0 in at least one step, else raise InputError."""
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise InputError(
            f"the SIGMAS hold {sigmas.numel()} noise levels, and at least 2 are needed (one step); "
            "set denoise above 0 in the scheduler"
        )
    if not torch.isfinite(sigmas).all():
        raise InputError("the SIGMAS hold values that are no numbers (NaN or infinite); connect another scheduler")
    if sigmas[0] > 1 + ROUNDING:
        raise InputError(
            f"the SIGMAS start at {sigmas[0]:g}, above 1, as those of another kind of model do (SD, SDXL); make them "
            "for this MODEL: connect it to BasicScheduler, and that here"
        )
    if not 0 <= sigmas[-1] <= 1e-3:
        raise InputError(f"the SIGMAS must fall and end at 0, these end at {sigmas[-1]:g}; connect a whole schedule")
    if (sigmas[1:] >= sigmas[:-1]).any():
        raise InputError(
            "the SIGMAS must fall from step to step and reach 0 only at the end, and two of these are equal or rise; "
            "connect a scheduler's own schedule, not one that was flipped or joined, and not of more steps than it has "
            "noise levels"
        )
    return sigmas

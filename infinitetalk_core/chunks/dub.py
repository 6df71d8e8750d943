"""The run: chunk by chunk from a plan to frames. One chunk is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ..audio.windows import speech_windows
from ..speech import Speech
from ..video.source import FrameSource
from .color import hold_colour
from .conditioning import LATENT_CHANNELS, VAE_STRIDE, ChunkConditioning, Noise, reference_video
from .plan import Chunk
from .reference import AfterEnd, Policy, reference_frame
from .sizes import fit_to

# (step just done, its clean estimate (1, 16, T, h, w))
AfterStep = Callable[[int, Tensor], None]


class Models(Protocol):
    """What a run asks of the models; latents are in whatever scale the three methods share."""

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (F, H, W, 3) → latents (1, 16, T, h, w)."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (1, 16, T, h, w) → frames (F, H, W, 3)."""

    def see(self, picture: Tensor) -> Any:
        """A picture (H, W, 3) → its CLIP tokens, or None where there is no CLIP vision."""

    def denoise(self, conditioning: ChunkConditioning, after_step: AfterStep) -> Tensor:
        """The chunk's latents (1, 16, T, h, w), context included."""


@dataclass(frozen=True)
class Reference:
    """Where identity, background and camera come from."""

    source: FrameSource
    height: int
    width: int
    policy: Policy = Policy.STILL
    after_end: AfterEnd = AfterEnd.HOLD

    def frame(self, chunk: Chunk) -> int:
        """The source frame (at 25 fps) that `chunk` looks at."""
        return reference_frame(self.policy, chunk, self.source.length, self.after_end)

    def picture(self, frame: int) -> Tensor:
        """That source frame at the video's size: (height, width, 3)."""
        return fit_to(self.source.frame(frame), self.height, self.width)


@dataclass(frozen=True)
class ColourHold:
    """Colours held to a picture: the reference frame of each chunk, or always that of the first chunk."""

    strength: float = 1.0
    to_first: bool = False
    device: torch.device | None = None  # where to compute; by default where the frames are


@dataclass(frozen=True)
class Tail:
    """What a chunk hands to the next one."""

    frames: Tensor  # (M, H, W, 3): the last M = 4(t_c − 1) + 1 frames, as they were written
    index: int  # output frame number of the first of them


@dataclass(frozen=True)
class Finished:
    """A chunk that is done: its new frames (keep, H, W, 3), and what the next one continues from."""

    chunk: Chunk
    frames: Tensor
    tail: Tail


@dataclass(frozen=True)
class Job:
    """Everything a run is made of besides the models."""

    plan: Sequence[Chunk]
    context_frames: int  # what a chunk hands to the next one
    speech: Speech
    reference: Reference
    masks: Tensor | None
    colour: ColourHold
    noise: Noise


@dataclass(frozen=True)
class _Look:
    """A reference frame as the models see it; kept while the next chunk looks at the same frame."""

    frame: int
    picture: Tensor
    latents: Tensor
    clip: Any


def dub(
    job: Job,
    models: Models,
    after_step: Callable[[Chunk, int, Tensor], None] = lambda chunk, step, x: None,
    tail: Tail | None = None,
) -> Iterator[Finished]:
    """Make the chunks of `job.plan` one after the other.

    `tail` continues a run that was begun earlier: `job.plan` then starts at the chunk after it.
    """
    look: _Look | None = None
    anchor: Tensor | None = None
    if tail is not None and job.colour.to_first and job.colour.strength > 0:
        anchor = job.reference.picture(0)
    for chunk in job.plan:
        look = _look_at(job.reference, chunk, models, look)
        anchor = look.picture if anchor is None or not job.colour.to_first else anchor
        conditioning = _conditioning(job, chunk, models, look, tail)
        latents = models.denoise(conditioning, partial(after_step, chunk))
        frames = hold_colour(models.decode(latents), anchor, job.colour.strength, job.colour.device)
        # A copy: a view would keep the whole chunk in memory while the next one is made.
        tail = Tail(frames[-job.context_frames :].clone(), chunk.start + chunk.length - job.context_frames)
        yield Finished(chunk, frames[chunk.new], tail)


def _look_at(reference: Reference, chunk: Chunk, models: Models, before: _Look | None) -> _Look:
    frame = reference.frame(chunk)
    if before is not None and before.frame == frame and before.latents.shape[2] == chunk.latent_frames:
        return before
    picture = reference.picture(frame)
    latents = models.encode(reference_video(picture, chunk.length))
    return _Look(frame, picture, latents, models.see(picture))


def _conditioning(job: Job, chunk: Chunk, models: Models, look: _Look, tail: Tail | None) -> ChunkConditioning:
    context = models.encode(look.picture[None] if tail is None else tail.frames)
    size = (job.reference.height // VAE_STRIDE, job.reference.width // VAE_STRIDE)
    return ChunkConditioning(
        chunk=chunk,
        noise=job.noise(chunk, (1, LATENT_CHANNELS, chunk.latent_frames, *size)),
        context=context,
        reference=look.latents,
        picture=look.clip,
        windows=speech_windows(job.speech.voices, chunk.start, chunk.length),
        masks=job.masks,
    )

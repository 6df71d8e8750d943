"""The run: chunk by chunk from a plan to frames. One chunk is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from ..audio.windows import speech_windows
from ..sampling.euler import pin
from .camera import CameraConditioning, FilmedGuide
from .color import hold_color
from .conditioning import (
    LATENT_CHANNELS,
    VAE_STRIDE,
    ChunkConditioning,
    Noise,
    draw_noise,
    reference_mask,
    reference_video,
)
from .job import Job
from .pinned import latent_mask, paste
from .plan import Chunk
from .reference import PlannedChunk, Policy, ReferenceChoice, shown_frames, source_frame
from .seam import fade_seam

# (step just done, its clean estimate (1, 16, T, h, w))
AfterStep = Callable[[int, Tensor], None]
LIKENESS_PIXELS = (24, 24)


class Models(Protocol):
    """What a run asks of the models; latents are in whatever scale the methods share."""

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (F, H, W, 3) → latents (1, 16, T, h, w)."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (1, 16, T, h, w) → frames (F, H, W, 3)."""

    def encode_image(self, picture: Tensor) -> Any:
        """A picture (H, W, 3) → its CLIP tokens, or None where there is no CLIP vision."""

    def denoise(self, conditioning: ChunkConditioning, after_step: AfterStep) -> Tensor:
        """The chunk's latents (1, 16, T, h, w), context included."""


@dataclass(frozen=True)
class ContextFrames:
    """What a chunk hands to the next one."""

    frames: Tensor  # (M, H, W, 3): the last M = 4(t_c − 1) + 1 frames, as they were written
    index: int  # output frame number of the first of them


@dataclass(frozen=True)
class ChunkOutput:
    """A chunk that is done: its new frames (keep, H, W, 3), what the next one continues from, and the source frames
    that it looked at (none where that was the video itself)."""

    chunk: Chunk
    frames: Tensor
    tail: ContextFrames
    reference_frames: tuple[int, ...]


@dataclass(frozen=True)
class EncodedReference:
    """A reference as the models see it; kept while the next chunk looks at the same."""

    key: tuple[int, ...]  # source frames; empty for a frame of the video itself
    picture: Tensor
    latents: Tensor
    clip: Any


@dataclass(frozen=True)
class _Source:
    """The source at a chunk's time, where SDEdit or a pinned region needs it."""

    frames: Tensor  # (F, H, W, 3)
    latents: Tensor  # (1, 16, T, h, w)
    free: Tensor | None  # (F or 1, H, W), 1 where the video may differ


def dub(
    job: Job,
    models: Models,
    after_step: Callable[[Chunk, int, Tensor], None] = lambda chunk, step, x: None,
    tail: ContextFrames | None = None,
    plan: Sequence[PlannedChunk] | None = None,
    noise: Noise = draw_noise,
) -> Iterator[ChunkOutput]:
    """Make the chunks of the job's plan one after the other.

    plan: those to make instead, each continuing from the one before it; tail: what the first of them continues from.
    noise: (seed, shape) → the noise of a chunk.
    """
    look: EncodedReference | None = None
    anchor: Tensor | None = None
    color = job.sampling.color
    if tail is not None and color.to_first and color.strength > 0:
        anchor = job.reference.picture(job.plan[0].pick.frames[0])
    for planned in job.plan if plan is None else plan:
        chunk = planned.chunk
        tail = tail if chunk.context else None
        look = _encode_reference(job, planned, models, look, tail)
        anchor = look.picture if anchor is None or not color.to_first else anchor
        drawn = partial(noise, planned.seed)
        frames, tail = _make(job, planned, models, look, anchor, tail, drawn, partial(after_step, chunk))
        yield ChunkOutput(chunk, frames, tail, look.key)
        # Whoever took the chunk may drop it now; here it must not live on beside the next one.
        del frames


def _make(
    job: Job,
    planned: PlannedChunk,
    models: Models,
    look: EncodedReference,
    anchor: Tensor,
    tail: ContextFrames | None,
    noise: Callable[[tuple[int, ...]], Tensor],
    after_step: AfterStep,
) -> tuple[Tensor, ContextFrames]:
    """The new frames of one chunk, and its tail. Both own their memory: the rest of the chunk ends here."""
    chunk, sampling = planned.chunk, job.sampling
    source = _source(job, chunk, models)
    conditioning = _conditioning(job, planned, models, look, tail, source, noise)
    latents = _denoise(conditioning, models, after_step)
    frames = models.decode(latents)
    if conditioning.strength > 0:
        # Where the source is known at each moment, its colors are too: light may change within a chunk.
        color = sampling.color
        held_to = anchor if source is None or color.to_first else source.frames
        frames = hold_color(frames, held_to, color.strength, color.device, color.over)
        if tail is not None:
            frames = fade_seam(frames, chunk, tail.frames[-1], sampling.seam_fade, sampling.context_frames)
    if source is not None and source.free is not None:
        frames = paste(frames, source.frames, source.free)
    index = chunk.start + chunk.length - sampling.context_frames
    return frames[chunk.new].clone(), ContextFrames(frames[-sampling.context_frames :].clone(), index)


def _denoise(conditioning: ChunkConditioning, models: Models, after_step: AfterStep) -> Tensor:
    """A strength of 0 leaves nothing to denoise: the source through the VAE."""
    if conditioning.strength == 0 and conditioning.source is not None:
        return pin(conditioning.source, conditioning.context)
    return models.denoise(conditioning, after_step)


def _encode_reference(
    job: Job, planned: PlannedChunk, models: Models, before: EncodedReference | None, tail: ContextFrames | None
) -> EncodedReference:
    chunk, pick = planned.chunk, planned.pick
    key: tuple[int, ...]
    if pick.previous and tail is not None:
        key, picture, last = (), tail.frames[-1], None
    else:
        frame = _choose(job, pick, tail)
        key = (frame,) if pick.last is None else (frame, pick.last)
        if before is not None and before.key == key and before.latents.shape[2] == chunk.latent_frames:
            return before
        picture = job.reference.picture(frame)
        last = None if pick.last is None else job.reference.picture(pick.last)
    latents = models.encode(reference_video(picture, chunk.length, last))
    return EncodedReference(key, picture, latents, models.encode_image(picture))


def _choose(job: Job, pick: ReferenceChoice, tail: ContextFrames | None) -> int:
    """Of several candidates the one whose place in the order of likeness to the context frames is `control`."""
    if len(pick.frames) == 1 or tail is None:
        return pick.frames[0]
    context = _thumbnail(tail.frames[-1])

    def unlikeness(frame: int) -> float:
        return (_thumbnail(job.reference.picture(frame)) - context).abs().mean().item()

    ranked = sorted(pick.frames, key=unlikeness)
    return ranked[round(job.reference.picking.control * (len(ranked) - 1))]


def _thumbnail(picture: Tensor) -> Tensor:
    return F.interpolate(picture.permute(2, 0, 1)[None], LIKENESS_PIXELS, mode="area")


def _source(job: Job, chunk: Chunk, models: Models) -> _Source | None:
    pinned, reference = job.sampling.pinned, job.reference
    if pinned is None and job.sampling.strength(chunk) >= 1:
        return None
    frames = reference.window(chunk)
    free = None
    if pinned is not None:
        shown = shown_frames(chunk, reference.source.length, reference.picking.after_end)
        free = pinned.window(shown, (reference.height, reference.width))
    return _Source(frames, models.encode(frames), free)


def _conditioning(
    job: Job,
    planned: PlannedChunk,
    models: Models,
    look: EncodedReference,
    tail: ContextFrames | None,
    source: _Source | None,
    noise: Callable[[tuple[int, ...]], Tensor],
) -> ChunkConditioning:
    chunk = planned.chunk
    context = models.encode(_opening(job, chunk, look)[None] if tail is None else tail.frames)
    size = (job.reference.height // VAE_STRIDE, job.reference.width // VAE_STRIDE)
    free = None if source is None or source.free is None else latent_mask(source.free, chunk.latent_frames)
    return ChunkConditioning(
        chunk=chunk,
        seed=planned.seed,
        noise=noise((1, LATENT_CHANNELS, chunk.latent_frames, *size)),
        context=context,
        reference=look.latents,
        mask=reference_mask(chunk.latent_frames, *size, last=planned.pick.last is not None),
        picture=look.clip,
        windows=speech_windows(job.speech.voices, chunk.start, chunk.length),
        masks=job.masks,
        source=None if source is None else source.latents,
        strength=job.sampling.strength(chunk),
        free=free,
        camera=_camera(job, chunk, models, source),
    )


def _opening(job: Job, chunk: Chunk, look: EncodedReference) -> Tensor:
    """The frame that a shot opens with: the source at that moment, whatever the reference is; of a still, the still."""
    if job.reference.picking.policy is Policy.STILL:
        return look.picture
    frame = source_frame(chunk.start, job.reference.source.length, job.reference.picking.after_end)
    return look.picture if look.key == (frame,) else job.reference.picture(frame)


def _camera(job: Job, chunk: Chunk, models: Models, source: _Source | None) -> CameraConditioning | None:
    guide, reference = job.camera_guide, job.reference
    if guide is None:
        return None
    if source is not None and isinstance(guide, FilmedGuide) and guide.source is reference.source:
        return CameraConditioning(source.latents, None, None)  # encoded already
    view = guide.view(chunk, reference.height, reference.width)
    return CameraConditioning(models.encode(view.frames), view.mask, view.rays)

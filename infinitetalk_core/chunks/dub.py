"""The generation loop: makes the planned chunks one after the other, with one chunk in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from ..audio.windows import speech_windows
from ..log import log
from ..sampling.euler import pin
from .camera_control import CameraConditioning, CameraGuide, FilmedGuide, View
from .color import hold_color
from .conditioning import (
    LATENT_CHANNELS,
    VAE_STRIDE,
    ChunkConditioning,
    Noise,
    draw_noise,
    reference_mask,
)
from .context import ContextFrames
from .encoded_reference import EncodedReference, ReferenceEncoder
from .job import HoldBy, Job, Reference
from .lip_tries import LipTries, best_try
from .lips import ChunkLips
from .local_color import hold_local_color
from .pinned import latent_mask, paste
from .plan import Chunk
from .reference import PlannedChunk, Policy, shown_frames, source_frame
from .seam import fade_seam
from .speaker_lips import chunk_lips

# Called as (finished step, its denoised estimate (1, 16, T, h, w))
AfterStep = Callable[[int, Tensor], None]


class Models(Protocol):
    """The model functions that the loop needs. The latent scale is free, but the same for all methods."""

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (F, H, W, 3) to latents (1, 16, T, h, w)."""

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (1, 16, T, h, w) to frames (F, H, W, 3)."""

    def encode_image(self, picture: Tensor) -> Any:
        """Encode a picture (H, W, 3) to CLIP tokens; None without CLIP vision."""

    def denoise(self, conditioning: ChunkConditioning, after_step: AfterStep) -> Tensor:
        """Return the chunk's denoised latents (1, 16, T, h, w), context included."""


@dataclass(frozen=True)
class ChunkOutput:
    """A finished chunk.

    frames: its new frames (keep, H, W, 3); context: motion context for the next chunk; reference_frames: the source
    frames used as reference, empty if the reference was a frame of the video itself; tries: of its lips, None where
    they were not looked at.
    """

    chunk: Chunk
    frames: Tensor
    context: ContextFrames
    reference_frames: tuple[int, ...]
    tries: LipTries | None = None


@dataclass(frozen=True)
class _Source:
    """The source frames of a chunk, read only for SDEdit and pinned regions."""

    frames: Tensor  # (F, H, W, 3)
    latents: Tensor  # (1, 16, T, h, w)
    mask: Tensor | None  # (F or 1, H, W), 1 where the video may differ


def dub(
    job: Job,
    models: Models,
    after_step: Callable[[Chunk, int, Tensor], None] = lambda chunk, step, denoised: None,
    context: ContextFrames | None = None,
    plan: Sequence[PlannedChunk] | None = None,
    noise: Noise = draw_noise,
    before_retry: Callable[[LipTries], None] = lambda tries: None,
) -> Iterator[ChunkOutput]:
    """Generate the chunks of the job's plan one after the other.

    after_step: called with (chunk, finished step, denoised estimate (1, 16, T, h, w)); context: motion context of the
    first chunk; plan: chunks to make instead, each continuing from the one before it; noise: (seed, shape) -> noise;
    before_retry: called before a chunk is made again for its lips, with its tries so far.
    """
    references = ReferenceEncoder(job, models)
    encoded: EncodedReference | None = None
    anchor: Tensor | None = None
    color = job.sampling.color
    if context is not None and color.to_first and color.strength > 0:
        anchor = job.reference.picture(job.plan[0].choice.frames[0])
    for planned in job.plan if plan is None else plan:
        chunk = planned.chunk
        context = context if chunk.context else None
        encoded = references.encode(planned, encoded, context)
        anchor = encoded.picture if anchor is None or not color.to_first else anchor
        source = _read_source(job, chunk, models)
        conditioning = _make_conditioning(job, planned, models, encoded, context, source, noise)
        inputs = _Inputs(conditioning, source, anchor, context)
        make = partial(_make_chunk, job, inputs, models, noise, partial(after_step, chunk))
        del source, conditioning, inputs
        if _lips_count(job, planned):
            (frames, context), tries = best_try(
                chunk, planned.seed, job.sampling.retry_lips, make, partial(_lips_of, job, chunk), before_retry
            )
            if len(tries.scores) > 1:
                log.info("%s", tries)
        else:
            (frames, context), tries = make(planned.seed), None
        del make
        yield ChunkOutput(chunk, frames, context, encoded.key, tries)
        # Drop this reference, so that the frames can be freed before the next chunk is made.
        del frames


@dataclass(frozen=True)
class _Inputs:
    """All that a chunk is made from. anchor: (H, W, 3), to which colors are held; context: None where a shot begins."""

    conditioning: ChunkConditioning
    source: _Source | None
    anchor: Tensor
    context: ContextFrames | None


def _lips_count(job: Job, planned: PlannedChunk) -> bool:
    """Return whether a chunk may be made again for its lips: with another seed it is another one, and the user has not
    chosen its seed."""
    return job.sampling.retry_lips > 0 and not planned.seed_given and job.sampling.strength(planned.chunk) > 0


def _lips_of(job: Job, chunk: Chunk, made: tuple[Tensor, ContextFrames]) -> ChunkLips:
    return chunk_lips(job, chunk, made[0])


def _make_chunk(
    job: Job, inputs: _Inputs, models: Models, noise: Noise, after_step: AfterStep, seed: int
) -> tuple[Tensor, ContextFrames]:
    """Make one chunk. seed: replaces that of the conditioning, with its noise.

    Returns its new frames, and a copy of the context for the next chunk.
    """
    conditioning, source, context = inputs.conditioning, inputs.source, inputs.context
    chunk, sampling = conditioning.chunk, job.sampling
    if seed != conditioning.seed:
        conditioning = replace(conditioning, seed=seed, noise=noise(seed, tuple(conditioning.noise.shape)))
    latents = _denoise(conditioning, models, after_step)
    frames, own = models.decode(latents), False  # a backend may go on using what it returned
    if conditioning.strength > 0:
        # If the source is read for each frame, match each frame to it: the light may change within a chunk.
        color = sampling.color
        held_to = inputs.anchor if source is None or color.to_first else source.frames
        hold = hold_local_color if color.by is HoldBy.REGION else hold_color
        before, frames = frames, hold(frames, held_to, color.strength, color.device, color.over)
        own = frames is not before
        if context is not None:
            last, count = context.frames[-1], sampling.seam_fade
            before, frames = frames, fade_seam(frames, chunk, last, count, sampling.context_frames, in_place=own)
            own = own or frames is not before
        del before
    if source is not None and source.mask is not None:
        frames, own = paste(frames, source.frames, source.mask), True
    new = frames[chunk.new]
    return new if own else new.clone(), ContextFrames.at_end(frames, chunk, sampling.context_frames)


def _denoise(conditioning: ChunkConditioning, models: Models, after_step: AfterStep) -> Tensor:
    """Denoise the chunk. At strength 0 there are no steps: return the source latents with the context in front."""
    if conditioning.strength == 0 and conditioning.source is not None:
        return pin(conditioning.source, conditioning.context)
    return models.denoise(conditioning, after_step)


def _read_source(job: Job, chunk: Chunk, models: Models) -> _Source | None:
    pinned, reference = job.sampling.pinned, job.reference
    if pinned is None and job.sampling.strength(chunk) >= 1:
        return None
    frames = reference.window(chunk)
    mask = None
    if pinned is not None:
        shown = shown_frames(chunk, reference.source.length, reference.settings.after_end)
        mask = pinned.window(shown, (reference.height, reference.width))
    return _Source(frames, models.encode(frames), mask)


def _make_conditioning(
    job: Job,
    planned: PlannedChunk,
    models: Models,
    encoded: EncodedReference,
    context: ContextFrames | None,
    source: _Source | None,
    noise: Noise,
) -> ChunkConditioning:
    chunk = planned.chunk
    context_latents = models.encode(_opening_frame(job, chunk, encoded)[None] if context is None else context.frames)
    size = (job.reference.height // VAE_STRIDE, job.reference.width // VAE_STRIDE)
    denoise_mask = None if source is None or source.mask is None else latent_mask(source.mask, chunk.latent_frames)
    return ChunkConditioning(
        chunk=chunk,
        seed=planned.seed,
        noise=noise(planned.seed, (1, LATENT_CHANNELS, chunk.latent_frames, *size)),
        context=context_latents,
        reference=encoded.latents,
        mask=reference_mask(chunk.latent_frames, *size, last=planned.choice.last is not None),
        clip=encoded.clip,
        audio_windows=speech_windows(job.speech.voices, chunk.start, chunk.length),
        masks=job.masks,
        source=None if source is None else source.latents,
        strength=job.sampling.strength(chunk),
        denoise_mask=denoise_mask,
        camera=_camera_conditioning(job, chunk, models, source),
    )


def _opening_frame(job: Job, chunk: Chunk, encoded: EncodedReference) -> Tensor:
    """Return the first context frame (H, W, 3) of a shot: the source frame at that time, for any reference policy; the
    reference itself for a still."""
    if job.reference.settings.policy is Policy.STILL:
        return encoded.picture
    frame = source_frame(chunk.start, job.reference.source.length, job.reference.settings.after_end)
    return encoded.picture if encoded.key == (frame,) else job.reference.picture(frame)


def _shows_the_source(guide: CameraGuide, reference: Reference) -> bool:
    """Return whether the guidance is the source at its own time."""
    return (
        isinstance(guide, FilmedGuide)
        and guide.source is reference.source
        and guide.after_end is reference.settings.after_end
    )


def _camera_conditioning(job: Job, chunk: Chunk, models: Models, source: _Source | None) -> CameraConditioning | None:
    guide, reference = job.camera_guide, job.reference
    if guide is None:
        return None
    if source is not None and isinstance(guide, FilmedGuide) and guide.source is reference.source:
        return CameraConditioning(source.latents, None, None)  # already encoded
    if _shows_the_source(guide, reference):
        view = View(reference.window(chunk))  # the same frames, which may have been read ahead
    else:
        view = guide.view(chunk, reference.height, reference.width)
    return CameraConditioning(models.encode(view.frames), view.mask, view.rays)

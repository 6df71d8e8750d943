"""Encoding of the reference frames: z2 of the paper and CLIP tokens, with as few frames through the VAE as needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .conditioning import reference_video
from .context import ContextFrames
from .job import Job
from .reference import PlannedChunk, ReferenceChoice

LIKENESS_PIXELS = (24, 24)
# A VAE has settled where its latents of gray change by less than this share of the latents' standard deviation, in each
# channel. Rounding alone changes them by half of that in bfloat16, the usual type of a VAE on a GPU.
SETTLED = 0.01


class Encoders(Protocol):
    """The functions that encode a reference, as in `dub.Models`."""

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (F, H, W, 3) to latents (1, 16, T, h, w)."""

    def encode_image(self, picture: Tensor) -> Any:
        """Encode a picture (H, W, 3) to CLIP tokens; None without CLIP vision."""


@dataclass(frozen=True)
class EncodedReference:
    """An encoded reference frame, reused by the next chunk if its reference is the same."""

    key: tuple[int, ...]  # source frames; empty for a frame of the video itself
    picture: Tensor
    latents: Tensor  # (1, 16, T, h, w)
    clip: Any


@dataclass(frozen=True)
class ReferenceEncoder:
    """Encodes the reference of each chunk of a job.

    z2 is a picture followed by gray to the end of the chunk, and most of the VAE's work on it is gray. A trained VAE
    forgets the picture long before the end (its receptive field, 113 frames of Wan 2.1's, is longer). So the job's
    first reference is encoded whole. If its latents settle, the others are encoded that far, and go on as the first
    does. With random weights they do not, and all are encoded whole. Everything is decided by the VAE, the job's first
    reference and the chunk's own, never by which chunks this process has made: a resumed run decides the same.
    """

    job: Job
    models: Encoders

    @cached_property
    def first(self) -> EncodedReference:
        """The reference frame of the job's first chunk, as planned."""
        planned = self.job.plan[0]
        frame = planned.choice.frames[0]
        picture = self.job.reference.picture(frame)
        return self._encoded((frame,), picture, self.models.encode(reference_video(picture, planned.chunk.length)))

    @cached_property
    def settles_after(self) -> int | None:
        """Latent frames until the VAE has settled, see `settles_after`."""
        return settles_after(self.first.latents)

    def encode(
        self, planned: PlannedChunk, before: EncodedReference | None, context: ContextFrames | None
    ) -> EncodedReference:
        """Return the encoded reference of a chunk. before: that of the chunk before; context: its context frames."""
        choice, length = planned.choice, planned.chunk.length
        if choice.previous and context is not None:
            picture = context.frames[-1]
            return self._encoded((), picture, self._latents(picture, length))
        frame = _choose_frame(self.job, choice, context)
        key = (frame,) if choice.last is None else (frame, choice.last)
        if before is not None and before.key == key:
            return before
        if choice.last is not None:
            picture, last = self.job.reference.picture(frame), self.job.reference.picture(choice.last)
            return self._encoded(key, picture, self.models.encode(reference_video(picture, length, last)))
        if self.first.key == key:
            return self.first
        picture = self.job.reference.picture(frame)
        return self._encoded(key, picture, self._latents(picture, length))

    def _latents(self, picture: Tensor, length: int) -> Tensor:
        """Encode a picture followed by gray, as far as needed: (1, 16, T, h, w)."""
        known, count = self.first.latents, self.settles_after
        if count is not None:
            latents = self.models.encode(reference_video(picture, 4 * (count - 1) + 1))
            change = _change(latents[:, :, -1:], known[:, :, count - 1 : count])
            if (change <= 2 * _allowed(known)).all():  # one may be above the other's limit, one below
                return torch.cat([latents, known[:, :, count:]], dim=2)
        return self.models.encode(reference_video(picture, length))

    def _encoded(self, key: tuple[int, ...], picture: Tensor, latents: Tensor) -> EncodedReference:
        return EncodedReference(key, picture, latents, self.models.encode_image(picture))


def settles_after(latents: Tensor) -> int | None:
    """Return after how many latent frames of a picture followed by gray (1, 16, T, h, w) the rest stay the same.

    None if that is not in the first half, since then too few are left to show that they stay.
    """
    still = _change(latents, latents[:, :, -1:]) <= _allowed(latents)
    # The last frame of `count` is the first one that stays, and not the picture itself.
    count = max(len(still) - int(still.flip(0).cumprod(0).sum()) + 1, 2)
    return count if 2 * count <= len(still) else None


def _change(latents: Tensor, others: Tensor) -> Tensor:
    """Return for each latent frame the root mean square of the difference in the channel where it is largest: (T,)."""
    return (latents.float() - others.float()).square().mean((0, 3, 4)).sqrt().amax(0)


def _allowed(latents: Tensor) -> Tensor:
    return SETTLED * latents[:, :, 0].float().std()


def _choose_frame(job: Job, choice: ReferenceChoice, context: ContextFrames | None) -> int:
    """Return the number of the reference frame.

    Several candidates are ranked by similarity to the last context frame, the most similar first, and `control`
    selects the rank: 0 the first, 1 the last.
    """
    if len(choice.frames) == 1 or context is None:
        return choice.frames[0]
    last = _thumbnail(context.frames[-1])

    def distance(frame: int) -> float:
        return (_thumbnail(job.reference.picture(frame)) - last).abs().mean().item()

    ranked = sorted(choice.frames, key=distance)
    return ranked[round(job.reference.settings.control * (len(ranked) - 1))]


def _thumbnail(picture: Tensor) -> Tensor:
    return F.interpolate(picture.permute(2, 0, 1)[None], LIKENESS_PIXELS, mode="area")

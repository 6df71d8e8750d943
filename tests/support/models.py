"""Stand-ins for the models of a run, simple enough to compute the expected output."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks.conditioning import ChunkConditioning
from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.job import ColorHold, Job, Reference, Sampling
from infinitetalk_core.chunks.metrics import ChunkMetrics, measure
from infinitetalk_core.chunks.reference import ReferenceSettings
from infinitetalk_core.sampling.euler import pin
from infinitetalk_core.speech import Speech


@dataclass
class PlainModels:
    """A codec that averages blocks of 8 x 8 pixels and four frames, and a sampler that returns one level of gray."""

    level: float = 0.25
    seen: list[ChunkConditioning] = field(default_factory=list)

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (F, H, W, 3) to (1, 16, T, h, w): the color in three channels, the others zero."""
        small = reduce(frames, "f (h p) (w q) c -> c f h w", "mean", p=8, q=8)
        latents = torch.cat([small[:, :1], reduce(small[:, 1:], "c (t n) h w -> c t h w", "mean", n=4)], dim=1)
        return torch.cat([latents, torch.zeros(13, *latents.shape[1:])])[None]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to blocks of one color."""
        large = repeat(latents[0, :3], "c t h w -> c t (h p) (w q)", p=8, q=8)
        frames = torch.cat([large[:, :1], repeat(large[:, 1:], "c t h w -> c (t n) h w", n=4)], dim=1)
        return rearrange(frames, "c f h w -> f h w c")

    def encode_image(self, picture: Tensor) -> Tensor:
        """Return the picture's mean color."""
        return picture.mean(dim=(0, 1))

    def denoise(self, conditioning: ChunkConditioning, after_step) -> Tensor:
        """Return gray latents with the context and the pinned latents held."""
        self.seen.append(conditioning)
        latents = torch.full_like(conditioning.noise, self.level)
        if conditioning.denoise_mask is not None and conditioning.source is not None:
            latents = torch.where(conditioning.denoise_mask > 0, latents, conditioning.source)
        after_step(0, latents)
        return pin(latents, conditioning.context)


def make_job(
    source, total: int, settings: ReferenceSettings | None = None, cuts: tuple[int, ...] = (), **options
) -> Job:
    """Return a silent job of `total` frames of 32 x 48, in chunks of 13 with 5 context frames.

    Without color hold and seam fade. options: of `Sampling`.
    """
    plain = {"chunk_frames": 13, "context_frames": 5, "color": ColorHold(0.0), "seam_fade": 0}
    return Job(
        speech=Speech((torch.zeros(total, 1, 2),), Sound(torch.zeros(1, total * 640), 16000)),
        reference=Reference(source, 32, 48, settings or ReferenceSettings(), cuts),
        sampling=Sampling(**{**plain, **options}),
    )


def run_and_measure(job: Job, models: PlainModels) -> tuple[Tensor, list[ChunkMetrics]]:
    """Return all frames of a run and the metrics of its chunks, computed as in the host's loop."""
    frames: list[Tensor] = []
    metrics: list[ChunkMetrics] = []
    for finished in dub(job, models):
        metrics.append(measure(job, finished, frames[-1][-1] if frames else None))
        frames.append(finished.frames)
    return torch.cat(frames), metrics

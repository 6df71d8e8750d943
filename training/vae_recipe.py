"""The settings of the autoencoder's training: its stages, from scratch and from finished weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .vae_clips import RECOLORED, ClipShape

# Small crops around the face, long clips for temporal layers, whole pictures for the attention in the middle.
FACES, MOMENTS, PICTURES = ClipShape(4, 9, 48), ClipShape(1, 33, 48), ClipShape(1, 9, 96)
MIXED = (FACES, FACES, FACES, MOMENTS, PICTURES)
LONGER = (FACES, FACES, ClipShape(2, 17, 48), MOMENTS, PICTURES)
CHUNKS = ClipShape(12, 33, 96)  # whole chunks of the small models: colors turn with each frame of a chunk
CONTEXT_FRAMES = 9  # with which the sampler goes on from a chunk


@dataclass(frozen=True)
class Stage:
    """Steps with the same settings; the learning rate decays from `rate` to `last_rate` along a cosine."""

    name: str
    steps: int
    rate: float
    last_rate: float
    shapes: tuple[ClipShape, ...]
    encoder: bool = True  # False: only the decoder learns
    noise: float = 0.05  # standard deviation of the noise on the latents, whose own is 1
    again: float = 0.1  # share of steps whose input is the codec's own output
    passes: int = 1  # most passes through the codec that made such an input
    color: float = 1.0  # weight of errors of hue, which are small beside errors of brightness
    steady: float = 0.0  # weight of flicker: the change of the error from frame to frame
    parts: float = 0.0  # weight of the color of each part of the picture: of a whole unit in Lab
    contrast: float = 0.0  # weight of the lightest and darkest places of eyes, brows and mouths
    recolored: float = RECOLORED  # share of clips with other colors, in stages with `parts`


@dataclass(frozen=True)
class VaeTraining:
    """The settings of the training. The defaults made the weights that `refining` goes on from."""

    dim: int = 16
    seed: int = 0
    size: int = 96
    clips: int = 800
    clip_frames: int = 33
    workers: int = 0  # processes that draw clips while the training goes on; 0: clips are drawn when they are needed
    warmup: int = 50
    average: float = 0.99  # of the weights, per step
    latent_weight: float = 0.02  # keeps each latent channel near mean 0 and variance 1
    slope_weight: float = 0.5  # weight of differences of neighboring pixels and frames, relative to the pixels
    square_weight: float = 1.0  # weight of squared errors relative to absolute ones
    checkpoint_every: int = 200
    start: Path | None = None  # finished weights to go on from; None: from scratch
    compile: bool = True  # torch.compile for the norms: a quarter faster, needs a C++ compiler
    stages: tuple[Stage, ...] = (
        Stage("together", 2800, 2e-3, 5e-5, MIXED, again=0.05),
        Stage("decoder", 1700, 1e-3, 4e-4, MIXED, encoder=False, noise=0.08, again=0.15),
        Stage("steady", 2200, 6e-4, 2e-5, LONGER, encoder=False, noise=0.06, again=0.3, steady=3.0),
    )


def refining(start: Path, steps: int = 1100, workers: int = 0) -> VaeTraining:
    """Return the settings that train both halves of the finished weights `start` further, on a GPU.

    Whole chunks, so that colors stay through all of their frames; the color of each part and the contrast of eyes and
    brows count; half of the inputs have been through the codec before, as those of a long video have.
    """
    stage = Stage("refine", steps, 1.2e-3, 1e-5, (CHUNKS,), again=0.5, passes=3, noise=0.05, steady=2.0, parts=0.1,
                  contrast=0.6, recolored=0.2)  # fmt: skip
    return VaeTraining(start=start, clips=4000, workers=workers, warmup=30, average=0.995, stages=(stage,))

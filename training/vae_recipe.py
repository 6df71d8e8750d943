"""The settings of the autoencoder's training: its stages, from scratch and from finished weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .vae_clips import RECOLORED, ClipShape

# Small crops around the face, long clips for temporal layers, whole pictures for the attention in the middle.
FACES, MOMENTS, PICTURES = ClipShape(4, 9, 48), ClipShape(1, 33, 48), ClipShape(1, 9, 96)
MIXED = (FACES, FACES, FACES, MOMENTS, PICTURES)
LONGER = (FACES, FACES, ClipShape(2, 17, 48), MOMENTS, PICTURES)
DEMO_CHUNK = ClipShape(1, 33, 96)


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
    color: float = 1.0  # weight of errors of hue, which are small beside errors of brightness
    steady: float = 0.0  # weight of flicker: the change of the error from frame to frame
    parts: float = 0.0  # weight of the color of each part of the picture: of a whole unit in Lab
    repeat: int = 0  # batches after which the same come again, with latents kept in memory; needs a frozen encoder
    recolored: float = RECOLORED  # share of clips with other colors, in stages with `parts`
    window: int = 0  # pixels: side of the square of a picture that a step decodes, see windowed_decoding.py; 0: all


@dataclass(frozen=True)
class VaeTraining:
    """The settings of the training. The defaults made the weights in the repository."""

    dim: int = 16
    seed: int = 0
    size: int = 96
    clips: int = 800
    clip_frames: int = 33
    warmup: int = 50
    average: float = 0.99  # of the weights, per step
    latent_weight: float = 0.02  # keeps each latent channel near mean 0 and variance 1
    slope_weight: float = 0.5  # weight of differences of neighboring pixels and frames, relative to the pixels
    square_weight: float = 1.0  # weight of squared errors relative to absolute ones
    checkpoint_every: int = 200
    start: Path | None = None  # finished weights to go on from, with a frozen encoder; None: from scratch
    gains_only: bool = False  # of the decoder; its matrices stay as they are
    compile: bool = True  # torch.compile for the norms: a quarter faster, needs a C++ compiler
    stages: tuple[Stage, ...] = (
        Stage("together", 2800, 2e-3, 5e-5, MIXED, again=0.05),
        Stage("decoder", 1700, 1e-3, 4e-4, MIXED, encoder=False, noise=0.08, again=0.15),
        Stage("steady", 2200, 6e-4, 2e-5, LONGER, encoder=False, noise=0.06, again=0.3, steady=3.0),
    )


def recoloring(start: Path, steps: int = 600) -> VaeTraining:
    """Return the settings that train the decoder of the finished weights `start` further, on colors.

    Only gains and biases learn. With all weights, or with crops in place of windows, some colors became right and
    others wrong in as many steps.
    """
    stage = Stage("colors", steps, 2e-3, 6e-5, (DEMO_CHUNK,), encoder=False, again=0.0, steady=3.0, parts=0.1,
                  repeat=120, recolored=0.15, window=32)  # fmt: skip
    return VaeTraining(start=start, warmup=10, stages=(stage,), checkpoint_every=20, gains_only=True, compile=False)

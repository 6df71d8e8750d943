"""The strategies of the paper as models: the shipped one trained on for a little, each with one policy alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from infinitetalk_core.chunks.reference import Policy
from training.dataset import DatasetConfig, Samples, make_samples
from training.small_models import DIFFUSION, INFINITETALK, load_model
from training.stages import train_model
from training.trainer import TrainingConfig

from .paper_conditions import STRATEGIES, Scale
from .paper_takes import load_vae_and_ears

FIRST_SEED = 300_000  # characters that the shipped model was not trained on, and that no row shows
PARTS = 4  # of the sample set, made independently


@dataclass(frozen=True)
class Workshop:
    """Where the variants are made. folder: its own for each shipped model and scale."""

    models: Path
    folder: Path
    scale: Scale

    def variant(self, name: str) -> Path:
        """The models folder of a strategy; the shipped model's for an empty name."""
        return self.folder / name if name else self.models

    def is_done(self, name: str) -> bool:
        """Whether the variant is there. The second file is written last."""
        return (self.variant(name) / DIFFUSION).is_file() and (self.variant(name) / INFINITETALK).is_file()


def make_part(workshop: Workshop, part: int) -> Samples:
    """A part of the samples that all variants share, read from disk where it was made before."""
    config = DatasetConfig(
        samples=workshop.scale.samples // PARTS,
        first_seed=FIRST_SEED + part * 10_000,
        policies=(*STRATEGIES.values(), Policy.CHUNK_START),
    )
    vae, encode = load_vae_and_ears(workshop.models)
    return make_samples(config, workshop.folder / f"samples{part}", vae, encode)


def load_samples(workshop: Workshop) -> Samples:
    """All parts together."""
    parts = [make_part(workshop, part) for part in range(PARTS)]
    names = [f.name for f in dataclasses.fields(Samples) if f.name != "policies"]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return Samples(**joined, policies=parts[0].policies)


def variant_config(policy: Policy, scale: Scale) -> TrainingConfig:
    """The same for every strategy but for the policy."""
    return TrainingConfig(
        steps=scale.steps,
        batch=scale.batch,
        learning_rate=5e-4,
        warmup=min(20, scale.steps // 2),
        average=0.98,
        policies={policy: 1.0},
        context_latents={1: 0.2, 3: 0.8},  # first chunks and later ones with 9 context frames
        # First chunks look where the policy says, but the I2V baseline at their own first frame: there is none before.
        opening_share=1.0 if policy is Policy.PREVIOUS_OUTPUT else 0.0,
        save_every=50,
        log_every=10,
    )


def train_variant(workshop: Workshop, name: str) -> None:
    """Fine-tune the shipped model with the strategy `name`; goes on where an earlier call was stopped."""
    if workshop.is_done(name):
        return
    config, folder = variant_config(STRATEGIES[name], workshop.scale), workshop.variant(name)
    train_model(config, load_model(workshop.models), load_samples(workshop), folder, folder, lambda line: None)
    (folder / "checkpoint.pt").unlink()

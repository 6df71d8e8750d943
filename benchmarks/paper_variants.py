"""Train the strategies of the paper: fine-tune the shipped model with each reference policy alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from infinitetalk_core.chunks.reference import Policy
from training.dataset import Samples, make_samples
from training.drawing import DatasetConfig
from training.small_models import DIFFUSION, INFINITETALK, load_model
from training.stages import train_model
from training.trainer import TrainingConfig

from .paper_conditions import STRATEGIES, Scale
from .paper_videos import load_vae_and_speech_encoder

FIRST_SEED = 300_000  # characters that neither the shipped model's training nor any row uses
PARTS = 4  # of the sample set, which are made independently


@dataclass(frozen=True)
class FineTuning:
    """The folders of the fine-tuned models. folder: a separate one for each shipped model and scale."""

    models: Path
    folder: Path
    scale: Scale

    def variant(self, name: str) -> Path:
        """Return the models folder of a strategy; the shipped model's for an empty name."""
        return self.folder / name if name else self.models

    def is_done(self, name: str) -> bool:
        """Return whether the variant exists. Its second file is written last."""
        return (self.variant(name) / DIFFUSION).is_file() and (self.variant(name) / INFINITETALK).is_file()


def make_part(tuning: FineTuning, part: int) -> Samples:
    """Return a part of the samples that all variants share, from disk if it exists."""
    config = DatasetConfig(
        samples=tuning.scale.samples // PARTS,
        first_seed=FIRST_SEED + part * 10_000,
        policies=(*STRATEGIES.values(), Policy.CHUNK_START),
    )
    vae, encode = load_vae_and_speech_encoder(tuning.models)
    return make_samples(config, tuning.folder / f"samples{part}", vae, encode)


def load_samples(tuning: FineTuning) -> Samples:
    """Return all parts joined."""
    parts = [make_part(tuning, part) for part in range(PARTS)]
    names = [f.name for f in dataclasses.fields(Samples) if f.name != "policies"]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return Samples(**joined, policies=parts[0].policies)


def variant_config(policy: Policy, scale: Scale) -> TrainingConfig:
    """Return the training settings, which differ between strategies in the policy only."""
    return TrainingConfig(
        steps=scale.steps,
        batch=scale.batch,
        learning_rate=5e-4,
        warmup=min(20, scale.steps // 2),
        average=0.98,
        policies={policy: 1.0},
        context_latents={1: 0.2, 3: 0.8},  # first chunks and later ones with 9 context frames
        # The I2V baseline uses a first chunk's own first frame, since it has no previous output.
        opening_share=1.0 if policy is Policy.PREVIOUS_OUTPUT else 0.0,
        save_every=50,
        log_every=10,
    )


def train_variant(tuning: FineTuning, name: str) -> None:
    """Fine-tune the shipped model with the strategy `name`; resumes an interrupted call."""
    if tuning.is_done(name):
        return
    config, folder = variant_config(STRATEGIES[name], tuning.scale), tuning.variant(name)
    train_model(config, load_model(tuning.models), load_samples(tuning), folder, folder, lambda line: None)
    (folder / "checkpoint.pt").unlink()

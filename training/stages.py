"""Define the stages of training: the speaking model, its tuning against drift, then its camera control."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infinitetalk_core.chunks.camera_control import CameraConditioning
from infinitetalk_core.chunks.reference import Policy
from infinitetalk_core.model.infinitetalk import InfiniteTalkModel
from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig
from infinitetalk_core.model.vae import WanVae
from infinitetalk_core.standalone import add_uni3c

from .dataset import Samples
from .drawing import DatasetConfig
from .flow_matching import Batch, flow_matching_loss
from .own_chunks import OwnChunks, with_own_contexts
from .small_models import UNI3C, save_half, save_model
from .trainer import Trainer, TrainingConfig
from .worn_context import Wear

Report = Callable[[str], None]

# Trained on videos with a moving camera, with the speaking model frozen.
UNI3C_TRAINING = TrainingConfig(
    steps=800,
    policies={Policy.NEIGHBOR: 0.6, Policy.CHUNK_START: 0.4},
    context_latents={1: 0.4, 3: 0.6},
    drop_speech=0.0,
    drop_text=1.0,
    mouth_weight=1.0,
)

# From the finished model, on a GPU: large batches, and contexts as they are after many chunks.
TUNING = TrainingConfig(
    steps=3200, batch=64, learning_rate=1.2e-3, warmup=60, drifted_share=0.7, context_noise=0.15, average=0.997
)
TUNING_SAMPLES = DatasetConfig(samples=4000, first_seed=100_000, wear=Wear(parts=5.0, passes=2))
TUNING_ROUNDS = 4


def model_trainer(config: TrainingConfig, model: InfiniteTalkModel, samples: Samples, folder: Path) -> Trainer:
    """Return a trainer of backbone and audio adapter; it resumes an unfinished run in `folder`."""
    modules = nn.ModuleList([model.backbone, model.adapter])
    trainer = Trainer(config, modules, partial(flow_matching_loss, model), samples, folder)
    trainer.resume()
    return trainer


def averaged_model(trainer: Trainer) -> InfiniteTalkModel:
    """Return the model of a `model_trainer` with averaged weights, which are the ones to use."""
    modules = copy.deepcopy(trainer.modules)
    modules.load_state_dict(trainer.averaged_weights())
    backbone, adapter = modules.eval().children()
    return InfiniteTalkModel(backbone, adapter)  # type: ignore[arg-type]


def train_model(
    config: TrainingConfig, model: InfiniteTalkModel, samples: Samples, folder: Path, models: Path, report: Report
) -> list[Path]:
    """Train the model and write its two files into the folder `models`."""
    trainer = model_trainer(config, model, samples, folder)
    trainer.run(report)
    return save_model(averaged_model(trainer), models)


def tune_model(
    config: TrainingConfig,
    own: OwnChunks,
    model: InfiniteTalkModel,
    vae: WanVae,
    samples: Samples,
    folder: Path,
    models: Path,
    report: Report,
) -> list[Path]:
    """Train a finished model further, against drift, and write its two files into the folder `models`.

    Begins with the samples' own contexts; in every later round some of them are made by the model as it is then.
    """
    trainer = model_trainer(config, model, samples, folder)
    length = config.steps // TUNING_ROUNDS
    for number in range(TUNING_ROUNDS):
        end = config.steps if number == TUNING_ROUNDS - 1 else (number + 1) * length
        if trainer.step >= end:
            continue
        if number:
            made = folder / f"own_contexts_{number}.safetensors"
            if not made.exists():  # a resumed run takes those that it has begun with
                report(f"round {number + 1} of {TUNING_ROUNDS}: the model makes contexts")
                now = averaged_model(trainer)
                drifted = with_own_contexts(now, vae, samples, config.policies, own, config.seed + number)
                part = made.with_suffix(".part")
                save_file({"drifted": drifted}, part)
                part.replace(made)
            drifted = load_file(made, device=str(samples.target.device))["drifted"]
            trainer.samples = replace(samples, drifted=drifted)
        trainer.run(report, end)
    return save_model(averaged_model(trainer), models)


def new_uni3c(dim: int) -> Uni3C:
    """Return an untrained Uni3C for a backbone of width `dim`; its output is zero at first."""
    network = Uni3C(
        Uni3CConfig(
            dim=96, ffn_dim=192, blocks=1, embed_dim=dim, time_dim=dim, out_dim=dim, view_channels=7, view_dim=16
        )
    )
    for layer in network.proj_out:
        nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return network


def train_uni3c(
    config: TrainingConfig, model: InfiniteTalkModel, samples: Samples, folder: Path, models: Path, report: Report
) -> Path:
    """Train Uni3C on samples with guides, with the speaking model frozen, and write its file into `models`."""
    for part in (model.backbone, model.adapter):
        part.requires_grad_(False)
    network = new_uni3c(model.backbone.config.dim).to(next(model.backbone.parameters()).device)

    def share(x: Tensor, sigma: Tensor, mask: Tensor, batch: Batch) -> Callable[[int, Tensor], Tensor]:
        assert batch.guide is not None
        return add_uni3c(network, model.backbone, x, sigma, mask, CameraConditioning(batch.guide, mask=None, rays=None))

    loss = partial(flow_matching_loss, model, camera=share)
    trainer = Trainer(config, network, loss, samples, folder)
    trainer.resume()
    trainer.run(report)
    return save_half(trainer.averaged_weights(), models / UNI3C)

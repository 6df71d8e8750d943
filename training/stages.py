"""The stages of training: the speaking model, then its camera control on top of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from infinitetalk_core.chunks.camera_control import CameraConditioning
from infinitetalk_core.chunks.reference import Policy
from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig

from .dataset import Samples
from .flow_matching import Batch, Dubber, flow_matching_loss
from .small_models import CAMERA, camera_share, save_dubber, save_half
from .trainer import Trainer, TrainingConfig

Report = Callable[[str], None]

# Learns from videos whose camera moves, with the speaking model frozen.
CAMERA_TRAINING = TrainingConfig(
    steps=800,
    policies={Policy.NEIGHBOUR: 0.6, Policy.CHUNK_START: 0.4},
    context_latents={1: 0.4, 3: 0.6},
    drop_speech=0.0,
    drop_text=1.0,
    mouth_weight=1.0,
)


def dubber_trainer(config: TrainingConfig, dubber: Dubber, samples: Samples, folder: Path) -> Trainer:
    """Training of backbone and audio adapter together; resumed where `folder` holds an unfinished run."""
    modules = nn.ModuleList([dubber.backbone, dubber.adapter])
    trainer = Trainer(config, modules, partial(flow_matching_loss, dubber), samples, folder)
    trainer.resume()
    return trainer


def averaged_dubber(trainer: Trainer) -> Dubber:
    """The model of a `dubber_trainer` with averaged weights: the one to use."""
    modules = copy.deepcopy(trainer.modules)
    modules.load_state_dict(trainer.averaged_weights())
    backbone, adapter = modules.eval().children()
    return Dubber(backbone, adapter)  # type: ignore[arg-type]


def train_dubber(
    config: TrainingConfig, dubber: Dubber, samples: Samples, folder: Path, models: Path, report: Report
) -> list[Path]:
    """Train and write the two model files into the folder `models`."""
    trainer = dubber_trainer(config, dubber, samples, folder)
    trainer.run(report)
    return save_dubber(averaged_dubber(trainer), models)


def new_camera(dim: int) -> Uni3C:
    """An untrained Uni3C for a backbone of width `dim`, which adds nothing at first."""
    network = Uni3C(
        Uni3CConfig(
            dim=96, ffn_dim=192, blocks=1, embed_dim=dim, time_dim=dim, out_dim=dim, view_channels=7, view_dim=16
        )
    )
    for layer in network.proj_out:
        nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return network


def train_camera(
    config: TrainingConfig, dubber: Dubber, samples: Samples, folder: Path, models: Path, report: Report
) -> Path:
    """Train Uni3C on samples with guides, the speaking model frozen, and write its file into `models`."""
    for part in (dubber.backbone, dubber.adapter):
        part.requires_grad_(False)
    network = new_camera(dubber.backbone.config.dim).to(next(dubber.backbone.parameters()).device)

    def share(x: Tensor, sigma: Tensor, mask: Tensor, batch: Batch) -> Callable[[int, Tensor], Tensor]:
        assert batch.guide is not None
        return camera_share(
            network, dubber.backbone, x, sigma, mask, CameraConditioning(batch.guide, mask=None, rays=None)
        )

    loss = partial(flow_matching_loss, dubber, camera=share)
    trainer = Trainer(config, network, loss, samples, folder)
    trainer.resume()
    trainer.run(report)
    return save_half(trainer.averaged_weights(), models / CAMERA)

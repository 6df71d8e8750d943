"""Train a small wav2vec 2.0 on synthetic speech to recognize phoneme groups and mouth movements.

The released encoder was trained on thousands of hours to predict masked parts of speech. A small one can be supervised
directly: a linear map of every layer's hidden state must predict the viseme of the frame and the opening and width of
the mouth. InfiniteTalk reads all layers, so all layers are supervised.

The clip is preprocessed by the same functions as in `SpeechEncoder`, so training and inference inputs agree.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Wav2Vec2Config, Wav2Vec2Model

from infinitetalk_core.audio.encoder_files import inference_config
from infinitetalk_core.audio.wav2vec import convolve, interpolation, transform
from infinitetalk_core.model.precision import fast_autocast

from .articulation import VISEMES
from .speech_clips import Batch, Clip, draw_batch, make_clip
from .voices import FRAME_SAMPLES

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
FILE_NAME = "small_wav2vec2.safetensors"
UNSEEN_SEED = 1_000_000


@dataclass(frozen=True)
class SpeechPretraining:
    """The settings that determine the result."""

    seed: int = 0
    clips: int = 600  # training utterances
    clip_seconds: float = 6.0  # at least
    unseen_clips: int = 16  # for the log: unseen voices and sentences
    steps: int = 1500
    batch_frames: int = 1000  # a batch has few long clips or many short ones
    shortest: int = 40  # frames of a clip
    longest: int = 120
    learning_rate: float = 3e-3
    warm_up: int = 60
    mouth_weight: float = 20.0  # weight of opening, width and energy relative to the visemes
    save_every: int = 100
    layers: int = 4
    channels: int = 64
    heads: int = 1
    ffn: int = 256
    convolution: int = 32
    device: str = "cpu"
    bfloat16: bool = True

    def network(self) -> Wav2Vec2Config:
        """Return the sizes of the encoder, "base" kind, for transformers."""
        return inference_config(
            hidden_size=self.channels,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.ffn,
            conv_dim=(self.convolution,) * len(KERNELS),
            conv_kernel=KERNELS,
            conv_stride=STRIDES,
            conv_bias=False,
            feat_extract_norm="group",
            do_stable_layer_norm=False,
            num_conv_pos_embeddings=128,
            num_conv_pos_embedding_groups=16,
        )


class ProbedEncoder(nn.Module):
    """An encoder with a linear probe per layer, which maps the hidden state to viseme and mouth."""

    def __init__(self, config: SpeechPretraining) -> None:
        super().__init__()
        self.network = Wav2Vec2Model(config.network())
        outputs = len(VISEMES) + 3
        self.readers = nn.ModuleList(nn.Linear(config.channels, outputs) for _ in range(config.layers))
        for layer in self.network.encoder.layers:
            # Not trained, so that every hidden state has mean 0 and variance 1.
            layer.final_layer_norm.requires_grad_(False)

    def hidden_states(self, samples: Tensor) -> list[Tensor]:
        """Return the hidden states after every layer, (B, F, channels) each, for clips (B, n) of whole frames."""
        frames = samples.shape[1] // FRAME_SAMPLES
        found = convolve(self.network.feature_extractor, samples[:, None], None).transpose(1, 2)
        lower, upper, weight = (part.to(samples.device) for part in interpolation(0, frames, frames, found.shape[1]))
        weight = weight[:, None].to(found.dtype)
        states: list[Tensor] = []
        transform(
            self.network,
            found[:, lower] * (1 - weight) + found[:, upper] * weight,
            lambda _layer, state: states.append(state),
        )
        return states

    def read(self, samples: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return for every layer the scores (B, F, classes) and the mouth (B, F, 3), float32."""
        read = [reader(state).float() for reader, state in zip(self.readers, self.hidden_states(samples), strict=True)]
        return [(found[..., :-3], found[..., -3:]) for found in read]


def train_speech_encoder(config: SpeechPretraining, folder: Path, report: Callable[[str], None] | None = None) -> Path:
    """Train, or resume a run in `folder`; return the encoder's file there (FILE_NAME).

    The folder also gets `speech_checkpoint.pt` and `speech_log.jsonl`, one line every 20 steps. The result depends on
    `config` only (and on the kind of processor). Raises InputError if espeakng_loader is missing.
    """
    report = report or (lambda _line: None)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    probed = ProbedEncoder(config).to(config.device)
    trained = [parameter for parameter in probed.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    checkpoint = folder / "speech_checkpoint.pt"
    first = _resume(checkpoint, probed, optimizer, config)
    if first < config.steps:
        clips = [make_clip(config.seed * UNSEEN_SEED + index, config.clip_seconds) for index in range(config.clips)]
        unseen = [make_clip(index, config.clip_seconds, unseen=True) for index in range(config.unseen_clips)]
        report(f"{sum(len(clip.classes) for clip in clips) / 25 / 60:.0f} minutes of speech")
    began, losses = time.monotonic(), []
    for step in range(first, config.steps):
        losses.append(_step(probed, optimizer, clips, config, step))
        done = step + 1
        if done % 20 == 0 or done == config.steps:
            line = {"step": done, "loss": float(np.mean(losses)), "seconds": round(time.monotonic() - began, 1)}
            losses = []
            if done % config.save_every == 0 or done == config.steps:
                line |= evaluate(probed, unseen)
                _save_checkpoint(checkpoint, probed, optimizer, config, done)
            with (folder / "speech_log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            report(json.dumps(line))
    return write_encoder(probed.network, folder / FILE_NAME)


def _step(
    probed: ProbedEncoder, optimizer: torch.optim.Optimizer, clips: list[Clip], config: SpeechPretraining, step: int
) -> float:
    """Train one step and return its loss. The batch depends only on the seed and the number of the step."""
    rng = np.random.default_rng((32, config.seed, step))
    frames = int(rng.integers(config.shortest, config.longest + 1))
    batch = draw_batch(clips, max(1, config.batch_frames // frames), frames, rng)
    rate = config.learning_rate * min((step + 1) / config.warm_up, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * step / config.steps))
    with fast_autocast(config.device, config.bfloat16):
        read = probed.read(batch.samples.to(config.device))
    loss = probe_loss(read, batch, config)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(probed.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def probe_loss(read: list[tuple[Tensor, Tensor]], batch: Batch, config: SpeechPretraining) -> Tensor:
    """Return the mean over the layers of the visemes' cross-entropy plus the weighted squared errors of the mouth."""
    classes, mouth = batch.classes.to(config.device), batch.mouth.to(config.device)
    losses = [
        cross_entropy(scores.transpose(1, 2), classes, label_smoothing=0.05)
        + config.mouth_weight * (found - mouth).square().mean()
        for scores, found in read
    ]
    return torch.stack(losses).mean()


@torch.no_grad()
def evaluate(probed: ProbedEncoder, clips: list[Clip]) -> dict[str, float]:
    """Measure the last layer on whole clips: correlations with the true mouth, share of correct visemes."""
    device = next(probed.parameters()).device
    found, truth, right = [], [], []
    for clip in clips:
        scores, mouth = probed.read(clip.samples[None].to(device))[-1]
        found.append(mouth[0].cpu())
        truth.append(clip.mouth)
        right.append((scores[0].argmax(-1).cpu() == clip.classes).float())
    got, want = torch.cat(found).numpy(), torch.cat(truth).numpy()
    kinds = ("opening", "width", "energy")
    correlations = {kind: float(np.corrcoef(got[:, i], want[:, i])[0, 1]) for i, kind in enumerate(kinds)}
    return correlations | {"right": float(torch.cat(right).mean())}


def write_encoder(network: Wav2Vec2Model, path: Path) -> Path:
    """Write the encoder as a float16 safetensors file with the key names of a pre-training checkpoint."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = {}
    for name, tensor in network.state_dict().items():
        for inner, outer in names.items():
            name = name.replace(inner, outer)
        tensors[f"wav2vec2.{name}"] = tensor.detach().cpu().half().contiguous()
    # Pre-training checkpoints contain an embedding for masked frames, which is not used here.
    tensors["wav2vec2.masked_spec_embed"] = torch.zeros(network.config.hidden_size, dtype=torch.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def _save_checkpoint(
    path: Path, probed: ProbedEncoder, optimizer: torch.optim.Optimizer, config: SpeechPretraining, step: int
) -> None:
    saved = {"student": probed.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    part = path.with_suffix(".part")
    torch.save(saved | {"config": asdict(config)}, part)
    part.replace(path)


def _resume(path: Path, probed: ProbedEncoder, optimizer: torch.optim.Optimizer, config: SpeechPretraining) -> int:
    """Load a checkpoint of the same config if there is one; return the number of steps that are done."""
    if not path.is_file():
        return 0
    saved: dict[str, Any] = torch.load(path, map_location=config.device, weights_only=True)
    if saved["config"] != asdict(config):
        return 0
    probed.load_state_dict(saved["student"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])

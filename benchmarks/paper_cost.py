"""Estimate the time of the benchmark on this machine from a few timed calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from infinitetalk_core.model.precision import fast_autocast
from training.small_models import load_model

from .paper_conditions import CHUNK_FRAMES, CODEC, STRATEGIES, Condition, Scale
from .paper_videos import load_vae_and_speech_encoder

FRAME = 96  # pixels
MEASURING = 0.006  # seconds per frame: drawing, metrics
TRAINING = 2.0  # training step per sample in predictions: forward and backward, in a large batch, which is faster
SAMPLE_FRAMES = 33 + 13 + 33 + 5 * (len(STRATEGIES) - 1)  # encoded frames per sample: target, drift, references


@dataclass(frozen=True)
class Cost:
    """Times in seconds on one thread."""

    encode: float  # per frame
    decode: float
    predict: float  # per prediction of the backbone for one chunk

    def row(self, condition: Condition) -> float:
        """Return the time of one row."""
        chunks = condition.chunks
        if condition.voice == CODEC:
            return chunks * CHUNK_FRAMES * (self.encode + self.decode + MEASURING)
        encoded = condition.context + CHUNK_FRAMES * (1 + (condition.sdedit < 1 or condition.uni3c))
        predictions = condition.steps * (condition.branches + 0.5 * condition.uni3c)
        each = encoded * self.encode + CHUNK_FRAMES * self.decode + predictions * self.predict
        return chunks * each + condition.frames * MEASURING

    def fine_tuning(self, scale: Scale, models: int) -> float:
        """Return the time of making the samples and of `models` trainings."""
        samples = scale.samples * (SAMPLE_FRAMES * self.encode + CHUNK_FRAMES * MEASURING)
        return samples + models * scale.steps * scale.batch * TRAINING * self.predict


def measure_cost(models: Path) -> Cost:
    """Time the models, after a warm-up call."""
    vae, _ = load_vae_and_speech_encoder(models)
    model = load_model(models)
    frames = torch.rand(1, CHUNK_FRAMES, FRAME, FRAME, 3)
    adapter = model.adapter
    with torch.inference_mode(), fast_autocast():
        latents = vae.encode(frames).float()
        config = adapter.config
        speech = adapter.speech_tokens(torch.zeros(1, CHUNK_FRAMES, 5, 1, config.audio_width), None)
        mask = torch.zeros(1, 4, *latents.shape[2:])
        text = torch.zeros(1, 2, 4096)
        encode = _seconds(lambda: vae.encode(frames)) / CHUNK_FRAMES
        decode = _seconds(lambda: vae.decode(latents)) / CHUNK_FRAMES
        predict = _seconds(lambda: model.predict(latents, torch.ones(1), text, [speech], latents, mask))
    return Cost(encode, decode, predict)


def _seconds(work: Callable[[], object]) -> float:
    """Return the least processor time of three calls on one thread, which other processes influence little."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)

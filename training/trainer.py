"""A resumable training loop with averaged weights and a log, for small models and the released architecture."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infinitetalk_core.chunks.reference import Policy
from infinitetalk_core.model.precision import fast_autocast

from .captions import caption_tokens
from .dataset import Samples, caption
from .flow_matching import Batch, shifted_levels

# Shares of the reference policies in training: the paper's M3 mixed with some of the others, so that the one small
# model also works for portraits (a still picture is mostly distant) and for camera control.
MIXED = {Policy.NEIGHBOR: 0.5, Policy.DISTANT: 0.25, Policy.SAME_CHUNK: 0.1, Policy.CHUNK_START: 0.15}


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a training run."""

    steps: int = 4000
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    average: float = 0.998  # decay of the averaged weights
    shift: float = 3.0  # towards high noise, as in sampling
    policies: dict[Policy, float] = field(default_factory=lambda: dict(MIXED))
    # Shares of the number of context latents t_c: the first chunk of a video has 1, later ones 3 (9 frames).
    context_latents: dict[int, float] = field(default_factory=lambda: {0: 0.05, 1: 0.3, 2: 0.1, 3: 0.45, 4: 0.1})
    opening_share: float = 0.5  # first chunks (t_c = 1) whose reference is their own first frame, as for portraits
    drop_speech: float = 0.12
    drop_text: float = 0.5
    drifted_share: float = 0.4  # contexts with color drift: the target has the reference's colors
    context_noise: float = 0.1  # largest standard deviation of the noise on context latents
    mouth_weight: float = 4.0  # loss weight of latents that the mouth can change
    seed: int = 0
    low_precision: bool = True  # autocast to `fast_dtype`
    log_every: int = 25
    save_every: int = 250

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then half a cosine down to a hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def draw_batch(config: TrainingConfig, samples: Samples, rng: torch.Generator, noise: torch.Generator) -> Batch:
    """Draw a batch: samples, references by policy, length of the context, dropped conditions.

    rng: draws what is chosen, on the CPU. noise: draws the noise, on the device of the samples.
    """
    rows = torch.randint(len(samples), (config.batch,), generator=rng)
    device = samples.target.device
    target = samples.target[rows].float()
    held = choose(config.context_latents, rng)
    policy = choose(config.policies, rng)
    reference = samples.references_of(policy)[rows].float()
    if held == 1 and Policy.CHUNK_START in samples.policies and _happens(config.opening_share, rng):
        reference = samples.references_of(Policy.CHUNK_START)[rows].float()
    heard = _kept(config.drop_speech, config.batch, rng).view(-1, 1, 1, 1, 1).to(device)
    text = torch.stack([caption_tokens(caption(bool(samples.lively[r]))) for r in rows])
    return Batch(
        target=target,
        context=_context(config, samples, rows, held, rng, noise),
        reference=reference,
        audio_windows=samples.speech[rows].float() * heard,
        text=text * _kept(config.drop_text, config.batch, rng).view(-1, 1, 1),
        weight=1 + (config.mouth_weight - 1) * samples.mouth[rows].float()[:, None],
        guide=samples.guide[rows].float() if samples.guide.ndim == 5 else None,
        first_last=policy is Policy.FIRST_LAST,
    )


def _context(
    config: TrainingConfig, samples: Samples, rows: Tensor, held: int, rng: torch.Generator, noise: torch.Generator
) -> Tensor:
    """Return the context latents with simulated errors: sometimes color drift, always a little noise."""
    clean = samples.target[rows, :, :held].float()
    drifted = samples.drifted[rows, :, :held].float()
    use = 1 - _kept(config.drifted_share, config.batch, rng).view(-1, 1, 1, 1, 1)
    level = torch.rand(config.batch, 1, 1, 1, 1, generator=rng) * config.context_noise
    added = torch.randn(clean.shape, generator=noise, device=clean.device)
    return torch.lerp(clean, drifted, use.to(clean)) + level.to(clean) * added


def choose(shares: dict[Any, float], rng: torch.Generator) -> Any:
    """Draw a key of `shares` with probabilities in proportion to the values."""
    index = torch.multinomial(torch.tensor(list(shares.values())), 1, generator=rng)
    return list(shares)[int(index)]


def _happens(share: float, rng: torch.Generator) -> bool:
    """Return True with probability `share`."""
    return torch.rand((), generator=rng).item() < share


def _kept(dropped: float, count: int, rng: torch.Generator) -> Tensor:
    """Return (count,) random factors: 0 with probability `dropped`, else 1."""
    return (torch.rand(count, generator=rng) >= dropped).float()


# (batch, noise levels (B,), noise like the target) -> the loss, a 0-d tensor
Loss = Callable[[Batch, Tensor, Tensor], Tensor]


class Trainer:
    """Train `modules` by `loss`, with everything that a resumed run needs in `folder`."""

    def __init__(self, config: TrainingConfig, modules: nn.Module, loss: Loss, samples: Samples, folder: Path):
        self.config = config
        self.modules = modules
        self.loss = loss
        self.samples = samples
        self.folder = folder
        self.device = next(modules.parameters()).device
        self.optimizers = make_optimizers(modules, config)
        self.averaged = {n: p.detach().clone() for n, p in modules.named_parameters() if p.requires_grad}
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """Return the file that a run is resumed from."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Continue an earlier run in `folder`, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.modules.load_state_dict(state["modules"])
            self.averaged = state["averaged"]
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint atomically: after a kill the old or the new one is complete."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "modules": self.modules.state_dict(),
                "averaged": self.averaged,
                "optimizers": [o.state_dict() for o in self.optimizers],
                "step": self.step,
            },
            part,
        )
        part.replace(self.checkpoint)

    def averaged_weights(self) -> dict[str, Tensor]:
        """Return the state dict to use and to publish: averages of the trained weights, and the frozen weights."""
        return {**self.modules.state_dict(), **self.averaged}

    def run(self, report: Callable[[str], None] = lambda line: None, until: int | None = None) -> None:
        """Train up to step `until` (default: the last)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        started, losses = time.monotonic(), []
        end = self.config.steps if until is None else min(until, self.config.steps)
        while self.step < end:
            losses.append(self._train_step())
            self.step += 1
            if self.step % self.config.log_every == 0:
                seconds = (time.monotonic() - started) / len(losses)
                line = {"step": self.step, "loss": sum(losses) / len(losses), "seconds_a_step": round(seconds, 3)}
                with (self.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
                report(f"step {self.step} of {self.config.steps}: loss {line['loss']:.4f}, {seconds:.2f} s a step")
                started, losses = time.monotonic(), []
            if self.step % self.config.save_every == 0 or self.step == end:
                self.save()

    def _train_step(self) -> float:
        # The random generator is seeded by the step, so a resumed run draws the same as an uninterrupted one.
        seed, device = self.config.seed * 1_000_003 + self.step, self.samples.target.device
        rng, noise_rng = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
        batch = draw_batch(self.config, self.samples, rng, noise_rng)
        sigma = shifted_levels(torch.rand(self.config.batch, generator=rng), self.config.shift)
        noise = torch.randn(batch.target.shape, generator=noise_rng, device=device)
        with self._precision():
            loss = self.loss(batch.to(self.device), sigma.to(self.device), noise.to(self.device))
        loss.backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate_at(self.step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average()
        return loss.item()

    def _precision(self) -> Any:
        return fast_autocast(self.device, self.config.low_precision)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        trained = dict(self.modules.named_parameters())
        torch._foreach_lerp_(list(self.averaged.values()), [trained[n] for n in self.averaged], 1 - decay)


def make_optimizers(modules: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the blocks and AdamW for all other trainable weights.

    Muon (Newton-Schulz steps on the momentum) learns faster per step; its updates are scaled to AdamW's size, so that
    both use one learning rate.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in modules.named_parameters():
        if weight.requires_grad:
            inside = ".blocks." in name and weight.ndim == 2
            (matrices if inside else others).append(weight)
    rate, decay = config.learning_rate, config.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=rate, weight_decay=decay, betas=(0.9, 0.98)))
    return optimizers

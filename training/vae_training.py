"""Train a small Wan 2.1 autoencoder on drawn speakers, stage by stage.

1. `start_from_clips` (vae_init.py) initializes by principal components, so that the first step already reproduces a
blurred picture.

2. Stages with the encoder train both halves, with noise on the latents, because the latents of a diffusion model are
never exact, and sometimes on the codec's own output, so that repeated coding does not drift.

3. The latents are scaled to unit variance and the encoder is frozen, so that encoded data stay valid.

4. Stages without the encoder train the decoder alone, the last one against flicker: each latent makes four frames, and
its error differs from the next latent's, so that the picture would flicker about six times a second.

5. `refining` trains both halves of a finished codec further, on the color of each part of the picture and on what has
been through the codec before. A long video passes through it once a chunk, so an error that is hardly visible after one
pass becomes another jacket after ten.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from infinitetalk_core.model.vae import NormSilu, WanVae, fast, load_vae, norm_silu, save_vae

from .color_loss import part_color_errors
from .folded_convolution import fold_convolutions
from .muon import Muon
from .vae_clips import ClipPool, ClipShape, draw_clip
from .vae_init import start_from_clips, unit_variance
from .vae_losses import contrast_loss, latent_loss, picture_loss, psnr
from .vae_recipe import CONTEXT_FRAMES, Stage, VaeTraining, refining

__all__ = ["Stage", "VaeTraining", "refining", "train_vae"]

FILE, CHECKPOINT, LOG = "small_wan_vae.safetensors", "vae_training.safetensors", "vae_training.jsonl"
LOG_EVERY, UNSEEN_EVERY = 20, 500  # steps
# With workers: the clips that a step draws from, so that the first steps need not wait for the last clip.
FIRST_CLIPS, CLIPS_PER_STEP = 200, 8
UNSEEN = 1_000_000  # first seed of the characters that are never trained on


def train_vae(
    config: VaeTraining,
    folder: Path,
    report: Callable[[str], None] = lambda line: None,
    device: torch.device | str = "cpu",
) -> Path:
    """Train from scratch, or resume the checkpoint in `folder`; return the path of the float16 weights there."""
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(config, folder, report, torch.device(device))
    for stage, step, progress in _schedule(config.stages, run.step):
        run.train(stage, step, progress)
        if (step + 1) % config.checkpoint_every == 0:
            run.save()
    run.save()
    run.pool.close()
    return folder / FILE


def _schedule(stages: tuple[Stage, ...], done: int) -> Iterator[tuple[Stage, int, float]]:
    """Yield the stage, the overall step and the progress in the stage, 0 … 1, starting after `done` steps."""
    step = 0
    for stage in stages:
        for inside in range(stage.steps):
            if step >= done:
                yield stage, step, inside / stage.steps
            step += 1


@dataclass(frozen=True)
class _Batch:
    """What a step learns from; shapes as in vae_clips.py."""

    pixels: Tensor
    weight: Tensor
    parts: Tensor | None
    latents: Tensor  # of the pixels, or of what the codec made of them


class _Run:
    """Float32 master weights, their average, the optimizer, and the module that computes, in `fast_dtype`."""

    def __init__(self, config: VaeTraining, folder: Path, report: Callable[[str], None], device: torch.device) -> None:
        self.config, self.folder, self.report, self.device = config, folder, report, device
        self.step, self.seconds = 0, 0.0
        self.encoder_frozen = False
        self._recent: list[dict[str, float]] = []  # numbers of the steps since the last line of the log
        torch.backends.cudnn.benchmark = True  # few shapes, many steps
        torch.manual_seed(config.seed)
        self.master = WanVae(config.dim).to(device)
        self.averaged = WanVae(config.dim).requires_grad_(False).to(device)
        self.working = fast(WanVae(config.dim).to(device))
        if self.working.dtype is torch.float32:
            fold_convolutions(self.working)
        if config.compile:
            _compile_norms(self.working)
        checkpoint = folder / CHECKPOINT
        if config.start is not None:
            self.master.load_state_dict(load_vae(config.start).state_dict())
        elif not checkpoint.exists():
            start_from_clips(self.master, *_first_clips(self.pool, config, config.size // 2))
        self.averaged.load_state_dict(self.master.state_dict())
        self.optimizer = Muon([p.data for p in self.master.parameters()])
        if checkpoint.exists():
            self._resume(load_file(checkpoint))
        if self.encoder_frozen:
            self._train_decoder_only()
        self._publish()

    @cached_property
    def pool(self) -> ClipPool:
        """Return the training clips, drawn at first use."""
        config = self.config
        return ClipPool(config.clips, config.clip_frames, config.size, device=self.device, workers=config.workers)

    @cached_property
    def unseen(self) -> Tensor:
        """Return clips of characters that are never trained on: (B, F, H, W, 3) in [0, 1]."""
        clips = [draw_clip(UNSEEN + i, 9, self.config.size) for i in range(6)]
        return torch.from_numpy(np.stack(clips)).to(self.device).float() / 255

    def train(self, stage: Stage, step: int, progress: float) -> None:
        """Train one step."""
        begun = time.perf_counter()
        if not stage.encoder and not self.encoder_frozen:
            self._freeze_encoder()
        batch = self._batch(stage, step)
        made = self.working.pixels(self._noisy(batch.latents, stage, step)).float()
        loss = picture_loss(made, batch.pixels, batch.weight, self.config, stage)
        color = None if batch.parts is None else part_color_errors(made, batch.pixels, batch.parts).mean()
        if batch.parts is not None and color is not None:
            loss = loss + stage.parts * color + stage.contrast * contrast_loss(made, batch.pixels, batch.parts)
        total = loss + self.config.latent_weight * latent_loss(batch.latents.float()) if stage.encoder else loss
        torch.autograd.backward(total)
        wave = 0.5 + 0.5 * math.cos(math.pi * progress)
        rate = stage.last_rate + (stage.rate - stage.last_rate) * wave
        self._update(rate * min(1.0, (self.optimizer.steps + 1) / self.config.warmup))
        self.step = step + 1
        self.seconds += time.perf_counter() - begun
        self._recent.append({"loss": loss.item(), "psnr": psnr(made.detach(), batch.pixels, 2.0)})
        if color is not None:
            self._recent[-1]["color"] = color.item()  # Lab
        if self.step % LOG_EVERY == 0:
            self._log(stage)

    def _batch(self, stage: Stage, step: int) -> _Batch:
        rng = np.random.default_rng([self.config.seed, step])
        shape, parts = stage.shapes[rng.integers(len(stage.shapes))], None
        if stage.parts:
            among = min(self.config.clips, FIRST_CLIPS + CLIPS_PER_STEP * step) if self.config.workers else None
            pixels, weight, parts = self.pool.batch_with_parts(shape, rng, stage.recolored, among)
        else:
            pixels, weight = self.pool.batch(shape, rng)
        given = pixels.to(self.working.dtype).contiguous(memory_format=torch.channels_last_3d)
        if rng.random() < stage.again:
            with torch.no_grad():
                for number in range(rng.integers(1, stage.passes + 1)):
                    given = self.working.pixels(self._noisy(self.working.means(given), stage, step + number))
            if stage.passes > 1 and rng.random() < 0.5:  # the next chunk begins with the end of this one
                end = slice(-CONTEXT_FRAMES, None)
                given, pixels, weight = given[:, :, end], pixels[:, :, end], weight[:, :, end]
                parts = None if parts is None else parts[:, end]
        with torch.set_grad_enabled(stage.encoder):
            return _Batch(pixels, weight, parts, self.working.means(given))

    def _noisy(self, latents: Tensor, stage: Stage, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.config.seed * 10_000_019 + step)
        return latents + stage.noise * torch.randn(latents.shape, generator=generator).to(latents)

    def _update(self, rate: float) -> None:
        gradients = [None if weight.grad is None else weight.grad.float() for weight in self.working.parameters()]
        self.optimizer.step(gradients, rate)
        # A faster average in the first steps, so that the initial weights do not dominate the average.
        share = max(1 - self.config.average, 10 / (self.step + 10))
        for average, weight in zip(self.averaged.parameters(), self.optimizer.weights, strict=True):
            average.lerp_(weight, share)
        self._publish()

    def _publish(self) -> None:
        """Copy the master weights into the module that computes."""
        with torch.no_grad():
            for fresh, weight in zip(self.working.parameters(), self.optimizer.weights, strict=True):
                fresh.copy_(weight)
                fresh.grad = None

    def _freeze_encoder(self) -> None:
        """Continue with the averaged weights and stop training the encoder."""
        unit_variance(self.averaged, _first_clips(self.pool, self.config, self.config.size)[0])
        self.averaged.load_state_dict({k: v.half().float() for k, v in self.averaged.state_dict().items()})
        self.master.load_state_dict(self.averaged.state_dict())
        self.optimizer = Muon([p.data for p in self.master.parameters()])
        self.encoder_frozen = True
        self._train_decoder_only()
        self._publish()
        self.save()

    def _log(self, stage: Stage) -> None:
        entry: dict[str, object] = {"step": self.step, "stage": stage.name, "seconds": round(self.seconds, 1)}
        for name in self._recent[-1]:
            entry[name] = round(fmean(step[name] for step in self._recent if name in step), 4)
        self._recent.clear()
        if self.step % UNSEEN_EVERY == 0:
            entry["unseen_psnr"] = round(unseen_psnr(self.averaged, self.unseen), 2)
        line = json.dumps(entry)
        with (self.folder / LOG).open("a") as log:
            log.write(line + "\n")
        self.report(line)

    def save(self) -> None:
        """Write the averaged weights and the checkpoint."""
        save_vae(self.averaged, self.folder / FILE)
        state = {f"optimizer.{k}": v for k, v in self.optimizer.state().items()}
        state |= {f"master.{k}": v for k, v in self.master.state_dict().items()}
        state |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        state |= {"step": torch.tensor(self.step), "seconds": torch.tensor(self.seconds)}
        state |= {"encoder_frozen": torch.tensor(self.encoder_frozen)}
        part = (self.folder / CHECKPOINT).with_suffix(".part")
        save_file(state, part)
        part.replace(self.folder / CHECKPOINT)

    def _resume(self, state: dict[str, Tensor]) -> None:
        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}

        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.encoder_frozen = bool(state["encoder_frozen"])
        self.master.load_state_dict(part("master"))
        self.averaged.load_state_dict(part("averaged"))
        self.optimizer.load(part("optimizer"))

    def _train_decoder_only(self) -> None:
        for name, parameter in self.working.named_parameters():
            parameter.requires_grad_(name.startswith(("decoder.", "conv2.")))


def _first_clips(pool: ClipPool, config: VaeTraining, side: int) -> tuple[Tensor, Tensor]:
    """Return clips for statistics: (B, 3, F, H, W) in [-1, 1] and their weights."""
    rng = np.random.default_rng(config.seed)
    return pool.batch(ClipShape(12, min(9, config.clip_frames), side), rng)


def _compile_norms(vae: WanVae) -> None:
    """Compile one function for all norms; the number of rows is dynamic, the number of channels is not."""
    torch._dynamo.config.recompile_limit = 32  # one per width, with and without gradients of each argument
    compiled = torch.compile(norm_silu, dynamic=False)

    def formula(rows: Tensor, gamma: Tensor) -> Tensor:
        torch._dynamo.maybe_mark_dynamic(rows, 0)
        return compiled(rows, gamma)

    for layer in vae.modules():
        if isinstance(layer, NormSilu):
            layer.formula = formula


@torch.no_grad()
def unseen_psnr(vae: WanVae, frames: Tensor) -> float:
    """Return the PSNR of frames (B, F, H, W, 3) in [0, 1] after encoding and decoding in `fast_dtype`."""
    copy = WanVae(vae.dim).to(frames.device)
    copy.load_state_dict(vae.state_dict())
    copy = fast(copy)
    return psnr(copy.decode(copy.encode(frames)), frames)

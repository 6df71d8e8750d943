"""Make training samples: encode drawn speakers with the VAE, and store them on disk.

A sample is one chunk with the inputs that the sampler would give it (chunks/conditioning.py): target, context,
references and speech. The reference frame is chosen by the policies of the reference picker, so training and inference
share one definition of M0 … M3 (section 3.3 of the paper). What is encoded is drawn by drawing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from infinitetalk_core.chunks.conditioning import MID_GRAY, reference_video
from infinitetalk_core.chunks.reference import Policy
from infinitetalk_core.model.vae import WanVae

from .captions import CALM, LIVELY
from .drawing import DEFAULT_POLICIES, DatasetConfig, Encode, draw_shards, drawn_shard
from .worn_context import coded_again

REFERENCE_FRAMES = 5  # encoded frames of each reference video; the frames after them are gray
BATCH = {"cpu": 1, "cuda": 20}  # clips that the VAE encodes at a time


@dataclass(frozen=True)
class Samples:
    """N stacked samples. T latent frames of h x w, P policies, F frames."""

    target: Tensor  # (N, 16, T, h, w)
    drifted: Tensor  # (N, 16, t, h, w): the context as it is after many chunks, see worn_context.py
    references: Tensor  # (N, P, 16, T, h, w)
    speech: Tensor  # (N, F, window, layers, channels)
    mouth: Tensor  # (N, T, h, w): share of a latent's pixels that the mouth can change, see mouth_share
    lively: Tensor  # (N,): 1 if the head moves much, else 0
    guide: Tensor  # (N, 16, T, h, w), or (N, 0) without guides
    policies: tuple[Policy, ...] = DEFAULT_POLICIES

    def __len__(self) -> int:
        return len(self.target)

    def references_of(self, policy: Policy) -> Tensor:
        """Return the references that `policy` chose, (N, 16, T, h, w)."""
        return self.references[:, self.policies.index(policy)]

    def to(self, device: torch.device) -> Samples:
        """Return the samples in the memory of `device`, except for what chooses the caption."""
        tensors = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name not in ("lively", "policies")
        }
        return replace(self, **tensors)


def draw_samples(config: DatasetConfig, folder: Path, encode: Encode, workers: int = 0) -> None:
    """Draw all samples of `config` that are neither drawn nor encoded yet."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "dataset.json"
    if manifest.exists() and manifest.read_text() != config.recipe():
        raise ValueError(f"{folder} holds samples of another configuration; choose another folder or delete it")
    manifest.write_text(config.recipe())
    missing = [first for first in config.shards if not _encoded_shard(folder, first).exists()]
    draw_shards(config, folder, missing, encode, workers)


def make_samples(
    config: DatasetConfig,
    folder: Path,
    vae: WanVae,
    encode: Encode,
    report: Callable[[str], None] = lambda line: None,
    workers: int = 0,
) -> Samples:
    """Return the samples of `config`; makes those that are not in `folder` yet. An interrupted call can be resumed."""
    draw_samples(config, folder, encode, workers)
    encoder = _encoder(vae, config)
    for first in config.shards:
        path, drawn = _encoded_shard(folder, first), drawn_shard(folder, first)
        if not path.exists():
            part = path.with_suffix(".part")
            save_file(encoder.samples(load_file(drawn)), part)
            part.replace(path)
            report(f"samples {min(first + config.shards.step, config.samples)} of {config.samples}")
        drawn.unlink(missing_ok=True)
    loaded = [load_file(_encoded_shard(folder, first)) for first in config.shards]
    return Samples(
        **{k: torch.cat([s[k] for s in loaded])[: config.samples] for k in loaded[0]}, policies=config.policies
    )


def _encoded_shard(folder: Path, first: int) -> Path:
    return folder / f"{first:06}.safetensors"


@dataclass(frozen=True)
class _Encoder:
    """The VAE, and the latents of the gray frames that follow a reference, which hardly depend on the reference."""

    vae: WanVae
    gray: Tensor  # (16, T, h, w)
    policies: tuple[Policy, ...]

    def samples(self, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the samples of a drawn shard."""
        frames, guide = _fractions(drawn["frames"]), drawn["guide"]
        return {
            "target": self.encode(frames),
            "drifted": self.encode(coded_again(self.vae, _fractions(drawn["context"]), drawn["passes"])),
            "references": self.references(_fractions(drawn["looks"]), _fractions(drawn["lasts"]), frames.shape[1]),
            "guide": self.encode(_fractions(guide)) if guide.ndim == 5 else guide.half(),
            **{name: drawn[name] for name in ("speech", "mouth", "lively")},
        }

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (B, F, H, W, 3) to latents (B, 16, T, h, w)."""
        size = BATCH[next(self.vae.parameters()).device.type]
        return torch.cat([encode_half(self.vae, part) for part in frames.split(size)])

    def references(self, looks: Tensor, lasts: Tensor, length: int) -> Tensor:
        """Return z2 of each sample and policy: (B, P, 16, T, h, w). looks, lasts: (B, P, H, W, 3)."""
        each = zip(looks.unbind(1), lasts.unbind(1), self.policies, strict=True)
        return torch.stack([self._references(look, last, length, policy) for look, last, policy in each], dim=1)

    def _references(self, looks: Tensor, lasts: Tensor, length: int, policy: Policy) -> Tensor:
        if policy is Policy.FIRST_LAST:
            pairs = zip(looks, lasts, strict=True)
            return self.encode(torch.stack([reference_video(first, length, last) for first, last in pairs]))
        near = self.encode(torch.stack([reference_video(first, REFERENCE_FRAMES) for first in looks]))
        gray = self.gray[:, near.shape[2] :].expand(len(near), -1, -1, -1, -1)
        return torch.cat([near, gray], dim=2)


def _encoder(vae: WanVae, config: DatasetConfig) -> _Encoder:
    gray = torch.full((config.size, config.size, 3), MID_GRAY)
    return _Encoder(vae, encode_half(vae, reference_video(gray, config.chunk_frames)[None])[0], config.policies)


def _fractions(pictures: Tensor) -> Tensor:
    """Return uint8 pictures as numbers in [0, 1]."""
    return pictures.float() / 255


@torch.inference_mode()
def encode_half(vae: WanVae, frames: Tensor) -> Tensor:
    """Encode frames (B, F, H, W, 3) to latents (B, 16, T, h, w), half precision on the CPU."""
    return vae.encode(frames.to(next(vae.parameters()).device)).half().cpu().contiguous()


def caption(lively: bool) -> str:
    """Return the caption of a sample."""
    return LIVELY if lively else CALM

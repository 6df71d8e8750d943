"""Contexts that the model itself has made: what it will see at inference, errors included (as in self-forcing).

The chunks of a long video begin with the end of a chunk that the model made. Here it makes the chunk of a training
sample from its noised latents, so that head and mouth stay where they were while its colors and details become the
model's own. The autoencoder then decodes and encodes what it made, as between two chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infinitetalk_core.chunks.conditioning import reference_mask
from infinitetalk_core.chunks.reference import Policy
from infinitetalk_core.model.audio_cross_attention import SpeechTokens
from infinitetalk_core.model.infinitetalk import InfiniteTalkModel
from infinitetalk_core.model.vae import WanVae
from infinitetalk_core.sampling.euler import euler
from infinitetalk_core.sampling.sdedit import noised

from .captions import caption_tokens
from .dataset import Samples, caption, encode_half
from .trainer import choose


@dataclass(frozen=True)
class OwnChunks:
    """How the model makes its contexts."""

    share: float = 0.5  # of the samples whose drifted context becomes the model's own
    steps: int = 4
    noise: tuple[float, float] = (0.6, 0.9)  # the noise level that a chunk is made from: the colors come from the model
    batch: int = 20


@torch.inference_mode()
def own_contexts(
    model: InfiniteTalkModel,
    vae: WanVae,
    samples: Samples,
    rows: Tensor,
    policies: dict[Policy, float],
    settings: OwnChunks,
    rng: torch.Generator,
) -> Tensor:
    """Return the contexts (n, 16, t, h, w) that `model` makes of the samples `rows` (n,), half precision."""
    device = next(model.backbone.parameters()).device
    target = samples.target[rows].to(device, torch.float32)
    reference = samples.references_of(choose(policies, rng))[rows].to(device, torch.float32)
    text = torch.stack([caption_tokens(caption(bool(samples.lively[r]))) for r in rows]).to(device)
    speech = [SpeechTokens(t) for t in model.adapter.audio_proj(samples.speech[rows].to(device, torch.float32))]
    mask = reference_mask(*target.shape[2:]).to(device)
    low, high = settings.noise
    start = low + (high - low) * float(torch.rand((), generator=rng))
    noise = torch.randn(target.shape, generator=rng).to(device)

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        return model.predict(x, sigma.expand(len(x)), text, speech, reference, mask).float()

    sigmas = torch.linspace(start, 0, settings.steps + 1, device=device)
    made = euler(velocity, noised(target, noise, sigmas[0]), sigmas, target[:, :, :1])
    latents = samples.drifted.shape[2]
    frames = vae.decode(made[:, :, :latents]).float().clamp(0, 1)
    return encode_half(vae, frames)


def with_own_contexts(
    model: InfiniteTalkModel,
    vae: WanVae,
    samples: Samples,
    policies: dict[Policy, float],
    settings: OwnChunks,
    seed: int,
) -> Tensor:
    """Return `samples.drifted`, a random share of which the model has made."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(samples), generator=rng)[: round(settings.share * len(samples))]
    drifted = samples.drifted.clone()
    for part in rows.split(settings.batch):
        drifted[part] = own_contexts(model, vae, samples, part, policies, settings, rng).to(drifted)
    return drifted

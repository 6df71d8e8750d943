"""Make training samples: encode drawn speakers with the VAE and the speech encoder, and store them on disk.

A sample is one chunk with the inputs that the sampler would give it (chunks/conditioning.py): target, context,
references and speech. The reference frame is chosen by the policies of the reference picker, so training and inference
share one definition of M0 … M3 (section 3.3 of the paper).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.audio.windows import speech_windows
from infinitetalk_core.chunks.conditioning import MID_GRAY, reference_video
from infinitetalk_core.chunks.plan import Chunk, latent_frames
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings, choose_references
from infinitetalk_core.model.vae import WanVae
from infinitetalk_core.speech import SpeechFeatures, encode_speech

from .articulation import Articulation, articulate
from .captions import CALM, LIVELY
from .drawn_video import DrawnVideo, speaking
from .voices import speak
from .worn_context import Wear, worn

SHARD = 40  # samples per file, a multiple of the chunks per clip
REFERENCE_FRAMES = 5  # encoded frames of each reference video; the frames after them are gray
CONTEXT_FRAMES = 13  # longest context that is stored with color drift too
DEFAULT_POLICIES = (Policy.NEIGHBOR, Policy.DISTANT, Policy.SAME_CHUNK, Policy.CHUNK_START)


@dataclass(frozen=True)
class DatasetConfig:
    """The settings of a sample set."""

    samples: int = 2400
    first_seed: int = 0  # first seed of the characters, voices and sentences
    chunks_per_clip: int = 2
    seconds: float = 7.6  # length of a clip: a distant reference (M2) is more than 5 s away
    size: int = 96  # pixels
    chunk_frames: int = 33
    still_share: float = 0.5  # share of clips with a static camera
    policies: tuple[Policy, ...] = DEFAULT_POLICIES
    wear: Wear = field(default_factory=Wear)  # of the contexts that have drifted
    guides: bool = False  # adds the same camera with another performance, for Uni3C

    def recipe(self) -> str:
        """Return the settings that determine a sample, for the folder's manifest; excludes the number of samples."""
        fields = {**asdict(self), "policies": [p.value for p in self.policies]}
        del fields["samples"]
        if self.wear == Wear():
            del fields["wear"]  # as it was before there was any
        return json.dumps(fields, indent=1)


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


def make_samples(
    config: DatasetConfig,
    folder: Path,
    vae: WanVae,
    encode: Callable[[Sound], Tensor],
    report: Callable[[str], None] = lambda line: None,
) -> Samples:
    """Return the samples of `config`; makes those that are not in `folder` yet. An interrupted call can be resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "dataset.json"
    if manifest.exists() and manifest.read_text() != config.recipe():
        raise ValueError(f"{folder} holds samples of another configuration; choose another folder or delete it")
    manifest.write_text(config.recipe())
    shards, encoder = [], _encoder(vae, config)
    for start in range(0, config.samples, SHARD):
        shards.append(folder / f"{start:06}.safetensors")
        if not shards[-1].exists():
            clips = range(start // config.chunks_per_clip, (start + SHARD) // config.chunks_per_clip)
            made = [_make(config, config.first_seed + i, encoder, encode) for i in clips]
            tensors = {k: torch.cat([m[k] for m in made]).contiguous() for k in made[0]}
            part = shards[-1].with_suffix(".part")
            save_file(tensors, part)
            part.replace(shards[-1])
            report(f"samples {start + SHARD} of {config.samples}")
    loaded = [load_file(path) for path in shards]
    return Samples(
        **{k: torch.cat([s[k] for s in loaded])[: config.samples] for k in loaded[0]}, policies=config.policies
    )


def _make(config: DatasetConfig, seed: int, encoder: _Encoder, encode: Callable[[Sound], Tensor]) -> dict[str, Tensor]:
    """Return the samples of one clip: one character, one utterance, several chunks."""
    rng = random.Random(seed)
    utterance = speak(seed, config.seconds)
    video = speaking(articulate(utterance), seed, moving_camera=rng.random() >= config.still_share, size=config.size)
    features = encode_speech(encode, utterance.sound).voices[0]
    guide = _other_performance(video, seed) if config.guides else None
    starts = [_start(rng, video.length, config.chunk_frames) for _ in range(config.chunks_per_clip)]
    made = [_sample(config, video, features, start, rng, encoder, guide) for start in starts]
    return {k: torch.stack([m[k] for m in made]) for k in made[0]}


def _start(rng: random.Random, frames: int, length: int) -> int:
    """Draw the first frame of a chunk; sometimes the start of the speech."""
    return 0 if rng.random() < 0.1 else rng.randrange(frames - length)


def _other_performance(video: DrawnVideo, seed: int) -> DrawnVideo:
    """Return the same scene and camera with a performance to another utterance."""
    words = articulate(speak(seed + 500_000, video.length / 25 + 0.1))
    other = speaking(_cut(words, video.length), seed + 500_000, moving_camera=False)
    return replace(video, performance=other.performance)


def _cut(articulation: Articulation, frames: int) -> Articulation:
    return Articulation(articulation.opening[:frames], articulation.width[:frames], articulation.energy[:frames])


def _sample(
    config: DatasetConfig,
    video: DrawnVideo,
    features: SpeechFeatures,
    start: int,
    rng: random.Random,
    encoder: _Encoder,
    guide: DrawnVideo | None,
) -> dict[str, Tensor]:
    length = config.chunk_frames
    chunk = Chunk(0, start, length, 0, length)
    frames = video.frames(start, start + length)
    seed = rng.randrange(2**31)
    looks = [_reference(video, chunk, ReferenceSettings(policy, seed=seed)) for policy in config.policies]
    whole = [frames] if guide is None else [frames, guide.frames(start, start + length)]
    latents = encoder.encode(torch.stack(whole))
    context = frames[:CONTEXT_FRAMES]
    parts = video.parts(start, start + len(context))
    return {
        "target": latents[0],
        "drifted": encoder.encode(worn(context, parts, config.wear, encoder.vae, rng)[None])[0],
        "references": encoder.references(looks, length),
        "speech": speech_windows([features], start, length)[0].half(),
        "mouth": mouth_share(video, start, start + length).half(),
        "lively": torch.tensor(float(is_lively(video)), dtype=torch.float16),
        "guide": latents[1] if guide is not None else torch.zeros(0, dtype=torch.float16),
    }


def _reference(video: DrawnVideo, chunk: Chunk, settings: ReferenceSettings) -> tuple[Tensor, Tensor | None]:
    """Return the frame that `settings` chooses, and the chunk's last frame for the first-last baseline, else None.

    For the policy "previous output" (the I2V baseline) the frame is the last context frame of the chunk.
    """
    (choice,) = choose_references([chunk], settings, video.length)
    frame = min(chunk.start + 8, video.length - 1) if choice.previous else choice.frames[0]
    return video.frame(frame), None if choice.last is None else video.frame(choice.last)


@dataclass(frozen=True)
class _Encoder:
    """The VAE, and the latents of the gray frames that follow a reference, which hardly depend on the reference."""

    vae: WanVae
    gray: Tensor  # (16, T, h, w)

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (B, F, H, W, 3) to latents (B, 16, T, h, w)."""
        return encode_half(self.vae, frames)

    def references(self, looks: list[tuple[Tensor, Tensor | None]], length: int) -> Tensor:
        """Return z2 for each (reference, last frame or None): (P, 16, T, h, w)."""
        return torch.stack([self._reference(frame, last, length) for frame, last in looks])

    def _reference(self, frame: Tensor, last: Tensor | None, length: int) -> Tensor:
        if last is not None:
            return self.encode(reference_video(frame, length, last)[None])[0]
        near = self.encode(reference_video(frame, REFERENCE_FRAMES)[None])[0]
        return torch.cat([near, self.gray[:, near.shape[1] :]], dim=1)


def _encoder(vae: WanVae, config: DatasetConfig) -> _Encoder:
    gray = torch.full((config.size, config.size, 3), MID_GRAY)
    return _Encoder(vae, encode_half(vae, reference_video(gray, config.chunk_frames)[None])[0])


@torch.inference_mode()
def encode_half(vae: WanVae, frames: Tensor) -> Tensor:
    """Encode frames (B, F, H, W, 3) to latents (B, 16, T, h, w), half precision on the CPU."""
    return vae.encode(frames.to(next(vae.parameters()).device)).half().cpu()


def mouth_share(video: DrawnVideo, start: int, stop: int) -> Tensor:
    """Return for each latent the share of its pixels that differ between a closed and a wide open mouth: (T, h, w)."""
    window = video.performance.window(start, stop)
    shut, wide = (
        replace(video, performance=replace(window, opening=np.full_like(window.opening, level)),
                camera=video.camera.window(start, stop)).frames(0, stop - start)
        for level in (0.0, 1.0)
    )  # fmt: skip
    differs = ((wide - shut).abs().amax(dim=-1) > 0.05).float()
    space = F.avg_pool2d(differs[:, None], 8)[:, 0]
    later = space[1:].unflatten(0, (latent_frames(stop - start) - 1, 4)).amax(dim=1)
    return torch.cat([space[:1], later])


def is_lively(video: DrawnVideo) -> bool:
    """Return whether the head turns more than in half of all performances."""
    performance = video.performance
    return float(np.std(performance.yaw) + np.std(performance.pitch)) > LIVELY_FROM


LIVELY_FROM = 0.135  # radians: half of all performances reach it


def caption(lively: bool) -> str:
    """Return the caption of a sample."""
    return LIVELY if lively else CALM

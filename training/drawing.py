"""Draw what training samples are made of: pictures and speech, before the VAE has seen them.

A clip is one character and one utterance with several chunks. Clips are stored in shards, which several processes draw
at a time; drawing needs no GPU, so it can go on while another stage trains on one.
"""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.audio.wav2vec import SpeechEncoder
from infinitetalk_core.audio.windows import speech_windows
from infinitetalk_core.chunks.plan import Chunk, latent_frames
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings, choose_references
from infinitetalk_core.speech import SpeechFeatures, encode_speech

from .articulation import Articulation, articulate
from .drawn_video import DrawnVideo, speaking
from .voices import speak
from .worn_context import Wear, drifted

SHARD = 40  # samples per file, a multiple of the chunks per clip
CONTEXT_FRAMES = 13  # longest context that is stored with color drift too
DEFAULT_POLICIES = (Policy.NEIGHBOR, Policy.DISTANT, Policy.SAME_CHUNK, Policy.CHUNK_START)
LIVELY_FROM = 0.135  # radians: half of all performances reach it

Encode = Callable[[Sound], SpeechFeatures]


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
        return json.dumps(fields, indent=1)

    @property
    def shards(self) -> range:
        """Return the numbers of the first samples of all shards."""
        return range(0, self.samples, SHARD)


@dataclass(frozen=True)
class EncoderFile:
    """The speech encoder of a file, which can be handed to another process."""

    path: Path

    def __call__(self, sound: Sound) -> SpeechFeatures:
        """Return the features of `sound`."""
        return _loaded(self.path).encode(sound)


@lru_cache(1)
def _loaded(path: Path) -> SpeechEncoder:
    return load_speech_encoder(path)


def drawn_shard(folder: Path, first: int) -> Path:
    """Return the file of the drawn samples from number `first` on."""
    return folder / f"{first:06}.drawn.safetensors"


def draw_shards(config: DatasetConfig, folder: Path, firsts: list[int], encode: Encode, workers: int) -> None:
    """Draw the samples from the numbers `firsts` on that are not in `folder` yet; workers: 0 for this process."""
    missing = [first for first in firsts if not drawn_shard(folder, first).exists()]
    if not workers:
        for first in missing:
            draw_shard(config, folder, first, encode)
        return
    # A GPU cannot be used by a process that is forked from one that uses it.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for job in [pool.submit(draw_shard, config, folder, first, encode) for first in missing]:
            job.result()


def draw_shard(config: DatasetConfig, folder: Path, first: int, encode: Encode) -> None:
    """Draw the samples from number `first` on into their file, which appears when it is complete."""
    clips = range(first // config.chunks_per_clip, (first + SHARD) // config.chunks_per_clip)
    samples = [sample for clip in clips for sample in _draw_clip(config, config.first_seed + clip, encode)]
    path = drawn_shard(folder, first)
    part = path.with_suffix(".part")
    save_file({k: torch.stack([s[k] for s in samples]) for k in samples[0]}, part)
    part.replace(path)


def _draw_clip(config: DatasetConfig, seed: int, encode: Encode) -> list[dict[str, Tensor]]:
    """Return the samples of one clip: one character, one utterance, several chunks."""
    rng = random.Random(seed)
    utterance = speak(seed, config.seconds)
    video = speaking(articulate(utterance), seed, moving_camera=rng.random() >= config.still_share, size=config.size)
    features = encode_speech(encode, utterance.sound).voices[0]
    guide = _other_performance(video, seed) if config.guides else None
    starts = [_start(rng, video.length, config.chunk_frames) for _ in range(config.chunks_per_clip)]
    return [_draw_sample(config, video, features, start, rng, guide) for start in starts]


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


def _draw_sample(
    config: DatasetConfig,
    video: DrawnVideo,
    features: SpeechFeatures,
    start: int,
    rng: random.Random,
    guide: DrawnVideo | None,
) -> dict[str, Tensor]:
    """Return a sample before it is encoded. Pictures are uint8; `lasts` is gray where no policy has a last frame."""
    length = config.chunk_frames
    chunk = Chunk(0, start, length, 0, length)
    frames = video.frames(start, start + length)
    seed = rng.randrange(2**31)
    looks = [_reference(video, chunk, ReferenceSettings(policy, seed=seed)) for policy in config.policies]
    context = frames[:CONTEXT_FRAMES]
    parts = video.parts(start, start + len(context))
    return {
        "frames": _bytes(frames),
        "context": _bytes(drifted(context, parts, config.wear, rng)),
        "passes": torch.tensor(rng.randint(0, config.wear.passes)),
        "looks": _bytes(torch.stack([first for first, _ in looks])),
        "lasts": _bytes(torch.stack([first if last is None else last for first, last in looks])),
        "speech": speech_windows([features], start, length)[0].half(),
        "mouth": mouth_share(video, start, start + length).half(),
        "lively": torch.tensor(float(is_lively(video)), dtype=torch.float16),
        "guide": torch.zeros(0, dtype=torch.uint8) if guide is None else _bytes(guide.frames(start, start + length)),
    }


def _bytes(pixels: Tensor) -> Tensor:
    return (pixels * 255).round().to(torch.uint8)


def _reference(video: DrawnVideo, chunk: Chunk, settings: ReferenceSettings) -> tuple[Tensor, Tensor | None]:
    """Return the frame that `settings` chooses, and the chunk's last frame for the first-last baseline, else None.

    For the policy "previous output" (the I2V baseline) the frame is the last context frame of the chunk.
    """
    (choice,) = choose_references([chunk], settings, video.length)
    frame = min(chunk.start + 8, video.length - 1) if choice.previous else choice.frames[0]
    return video.frame(frame), None if choice.last is None else video.frame(choice.last)


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

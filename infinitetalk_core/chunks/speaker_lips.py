"""Lip sync of a chunk by speaker: each voice against the one real face in that speaker's area of the picture."""

from __future__ import annotations

from torch import Tensor

from ..audio.sound import Sound
from ..errors import InputError
from .conditioning import VAE_STRIDE
from .job import Job
from .lips import ChunkLips, SpeakerLips, measure_lips
from .plan import Chunk

_TOKEN = 2 * VAE_STRIDE  # pixels


def chunk_lips(job: Job, chunk: Chunk, frames: Tensor) -> ChunkLips:
    """Measure the new frames (F, H, W, 3) of a chunk of `job`; what cannot be measured has its reason."""
    voices, tracks = len(job.speech.voices), job.speech.tracks
    if voices == 1:
        return ChunkLips((_measured(frames, chunk, job.speech.sound, None),))
    if len(tracks) != voices:
        reason = f"the sound holds {voices} voices, and lips are measured against one"
        return ChunkLips((SpeakerLips(absent=reason),) * voices)
    areas = _own_areas(job)
    return ChunkLips(tuple(_measured(frames, chunk, *each) for each in zip(tracks, areas, strict=True)))


def _measured(frames: Tensor, chunk: Chunk, sound: Sound, area: Tensor | None) -> SpeakerLips:
    try:
        return SpeakerLips(measure_lips(frames, chunk.first, sound, area))
    except InputError as reason:
        return SpeakerLips(absent=str(reason))


def _own_areas(job: Job) -> Tensor:
    """Return what belongs to one speaker alone (speakers, H / 16, W / 16), 0 or 1, as the model sees it."""
    assert job.masks is not None  # there are several voices
    people = job.masks[:-1] > 0
    alone = people & (people.sum(0, keepdim=True) == 1)
    return alone.unflatten(1, (job.reference.height // _TOKEN, job.reference.width // _TOKEN))

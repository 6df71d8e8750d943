"""One job: check everything first, then make chunk after chunk into the file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.samplers
from comfy_api.latest import io
from torch import Tensor

from ...infinitetalk_core.chunks.conditioning import seeded_noise
from ...infinitetalk_core.chunks.dub import ColourHold, Job, Reference, dub
from ...infinitetalk_core.chunks.plan import plan_chunks
from ...infinitetalk_core.chunks.speaker_masks import speaker_masks, token_masks
from ...infinitetalk_core.errors import InputError
from ...infinitetalk_core.sampling.settings import SamplingSettings
from ...infinitetalk_core.speech import Speech
from ...infinitetalk_core.video.writer import VideoWriter
from .adapter import adapter_of, check_backbone
from .progress import JobProgress
from .studio import Studio, check_vae, no_text
from .video import finished_video, output_path, workflow_metadata

log = logging.getLogger("infinitetalk")


@dataclass(frozen=True)
class RunSettings:
    """What the sampler node asks for besides models, speech and reference."""

    sampling: SamplingSettings
    sampler: Any | None
    sigmas: Tensor | None
    seed: int
    chunk_frames: int
    context_frames: int
    colour: ColourHold
    filename_prefix: str
    crf: int


def run_dub(
    models: tuple[Any, Any, Any, Any, Any],
    speech: Speech,
    reference: Reference,
    settings: RunSettings,
    hidden: Any,
) -> io.NodeOutput:
    """Dub `reference` to `speech`. models: MODEL, VAE, CLIP vision, positive, negative (the last three or None)."""
    studio = _studio(models, settings)
    adapter_of(studio.model).config.check_features(*speech.voices[0].shape[1:])
    job = _job(speech, reference, settings)
    progress = JobProgress(studio.model, len(job.plan), len(studio.sigmas) - 1)
    path, subfolder = output_path(settings.filename_prefix, reference.width, reference.height)
    log.info(
        "InfiniteTalk: %d frames of %d x %d in %d chunks of %d steps to %s",
        speech.frames,
        reference.width,
        reference.height,
        len(job.plan),
        len(studio.sigmas) - 1,
        path.name,
    )
    writer = VideoWriter(
        path,
        reference.width,
        reference.height,
        speech.sound,
        crf=settings.crf,
        metadata=workflow_metadata(hidden),
    )
    progress.show(reference.picture(reference.frame(job.plan[0])))
    with writer:
        for finished in dub(job, studio, progress.after_step):
            writer.write(finished.frames)
            progress.show(finished.frames[-1])
    return finished_video(path, subfolder)


def _studio(models: tuple[Any, Any, Any, Any, Any], settings: RunSettings) -> Studio:
    model, vae, clip_vision, positive, negative = models
    check_backbone(model)
    adapter_of(model)
    check_vae(vae)
    sigmas = settings.sampling.sigmas if settings.sigmas is None else settings.sigmas.float().cpu()
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise InputError(
            f"the SIGMAS hold {sigmas.numel()} noise levels, and at least 2 are needed (one step); "
            "set denoise above 0 in the scheduler"
        )
    return Studio(
        model=model,
        vae=vae,
        clip_vision=clip_vision,
        positive=positive or no_text(model),
        negative=negative or no_text(model),
        guidance=settings.sampling.guidance,
        sampler=settings.sampler or comfy.samplers.sampler_object("euler"),
        sigmas=sigmas,
        seed=settings.seed,
    )


def _job(speech: Speech, reference: Reference, settings: RunSettings) -> Job:
    masks = None
    if len(speech.voices) > 1:
        source = (reference.source.height, reference.source.width)
        size = (reference.height, reference.width)
        masks = token_masks(speaker_masks(len(speech.voices), speech.areas, source, size))
    return Job(
        plan=plan_chunks(speech.frames, settings.chunk_frames, settings.context_frames),
        context_frames=settings.context_frames,
        speech=speech,
        reference=reference,
        masks=masks,
        # Seconds a chunk on the CPU, nothing on a GPU.
        colour=replace(settings.colour, device=comfy.model_management.get_torch_device()),
        noise=seeded_noise(settings.seed),
    )

"""One job: check everything first, then make chunk after chunk into the file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import comfy.model_management
import comfy.samplers
from comfy_api.latest import io
from torch import Tensor

from ...infinitetalk_core.chunks.camera import FilmedGuide
from ...infinitetalk_core.chunks.conditioning import seeded_noise
from ...infinitetalk_core.chunks.dub import ColourHold, Job, Reference
from ...infinitetalk_core.chunks.pinned import Pinned
from ...infinitetalk_core.chunks.speaker_masks import speaker_masks, token_masks
from ...infinitetalk_core.chunks.takes import Following, Take, parse_takes, take_seed
from ...infinitetalk_core.errors import InputError
from ...infinitetalk_core.identity import FileIdentities, run_key, sound_identity, tensor_identity
from ...infinitetalk_core.runs.runner import Run
from ...infinitetalk_core.runs.session import Switches, Wanted, sit
from ...infinitetalk_core.runs.steps import plan_steps
from ...infinitetalk_core.sampling.settings import SamplingSettings
from ...infinitetalk_core.speech import Speech
from ...infinitetalk_core.video.format import VideoFormat
from .adapter import adapter_of, check_backbone
from .audio import give_up_voices
from .identity import Graph, precision, versions
from .leftovers import note_leftovers
from .progress import JobProgress
from .reference import plan_of
from .step_cache import check_single, step_caching_of
from .studio import Studio, check_vae, no_text
from .uni3c import KEY as CAMERA_KEY
from .uni3c import CameraControl
from .video import RUNS_FOLDER, finished_video, output_folder, output_path, workflow_metadata

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
    seam_fade: int
    strengths: tuple[float, ...]
    pinned: Pinned | None
    camera: CameraControl | None
    filename_prefix: str
    crf: int
    redo: str = ""
    following: Following = Following.CONTINUE
    switches: Switches = field(default_factory=Switches)
    video_format: VideoFormat | None = None

    @property
    def form(self) -> VideoFormat:
        """How the video is encoded: as the Video Format node says, else H.264 with `crf`."""
        return self.video_format or VideoFormat(crf=self.crf)


def run_dub(
    models: tuple[Any, Any, Any, Any, Any],
    speech: Speech,
    reference: Reference,
    settings: RunSettings,
    hidden: Any,
    files: FileIdentities | None = None,
) -> io.NodeOutput:
    """Dub `reference` to `speech`. models: MODEL, VAE, CLIP vision, positive, negative (the last three or None).

    files: what is known of files from earlier runs.
    """
    settings.form.check(reference.height, reference.width)
    note_leftovers()
    job = _job(speech, reference, settings)
    takes = parse_takes(settings.redo, len(job.plan), reference.source.length)
    studio = _studio(models, settings, takes)
    adapter_of(studio.model).config.check_features(*speech.voices[0].shape[1:])
    progress = JobProgress(studio.model, len(job.plan), len(studio.sigmas) - 1)
    made_of = described(job, studio, settings, Graph(hidden, files or FileIdentities()))
    key = run_key(made_of)
    steps = plan_steps(job.plan, takes, settings.following)
    log.info(
        "InfiniteTalk: %d frames of %d x %d in %d chunks of %d steps",
        speech.frames,
        reference.width,
        reference.height,
        len(job.plan),
        len(studio.sigmas) - 1,
    )
    progress.show(reference.picture(job.picks[0].frames[0]))
    wanted = Wanted(
        made_of=made_of,
        place=settings.filename_prefix,
        root=output_folder(),
        new_path=partial(output_path, settings.filename_prefix, reference.width, reference.height),
        metadata=workflow_metadata(hidden),
        sound=speech.sound,
        report=partial(run_report, job, settings, f"{RUNS_FOLDER}/{key}"),
    )
    switches = replace(settings.switches, keep=settings.switches.keep or bool(takes))
    outcome = sit(
        output_folder() / RUNS_FOLDER / key,
        wanted,
        lambda store: Run(job, steps, studio, store, settings.form),
        progress,
        switches,
    )
    if not switches.keep:
        give_up_voices(speech)
    return finished_video(outcome.path, outcome.report)


def run_report(
    job: Job, settings: RunSettings, run: str, chunks: list[dict[str, Any]], complete: bool, continued_at: int
) -> str:
    """What was made and how well it holds together, as JSON.

    run: the run's folder in ComfyUI's output; continued_at: the first chunk (from 0) made now.
    """
    reference, sampling = job.reference, settings.sampling
    return json.dumps(
        {
            "frames": job.speech.frames,
            "complete": complete,
            "run": run,
            "width": reference.width,
            "height": reference.height,
            "seed": settings.seed,
            "chunk_frames": settings.chunk_frames,
            "context_frames": settings.context_frames,
            "policy": reference.picking.policy.value,
            "text_scale": sampling.text_scale,
            "audio_scale": sampling.audio_scale,
            "sdedit": settings.strengths,
            "pinned": settings.pinned is not None,
            "camera": None if settings.camera is None else settings.camera.strength,
            "seam_fade": settings.seam_fade,
            "redo": settings.redo,
            "video_format": settings.form.to_json(),
            "continued_at_chunk": continued_at + 1 if continued_at else None,
            "chunks": chunks,
        },
        indent=1,
    )


def described(job: Job, studio: Studio, settings: RunSettings, graph: Graph) -> dict[str, Any]:
    """Everything that changes the video, as JSON: what a run is known by."""
    reference, pinned, camera = job.reference, settings.pinned, settings.camera
    caching = step_caching_of(studio.model)
    return {
        "versions": versions(),
        "precision": precision(studio.model, studio.vae),
        "plan": [list(vars(chunk).values()) for chunk in job.plan],
        "picks": [[list(pick.frames), pick.last, pick.previous] for pick in job.picks],
        "picking": [reference.picking.policy.value, reference.picking.after_end.value, reference.picking.control],
        "size": [reference.height, reference.width],
        "context_frames": settings.context_frames,
        "source": reference.source.identity(),
        "sound": [sound_identity(job.speech.sound.waveform), job.speech.sound.sample_rate_hz],
        "speakers": None if job.masks is None else tensor_identity(job.masks),
        "pinned": None if pinned is None else [tensor_identity(pinned.masks), pinned.feather],
        "camera": None if camera is None else [camera.strength, camera.start, camera.end],
        "guidance": asdict(settings.sampling.guidance),
        "sigmas": studio.sigmas.tolist(),
        "step_cache": None if caching is None else asdict(caching),
        "seed": settings.seed,
        "colour": [job.colour.strength, job.colour.to_first, job.colour.over],
        "seam_fade": job.seam_fade,
        "sdedit": list(settings.strengths),
        "format": settings.form.to_json(),
        # How the speech was encoded, too: features may differ in their last bits from one time to the next.
        "graph": graph.behind("model", "vae", "clip_vision", "positive", "negative", "speech", "sampler", "camera"),
    }


def _studio(models: tuple[Any, Any, Any, Any, Any], settings: RunSettings, takes: Mapping[int, Take]) -> Studio:
    model, vae, clip_vision, positive, negative = models
    backbone = check_backbone(model)
    adapter_of(model)
    check_vae(vae)
    check_guidance(model)
    if step_caching_of(model) is not None:
        check_single("positive", positive or [])
        check_single("negative", negative or [])
    if settings.camera is not None:
        settings.camera.check(backbone.dim)
        # Loaded by ComfyUI together with the MODEL.
        model = model.clone()
        model.set_additional_models(CAMERA_KEY, [settings.camera.uni3c])
    sigmas = settings.sampling.sigmas
    if settings.sigmas is not None:
        sigmas = check_sigmas(settings.sigmas.float().cpu(), from_source=bool(settings.strengths))
    return Studio(
        model=model,
        vae=vae,
        clip_vision=clip_vision,
        positive=positive or no_text(model),
        negative=negative or no_text(model),
        guidance=settings.sampling.guidance,
        sampler=settings.sampler or comfy.samplers.sampler_object("euler"),
        sigmas=sigmas,
        seed_of=lambda chunk: take_seed(settings.seed, takes.get(chunk.index)) + chunk.index,
        camera=settings.camera,
    )


def check_sigmas(sigmas: Tensor, from_source: bool) -> Tensor:
    """`sigmas` if a chunk can be made with them; from_source: SDEdit chooses where they begin."""
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise InputError(
            f"the SIGMAS hold {sigmas.numel()} noise levels, and at least 2 are needed (one step); "
            "set denoise above 0 in the scheduler"
        )
    if sigmas[-1] > 1e-3 or (sigmas[1:] > sigmas[:-1]).any():
        raise InputError(f"the SIGMAS must fall and end at 0, these end at {sigmas[-1]:g}; connect a whole schedule")
    if sigmas[0] < 0.98 and not from_source:
        raise InputError(
            f"the SIGMAS start at {sigmas[0]:g} and not at 1; to start from the source connect SDEdit Strength instead"
        )
    return sigmas


def check_guidance(model: Any) -> None:
    """Refuse a MODEL on which another node has put a guidance rule of its own."""
    for name in ("sampler_cfg_function", "sampler_pre_cfg_function"):
        if model.model_options.get(name):
            raise InputError(
                "another node has changed the guidance of this MODEL (such as RescaleCFG), which InfiniteTalk's own "
                "guidance by text and speech would replace; take that node out"
            )


def _job(speech: Speech, reference: Reference, settings: RunSettings) -> Job:
    masks = None
    if len(speech.voices) > 1:
        source = (reference.source.height, reference.source.width)
        size = (reference.height, reference.width)
        masks = token_masks(speaker_masks(len(speech.voices), speech.areas, source, size))
    plan, picks = plan_of(reference, speech.frames, settings.chunk_frames, settings.context_frames)
    if settings.pinned is not None:
        settings.pinned.check((reference.source.height, reference.source.width), reference.source.length)
    guide = None
    if settings.camera is not None:
        guide = settings.camera.guide or FilmedGuide(reference.source, reference.picking.after_end)
    return Job(
        plan=plan,
        picks=picks,
        context_frames=settings.context_frames,
        speech=speech,
        reference=reference,
        masks=masks,
        # Seconds a chunk on the CPU, nothing on a GPU.
        colour=replace(settings.colour, device=comfy.model_management.get_torch_device()),
        noise=seeded_noise(settings.seed),
        strengths=settings.strengths,
        pinned=settings.pinned,
        camera=guide,
        seam_fade=settings.seam_fade,
    )

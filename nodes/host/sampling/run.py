"""Runs one job: checks everything first, then generates chunk after chunk into the file."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import comfy.model_management
from comfy_api.latest import io

from ....infinitetalk_core.chunks.face_points import dlib_version
from ....infinitetalk_core.chunks.job import Components, Job, check_sigmas
from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.fingerprint import Component, FileFingerprints, key_of
from ....infinitetalk_core.log import log
from ....infinitetalk_core.runs.readable_report import stopped_in_words
from ....infinitetalk_core.runs.runner import Run
from ....infinitetalk_core.runs.session import OutputSpec, RunOptions, execute_run
from ....infinitetalk_core.runs.store import RunStore
from ....infinitetalk_core.wording import counted
from ..media.audio import remove_cached_features
from ..media.video import RUNS_FOLDER, finished_video, output_folder, output_path, player, workflow_metadata
from ..messages import say, show_on_node
from ..model.attention import AttentionFallback
from ..model.audio_adapter import adapter_of, adapter_patcher
from ..model.backbone import check_backbone, no_text
from ..model.cached_blocks import step_caching_of
from ..model.environment import precision, versions
from ..model.foreign_caches import caches_by_branch, check_step_caches
from ..model.loaded_files import LoadedFiles
from ..model.patchers import compute_dtype, on_device_of
from ..model.shared_models import SharedModels, fingerprint_of
from ..model.uni3c import KEY as CAMERA_KEY
from ..model.uni3c import check_camera, narrowed_uni3c
from .backend import ComfyBackend, check_vae
from .finished_videos import FinishedVideos
from .graph_fingerprint import Graph
from .progress import JobProgress
from .samplers import own_sampler
from .unfinished_runs import log_unfinished_runs
from .watching import Place, RunWatch, WatchedRun, current_client

# The attribute of each component that holds its weights.
WEIGHTS = {"model": "model", "vae": "first_stage_model", "clip_vision": "model"}
TEXTS = ("positive", "negative")


def components_of(hidden: Any, shared: SharedModels | None, model: Any, vae: Any, **others: Any) -> Components:
    """Return the `Components` of a job: the objects connected to a node, each with its fingerprint.

    hidden: the node's hidden inputs. shared: the cache of models and file fingerprints. others: the optional fields of
    `Components`. Raises InputError for an unsupported MODEL or VAE, and where the file of a loaded model has changed.
    """
    check_backbone(model)
    adapter = adapter_patcher(model)
    check_guidance(model)
    check_vae(vae)
    files, loaded = (shared.files, shared.loaded) if shared else (FileFingerprints(), LoadedFiles())
    graph = Graph(hidden, files)
    found: dict[str, Component] = {}
    for name, value in {"model": model, "vae": vae, **others}.items():
        if value is None:
            continue
        upstream = graph.content(name, value) if name in TEXTS else graph.upstream_of(name)
        if name in WEIGHTS:
            loaded.check(getattr(value, WEIGHTS[name], None), upstream.files)
        if upstream.unknown and hidden is not None:
            say(f"this job cannot be continued later, and is made anew each time: its {name}, since {upstream.unknown}")
        found[name] = Component(value, upstream.fingerprint)
    weights = {"graph": found["model"].fingerprint, "infinitetalk": fingerprint_of(adapter)}
    return Components(**{**found, "model": Component(model, weights)})


def run_job(
    job: Job, hidden: Any, videos: FinishedVideos | None = None, watch: RunWatch | None = None
) -> io.NodeOutput:
    """Generate the video of `job`, or continue it where it stopped.

    hidden: the node's hidden inputs. videos: notes the finished video. watch: shows the run to open pages.
    """
    with (watch or RunWatch()).watching(Place.of(hidden, current_client())) as watched:
        return _run_watched(job, hidden, videos, watched)


def _run_watched(job: Job, hidden: Any, videos: FinishedVideos | None, watched: WatchedRun) -> io.NodeOutput:
    log_unfinished_runs()
    job = with_host_settings(job)
    job.check()
    backend = _backend(job)
    adapter_of(backend.model).config.check_features(*job.speech.voices[0].shape[1:])
    description = job.description()
    key_contents = {
        **description,
        "versions": {**versions(backend.model), **({"dlib": dlib_version()} if job.sampling.retry_lips else {})},
        "precision": precision(backend.model, backend.vae),
    }
    key = key_of(key_contents)
    reference, steps = job.reference, len(backend.sigmas) - 1
    progress = JobProgress(backend.model, 1 if job.first_chunk_only else len(job.plan), steps, watched)
    log.info("%s", plan_in_words(job, steps))
    progress.show(reference.picture(job.plan[0].choice.frames[0]))
    output = job.output
    output_spec = OutputSpec(
        key_contents=key_contents,
        filename_prefix=output.filename_prefix,
        root=output_folder(),
        new_path=partial(output_path, output.filename_prefix, reference.width, reference.height),
        metadata=workflow_metadata(hidden),
        sound=job.speech.sound,
        # Built without a reference to the job, which would keep its models alive.
        report=partial(run_report, report_settings(job, f"{RUNS_FOLDER}/{key}", description["job"]["sampling"])),
        readable=True,
    )
    options = RunOptions(output.start_over, output.keep_intermediates or bool(job.overrides))
    folder = output_folder() / RUNS_FOLDER / key
    runs: list[Run] = []

    def run_in(store: RunStore) -> Run:
        keep_fallback(backend.fallback, store)
        runs.append(Run(job, backend, store))
        watched.begin(runs[0])
        return runs[0]

    try:
        outcome = execute_run(folder, output_spec, run_in, progress, options)
    except BaseException as error:  # an interrupt of ComfyUI 0.33 is no Exception
        if runs:
            kept = runs[0].store.manifest.get("interrupted", [])[progress.unfinished_before :]
            video = kept[-1]["video"] if kept else None
            watched.stop(video)
            tell_what_is_kept(runs[0], video, hidden, error)
        raise
    watched.finish(outcome.path, outcome.report)
    if outcome.whole and not options.keep:
        remove_cached_features(job.speech)
    if videos is not None:
        videos.add(outcome.path)
    words = progress.end_in_words(outcome)
    say(words)
    return finished_video(outcome.path, outcome.report, words)


def plan_in_words(job: Job, steps: int) -> str:
    """Return what is to be made, for example `123 frames of 640 x 640 in 2 chunks of 8 steps`."""
    reference = job.reference
    only = ", of which only the first is made now" if job.first_chunk_only else ""
    return (
        f"{counted(job.speech.frames, 'frame')} of {reference.width} x {reference.height} in "
        f"{counted(len(job.plan), 'chunk')} of {counted(steps, 'step')}{only}"
    )


def tell_what_is_kept(run: Run, video: str | None, hidden: Any, error: BaseException) -> None:
    """Say on the node how much of a stopped run is finished, and play it there.

    video: the unfinished video that this execution has kept, relative to the output folder; None: none.
    """
    interrupted = isinstance(error, comfy.model_management.InterruptProcessingException)
    words = stopped_in_words(run.chunks_kept, len(run.whole), not interrupted)
    say(words)
    path = None if video is None else output_folder() / video
    if path is not None and path.is_file():
        show_on_node(player(path, words), getattr(hidden, "dynprompt", None))


def keep_fallback(fallback: AttentionFallback, store: RunStore) -> None:
    """Continue with the attention that earlier executions of the run ended with, and store what this one finds."""
    first = store.manifest.get("plain_attention_from")
    if first is not None:
        fallback.first = first - 1
        log.info("PyTorch's own attention makes the chunks from %d on, as in the run so far", first)
    fallback.stored = lambda index: store.describe(plain_attention_from=index + 1)


def run_report(about: dict[str, Any], chunks: list[dict[str, Any]], complete: bool, continued_at: int) -> str:
    """Return the report of a run as JSON.

    about: the video and the settings. chunks: the metrics of each chunk. continued_at: the first chunk
    (from 0) that was generated in this session.
    """
    made = {
        "complete": complete,
        "continued_at_chunk": continued_at + 1 if continued_at else None,
        "chunks": chunks,
    }
    return json.dumps({**about, **made}, indent=1)


def report_settings(job: Job, run: str, sampling: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a job for its report.

    run: its folder in ComfyUI's output. sampling: the description of the sampling settings, as in the job's key.
    """
    reference = job.reference
    return {
        "frames": job.speech.frames,
        "chunks_planned": len(job.plan),
        "first_chunk_only": job.first_chunk_only,
        "run": run,
        "width": reference.width,
        "height": reference.height,
        "policy": reference.settings.policy.value,
        **{name: value for name, value in sampling.items() if name != "type"},
        "redo_chunks": job.redo.chunks,
        "video_format": job.output.format.to_json(),
    }


def with_host_settings(job: Job) -> Job:
    """Return `job` with the step cache settings of its MODEL, and with the GPU as the device of its color matching.

    Color matching takes no time there. With a SAMPLER and no SIGMAS its noise levels are evenly spaced ones. A preset
    for a model that was trained on other lengths sets them where the inputs have their defaults.
    """
    components, sampling = job.components, job.sampling.with_lengths_of_model()
    if sampling.chunk_frames != job.sampling.chunk_frames or sampling.context_frames != job.sampling.context_frames:
        say(
            f"the preset makes chunks of {sampling.chunk_frames} frames with {sampling.context_frames} of context, on "
            "which its model was trained; set chunk_frames or context_frames to another number than the default to "
            "choose it yourself"
        )
    assert components is not None
    if components.sampler is not None and sampling.sigmas is None:
        sampling = replace(sampling, sigmas=sampling.settings.even_sigmas)
    sampling = replace(
        sampling,
        color=replace(sampling.color, device=comfy.model_management.get_torch_device()),
        step_cache=step_caching_of(components.model.value),
    )
    return replace(job, sampling=sampling)


def _backend(job: Job) -> ComfyBackend:
    components, sampling = job.components, job.sampling
    assert components is not None
    model = components.model.value
    conditionings = {name: _value(getattr(components, name)) for name in TEXTS}
    for cache in caches_by_branch(model):
        for name, conditioning in conditionings.items():
            check_single_part(name, conditioning or [], cache)
    if sampling.camera is not None:
        check_camera(sampling.camera, check_backbone(model).dim)
        # As an additional model, ComfyUI loads it together with the MODEL.
        model = model.clone()
        uni3c = narrowed_uni3c(sampling.camera.controlnet.value, compute_dtype(model))
        model.set_additional_models(CAMERA_KEY, [on_device_of(model, uni3c)])
    sigmas = sampling.schedule
    if sampling.sigmas is not None:
        sigmas = check_sigmas(sampling.sigmas, from_source=bool(sampling.sdedit))
    check_step_caches(model, sampling.guidance, len(sigmas) - 1)
    return ComfyBackend(
        model=model,
        vae=components.vae.value,
        clip_vision=_value(components.clip_vision),
        positive=conditionings["positive"] or no_text(model),
        negative=conditionings["negative"] or no_text(model),
        guidance=sampling.guidance,
        sampler=_value(components.sampler) or own_sampler(sampling.settings),
        sigmas=sigmas,
        camera=sampling.camera,
    )


def _value(component: Component | None) -> Any:
    return None if component is None else component.value


def check_guidance(model: Any) -> None:
    """Raise InputError for a MODEL on which another node has set a guidance function."""
    for name in ("sampler_cfg_function", "sampler_pre_cfg_function"):
        if model.model_options.get(name):
            raise InputError(
                "another node has changed the guidance of this MODEL (such as RescaleCFG), which InfiniteTalk's own "
                "guidance by text and speech would replace; take that node out"
            )


def check_single_part(name: str, conditioning: list, cache: str) -> None:
    """Raise InputError for a conditioning of several parts, since a step cache has one residual per branch.

    cache: the name of the step cache.
    """
    if len(conditioning) > 1:
        raise InputError(
            f"the {name} text is made of {len(conditioning)} parts (Conditioning Combine or time ranges), and the step "
            f"cache knows one; connect a single text or take {cache} out"
        )

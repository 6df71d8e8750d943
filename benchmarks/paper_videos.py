"""Make one row of the table: run the engine on drawn people with known ground truth, and measure the video."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.camera_motion import camera_error, measure_camera
from evaluation.copying import copying
from evaluation.drift import DriftCurve, drift, drift_curve, still_pixels
from evaluation.sync import correlation, mouth_opening, shuffled, sync
from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.audio.voice import SAMPLE_RATE_HZ
from infinitetalk_core.chunks.camera_control import CameraControl, FilmedGuide
from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.job import ColorHold, Job, Reference, Sampling
from infinitetalk_core.chunks.metrics import ChunkMetrics, measure
from infinitetalk_core.chunks.plan import Chunk
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.fingerprint import Component
from infinitetalk_core.model.precision import fast_dtype
from infinitetalk_core.model.vae import WanVae, fast, load_vae
from infinitetalk_core.rate import FRAMES_PER_SECOND
from infinitetalk_core.sampling.settings import SamplingSettings
from infinitetalk_core.sampling.step_cache import StepCaching
from infinitetalk_core.speech import Encode, Speech, encode_speech
from infinitetalk_core.standalone import TorchBackend
from infinitetalk_core.video.source import PictureBatch
from training import small_models
from training.articulation import Articulation, articulate, articulate_sound
from training.captions import caption_tokens
from training.drawn_video import DrawnVideo, listening, speaking
from training.sentences import unseen_sentence
from training.voices import Utterance, join, on_whole_frames, silence, speak

from .paper_conditions import CHUNK_FRAMES, CODEC, SHIFT, Condition

SOURCE_SPEECH_OFFSET = 500_000  # seed offset of the speech in the source
SHUFFLES = 5
LAST_CHUNKS = 4  # the drift at the end of a video is the mean over its last 4 chunks
# The numbers of a Drift in rows. Those of rows before regions were compared are called color and identity.
DRIFTS = {"color": "worst_color", "overall": "overall_color", "background": "background"}
_SIDE_AREAS = (0.18, 0.55)  # shares of width and height that always show background
WEIGHTS = (small_models.DIFFUSION, small_models.INFINITETALK, small_models.VAE, small_models.SPEECH)

Numbers = dict[str, float | None]
Curve = NDArray[np.floating]


@dataclass(frozen=True)
class Scene:
    """The inputs of a run and their ground truth; F frames."""

    source: Tensor  # (F, H, W, 3); (1, H, W, 3) for a portrait
    source_opening: Curve  # (F,): the mouth opening in the source
    speech: Speech
    truth: Curve  # (F,): the mouth opening for the voice, from its phonemes if they are known
    loudness_truth: Curve  # (F,): the same estimated from loudness, for any voice


@dataclass(frozen=True)
class Video:
    """A generated video."""

    frames: Tensor  # (F, H, W, 3)
    chunks: list[ChunkMetrics]
    reference_frames: list[int | None]  # the reference of each chunk, None: no source frame


@lru_cache(maxsize=1)
def load_vae_and_speech_encoder(models: Path) -> tuple[WanVae, Encode]:
    """Load the VAE and the speech encoder, once per process."""
    encoder = load_speech_encoder(models / small_models.SPEECH)
    return fast(load_vae(models / small_models.VAE)), partial(encoder.encode, leveled=True)


def fingerprint(models: Path) -> str:
    """Return a fingerprint of the models; only rows with the same one are compared."""
    digest = hashlib.sha256()
    files = [models / name for name in (*WEIGHTS, small_models.UNI3C)]
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def utterance_of(voice: str, seed: int, seconds: float) -> Utterance:
    """Return unseen speech by `voice` (see Condition) of at least `seconds`. Only espeak-ng gives phonemes."""
    if not voice:
        return speak(seed, seconds, unseen=True)
    if voice.startswith("flite "):
        return _flite(voice.removeprefix("flite "), seed, seconds)
    return on_whole_frames(Utterance(_recording(voice), ()))


def _flite(voice: str, seed: int, seconds: float) -> Utterance:
    """Return speech of flite, which must be on the PATH."""
    program = shutil.which("flite")
    if program is None:
        raise FileNotFoundError("flite is not installed")
    parts = [silence(0.3)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        number = 0
        while sum(part.sound.seconds for part in parts) < seconds:
            text = unseen_sentence(seed * 1000 + number)
            subprocess.run([program, "-voice", voice, "-t", text, "-o", str(file)], check=True, capture_output=True)
            parts += [Utterance(_recording(str(file)), ()), silence(0.3)]
            number += 1
    return on_whole_frames(join(parts))


def _recording(file: str) -> Sound:
    """Read a sound file as mono, 16 kHz."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
    with av.open(file) as container:
        pieces = [p.to_ndarray() for frame in container.decode(audio=0) for p in resampler.resample(frame)]
        pieces += [p.to_ndarray() for p in resampler.resample(None)]
    return Sound(torch.from_numpy(np.concatenate(pieces, axis=1)), SAMPLE_RATE_HZ)


def make_scene(condition: Condition, seed: int, encode: Encode) -> Scene:
    """Make the source, in which the character `seed` speaks other words, and the speech to dub it with."""
    frames = condition.frames
    utterance = utterance_of(condition.voice, seed, frames / FRAMES_PER_SECOND + 0.1)
    if utterance.sound.frames < frames:
        raise ValueError(f"the voice {condition.voice!r} lasts {utterance.sound.frames} frames, {frames} are needed")
    estimate = articulate_sound(utterance.sound).opening[:frames]
    truth = articulate(utterance).opening[:frames] if utterance.phonemes and not condition.voice else estimate
    source, mouth = _source(condition, seed)
    return Scene(source, mouth, encode_speech(encode, utterance.sound), truth, estimate)


def _source(condition: Condition, seed: int) -> tuple[Tensor, Curve]:
    """Return the source (F, H, W, 3) and its mouth opening (F,)."""
    frames = condition.frames
    if condition.portrait:
        return listening(1, seed, moving_camera=False).frames(0, 1), np.zeros(frames, np.float32)
    speech = articulate(utterance_of("", seed + SOURCE_SPEECH_OFFSET, frames / FRAMES_PER_SECOND + 0.1))
    cut = Articulation(speech.opening[:frames], speech.width[:frames], speech.energy[:frames])
    video: DrawnVideo = speaking(cut, seed, moving_camera=condition.moving_camera)
    return video.frames(0, frames), cut.opening


def make_job(condition: Condition, scene: Scene, seed: int) -> Job:
    """Return the job as the nodes build it."""
    settings = ReferenceSettings(condition.policy, seed=seed)
    source = PictureBatch(scene.source)
    # The voice is longer than the whole chunks.
    sound = scene.speech.sound
    samples = condition.frames * sound.sample_rate_hz // FRAMES_PER_SECOND
    camera = CameraControl(Component(None, "Uni3C"), FilmedGuide(source)) if condition.uni3c else None
    return Job(
        speech=replace(scene.speech, sound=Sound(sound.waveform[:, :samples], sound.sample_rate_hz)),
        reference=Reference(source, source.height, source.width, settings),
        sampling=Sampling(
            seed=seed,
            chunk_frames=CHUNK_FRAMES,
            context_frames=condition.context,
            color=ColorHold(condition.color_hold, over=condition.color_over),
            seam_fade=condition.seam_fade,
            sdedit=(condition.sdedit,) if condition.sdedit < 1 else (),
            camera=camera,
        ),
    )


def make_backend(condition: Condition, job: Job, models: Path, variant: Path) -> TorchBackend:
    """Return `models` with backbone and adapter from `variant`, which is the same folder for the shipped model."""
    vae, _ = load_vae_and_speech_encoder(models)
    camera = job.sampling.camera
    if camera is not None:
        camera = replace(camera, controlnet=Component(small_models.load_uni3c(models), "Uni3C"))
    sampling = replace(
        job.sampling,
        settings=SamplingSettings(
            condition.steps,
            condition.text,
            condition.audio,
            SHIFT,
            guidance_start=condition.guided[0],
            guidance_end=condition.guided[1],
        ),
        step_cache=StepCaching(condition.step_cache) if condition.step_cache else None,
        camera=camera,
    )
    return TorchBackend(
        small_models.load_model(variant),
        vae,
        sampling,
        prompt=condition.words,
        encode_text=text_of_words,
        autocast=None if fast_dtype() is torch.float32 else fast_dtype(),
    )


def text_of_words(words: str) -> Tensor:
    """Return the text embeddings (1, M, text_dim) of the small models."""
    return caption_tokens(words)[None]


def make_video(job: Job, models: TorchBackend) -> Video:
    """Run the job and collect its frames, chunk metrics and reference frames."""
    frames: list[Tensor] = []
    chunks: list[ChunkMetrics] = []
    reference_frames: list[int | None] = []
    for finished in dub(job, models):
        chunks.append(measure(job, finished, frames[-1][-1] if frames else None))
        frames.append(finished.frames)
        # If there are two references, the last one, whose time lies in the chunk's new frames.
        reference_frames.append(finished.reference_frames[-1] if finished.reference_frames else None)
    return Video(torch.cat(frames), chunks, reference_frames)


def make_row(condition: Condition, seed: int, models: Path, variant: Path) -> tuple[Numbers, dict[str, list[float]]]:
    """Return the numbers of one run, and curves chunk by chunk."""
    vae, encode = load_vae_and_speech_encoder(models)
    if condition.voice == CODEC:
        return codec_numbers(condition, seed, vae), {}
    scene = make_scene(condition, seed, encode)
    job = make_job(condition, scene, seed)
    video = make_video(job, make_backend(condition, job, models, variant))
    numbers = {**mouth_numbers(video.frames, scene), **chunk_numbers(video, condition)}
    if condition.portrait:
        return numbers, {}
    more, curves = source_numbers(condition, video, scene)
    return {**numbers, **more}, curves


def mouth_numbers(frames: Tensor, scene: Scene) -> Numbers:
    """Measure how well the mouth follows the voice, other voices, and the speech of the source."""
    opening = mouth_opening(frames)
    found = sync(opening, scene.truth)
    others = [correlation(opening, shuffled(scene.truth, seed)) for seed in range(SHUFFLES)]
    return {
        "sync": found.correlation,
        "lag": float(found.lag),
        "best": found.best,
        "shuffled": fmean(others),
        "sync_sound": correlation(opening, scene.loudness_truth),
        "mouth_copied": partial_correlation(opening, scene.source_opening, scene.truth),
    }


def partial_correlation(opening: Curve, source: Curve, voice: Curve) -> float:
    """Return the partial correlation of a mouth with the source's mouth, given the voice.

    Two voices sometimes pause at the same time, so even a perfect dub correlates a little with the source's mouth.
    """
    with_source, with_voice = correlation(opening, source), correlation(opening, voice)
    both = correlation(source, voice)
    return (with_source - with_voice * both) / math.sqrt(max((1 - with_voice**2) * (1 - both**2), 1e-3))


def chunk_numbers(video: Video, condition: Condition) -> Numbers:
    """Measure seams, sharpness, and the mean difference between neighboring frames (0 … 255)."""
    steps = (video.frames[1:] - video.frames[:-1]).abs().mean((1, 2, 3))
    seams = [chunk.seam for chunk in video.chunks if chunk.seam is not None]
    return {
        "seam": fmean(seams) if seams else None,
        "seam_worst": max(seams) if seams else None,
        "seam_latent": seam_among_latents(steps, condition.plan) if seams else None,
        "sharpness": fmean(chunk.sharpness for chunk in video.chunks),
        "motion": 255 * steps.mean().item(),
    }


def seam_among_latents(steps: Tensor, plan: Sequence[Chunk]) -> float:
    """Return the mean step at a seam divided by the mean step from one latent frame to the next within the chunks.

    steps: (F − 1,) mean differences of neighboring frames. The VAE makes 4 frames of a latent frame, and the step
    between two such groups is larger than those inside them. A seam always lies between two groups.
    """
    joins = [chunk.start + chunk.context for chunk in plan[1:]]
    inside = [
        chunk.start + i for chunk in plan for i in range(chunk.context + (4 if chunk.context else 1), chunk.length, 4)
    ]
    return fmean(steps[i - 1].item() for i in joins) / fmean(steps[i - 1].item() for i in inside)


def source_numbers(condition: Condition, video: Video, scene: Scene) -> tuple[Numbers, dict[str, list[float]]]:
    """Measure drift, camera error and copying by comparison with the source frames of the same time."""
    background = side_areas(scene.source) if condition.moving_camera else still_pixels(scene.source)
    curve = drift_curve(video.frames, scene.source, condition.plan, background)
    numbers = drift_numbers(curve)
    numbers["background_difference"] = curve.mean("background_difference")
    if condition.moving_camera:
        error = camera_error(measure_camera(video.frames), measure_camera(scene.source))
        numbers |= {"camera_shift": error.shift, "camera_scale": error.scale}
    if condition.policy is not Policy.PREVIOUS_OUTPUT:  # its references are not source frames
        mouths = (scene.truth, scene.source_opening)
        copied = copying(video.frames, scene.source, condition.plan, video.reference_frames, mouths)
        numbers |= {"pose_own_time": copied.own_time, "pose_copied": copied.copied}
    curves = {name: [getattr(chunk, kind) for chunk in curve.chunks] for kind, name in DRIFTS.items()}
    return numbers, {name: values for name, values in curves.items() if None not in values}


def drift_numbers(curve: DriftCurve) -> Numbers:
    """Return for color of the worst region and of all, and background: mean, mean at the end, change a chunk."""
    numbers: Numbers = {}
    for kind, name in DRIFTS.items():
        last = DriftCurve(curve.chunks[-LAST_CHUNKS:])
        numbers |= {
            f"{name}_mean": curve.mean(kind),
            f"{name}_end": last.mean(kind),
            f"{name}_slope": curve.slope(kind),
        }
    return numbers


def side_areas(source: Tensor) -> Tensor:
    """Return the mask (H, W) of the areas left and right of a person, where a moving camera shows background."""
    height, width = source.shape[1:3]
    aside, down = round(_SIDE_AREAS[0] * width), round(_SIDE_AREAS[1] * height)
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[:down, :aside] = True
    mask[:down, -aside:] = True
    return mask


def codec_numbers(condition: Condition, seed: int, vae: WanVae) -> Numbers:
    """Encode and decode a speaking person by the VAE, chunk by chunk; the camera moves for every other seed."""
    speech = articulate(utterance_of("", seed, condition.frames / FRAMES_PER_SECOND + 0.1))
    video = speaking(speech, seed, moving_camera=bool(seed % 2))
    frames = torch.cat([video.frames(c.start, c.start + c.length) for c in condition.plan])
    again = torch.cat([vae.decode(vae.encode(part[None]))[0] for part in frames.split(condition.plan[0].length)])
    opening = np.concatenate([speech.opening[c.start : c.start + c.length] for c in condition.plan])
    return {
        "psnr": psnr(again, frames),
        "sync": correlation(mouth_opening(again), opening),
        "worst_color_mean": drift(again, frames).color,
    }


def psnr(made: Tensor, wanted: Tensor) -> float:
    """Return the PSNR of frames in [0, 1], in dB."""
    return -10 * math.log10(max((made - wanted).square().mean().item(), 1e-10))

"""Define the conditions of the paper's table as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from infinitetalk_core.chunks.color import COLOR_HOLD_FRAMES
from infinitetalk_core.chunks.plan import Chunk, plan_chunks
from infinitetalk_core.chunks.reference import Policy
from infinitetalk_core.chunks.seam import SEAM_FADE
from training.captions import LIVELY

CHUNK_FRAMES = 33
SHIFT = 3.0  # of the noise schedule, as in training
UNSEEN = 1_000_000  # first seed of the characters, voices and sentences that are never trained on
LONG = 20  # chunks: about 20 s
CODEC = "codec"  # the voice of rows that encode and decode by the VAE only

# The paper's names of the strategies, and the baselines.
STRATEGIES = {
    "I2V": Policy.PREVIOUS_OUTPUT,
    "FL2V": Policy.FIRST_LAST,
    "M0": Policy.SAME_CHUNK,
    "M1": Policy.CHUNK_EDGE,
    "M2": Policy.DISTANT,
    "M3": Policy.NEIGHBOR,
}


@dataclass(frozen=True)
class Condition:
    """The settings of one run.

    The defaults are the pack's defaults for the small models, but without the corrections of the generated frames
    (`with_frame_corrections`); each condition changes some of them.
    """

    name: str
    chunks: int = 8
    policy: Policy = Policy.NEIGHBOR
    variant: str = ""  # the strategy it was fine-tuned with; empty: the shipped model
    context: int = 9
    steps: int = 8
    audio: float = 2.0
    text: float = 1.0
    words: str = ""
    color_hold: float = 0.0
    color_over: int = 1  # number of frames whose colors are averaged for color_hold
    seam_fade: int = 0
    moving_camera: bool = False
    sdedit: float = 1.0
    uni3c: bool = False
    step_cache: float = 0.0  # threshold; 0: every step is computed
    portrait: bool = False  # the source is a picture instead of a video of a speaking person
    voice: str = ""  # empty: espeak-ng; else "flite VOICE", a sound file, or CODEC
    guided: tuple[float, float] = (0.0, 1.0)  # the range with guidance, as shares of the schedule

    @property
    def plan(self) -> list[Chunk]:
        """Return whole chunks, so that no frame of the last one is cut off."""
        total = CHUNK_FRAMES + (self.chunks - 1) * (CHUNK_FRAMES - self.context)
        return plan_chunks(total, CHUNK_FRAMES, self.context)

    @property
    def frames(self) -> int:
        """Return the number of frames of the video."""
        last = self.plan[-1]
        return last.start + last.length

    @property
    def branches(self) -> int:
        """Return the number of predictions per step."""
        return 1 + (self.audio != 1) + (self.text != 1)

    def to_json(self) -> str:
        """Return the settings as JSON for the row; rows with other settings are other rows."""
        named = {"policy": self.policy.value, "voice": Path(self.voice).name}  # without the machine's folder
        settings = {**asdict(self), **named}
        if self.guided == Condition.guided:
            del settings["guided"]  # rows from before there was a range stay the same rows
        return json.dumps(settings, sort_keys=True)


def with_frame_corrections(condition: Condition) -> Condition:
    """Add the sampler node's default corrections of the frames."""
    return replace(condition, color_hold=1.0, color_over=COLOR_HOLD_FRAMES, seam_fade=SEAM_FADE)


@dataclass(frozen=True)
class Experiment:
    """Conditions that are compared on the same unseen characters, voices and sentences."""

    name: str
    title: str
    conditions: tuple[Condition, ...]
    columns: tuple[str, ...]  # names of the numbers in the table
    seeds: int = 6
    first_seed: int = UNSEEN
    reference: str = ""  # the condition that the others are compared with, on the same seeds


DRIFT = ("worst_color_end", "worst_color_slope", "overall_color_slope", "background_end", "background_slope")
POLICY_COLUMNS = ("sync", "lag", "pose_own_time", "pose_copied", "mouth_copied", *DRIFT, "seam", "sharpness")


def experiments(recordings: Sequence[str] = (), flite: bool = False) -> tuple[Experiment, ...]:
    """Return all experiments. recordings: sound files of real voices; flite: whether that synthesizer is installed."""
    return (
        Experiment("policies", "Reference policies, each trained", _trained(), POLICY_COLUMNS, 5, reference="M3"),
        Experiment("shipped", "Reference policies, the one shipped model", _shipped(), POLICY_COLUMNS, 3),
        Experiment(
            "camera",
            "Camera of the source",
            _camera(),
            ("camera_shift", "camera_scale", "background_difference", "worst_color_mean", "sync", "mouth_copied"),
            reference="none",
        ),
        Experiment(
            "guidance", "Guidance", _guidance(), ("sync", "best", "lag", "worst_color_mean", "sharpness", "motion")
        ),
        Experiment(
            "guidance_range",
            "Guidance in a range of the steps",
            _guidance_range(),
            ("sync", "best", "lag", "worst_color_mean", "sharpness", "motion"),
            reference="text and audio",
        ),
        Experiment(
            "context", "Context frames", _context(), ("seam", "seam_worst", "sync", "worst_color_end"), reference="9"
        ),
        Experiment("steps", "Steps", _steps(), ("sync", "sharpness", "seam", "worst_color_mean"), reference="40"),
        Experiment(
            "cache",
            "Step caching, by threshold (40 steps)",
            _step_cache(),
            ("sync", "sharpness", "seam", "worst_color_mean"),
            reference="off",
        ),
        Experiment(
            "voices",
            "Unseen characters and voices",
            _voices(recordings, flite),
            ("sync", "sync_sound", "lag", "shuffled", "mouth_copied", "seam", "seam_latent", "sharpness"),
            12,
        ),
        Experiment(
            "codec",
            "The VAE alone",
            (Condition("VAE", voice=CODEC, chunks=2),),
            ("psnr", "sync", "worst_color_mean"),
            20,
        ),
    )


def _trained() -> tuple[Condition, ...]:
    return tuple(Condition(name, LONG, policy, variant=name) for name, policy in STRATEGIES.items())


def _shipped() -> tuple[Condition, ...]:
    policies = {**STRATEGIES, "chunk start": Policy.CHUNK_START}
    rows = [Condition(name, LONG, policy) for name, policy in policies.items()]
    each = Condition("M3, each frame held", LONG, color_hold=1.0)
    held = replace(each, name="M3, colors held", color_over=COLOR_HOLD_FRAMES)
    return (*rows, each, held, with_frame_corrections(replace(held, name="M3, colors held, seams faded")))


def _camera() -> tuple[Condition, ...]:
    plain = Condition("none", 6, moving_camera=True)
    edits = [replace(plain, name=f"SDEdit {t:g}", sdedit=t) for t in (0.95, 0.9, 0.8, 0.7, 0.6)]
    return (plain, *edits, replace(plain, name="Uni3C", uni3c=True))


def _guidance() -> tuple[Condition, ...]:
    audio = [Condition(f"audio {scale}", 5, audio=float(scale)) for scale in range(1, 7)]
    text = [Condition(f"text {scale}, {LIVELY}", 5, text=float(scale), words=LIVELY) for scale in (1, 2, 3)]
    return (*audio, *text)


def _guidance_range() -> tuple[Condition, ...]:
    full = Condition("text and audio", 5, text=2.0)
    audio = Condition("audio", 5)
    # Of 8 steps; the first and the last of a range are in it.
    ranges = {"steps 1 to 5": (0.0, 0.5), "steps 2 to 6": (0.125, 0.625), "steps 4 to 8": (0.375, 1.0)}
    return (full, audio, *(replace(audio, name=f"audio, {name}", guided=r) for name, r in ranges.items()))


def _context() -> tuple[Condition, ...]:
    # About as many frames with each.
    return tuple(Condition(f"{n}", chunks, context=n) for n, chunks in ((1, 6), (5, 7), (9, 8), (13, 9)))


def _steps() -> tuple[Condition, ...]:
    return tuple(Condition(f"{n}", 4, steps=n) for n in (4, 6, 8, 12, 20, 40))


def _step_cache() -> tuple[Condition, ...]:
    plain = Condition("off", 4, steps=40)
    return (plain, *(replace(plain, name=f"{t:g}", step_cache=t) for t in (0.1, 0.2, 0.3, 0.5)))


def _voices(recordings: Sequence[str], flite: bool) -> tuple[Condition, ...]:
    rows = [Condition("video, espeak-ng", 8), Condition("picture, espeak-ng", 8, Policy.STILL, portrait=True)]
    if flite:
        rows += [Condition(f"video, flite {v}", 8, voice=f"flite {v}") for v in ("slt", "rms")]
    rows += [Condition(f"video, recording {n}", 8, voice=f) for n, f in enumerate(recordings, 1)]
    return tuple(with_frame_corrections(row) for row in rows)


@dataclass(frozen=True)
class Scale:
    """The size of a benchmark: samples and steps of the fine-tuning, and the reductions of a quick run."""

    samples: int = 400
    steps: int = 200
    batch: int = 16
    most_seeds: int = 1000
    most_chunks: int = 1000

    def reduce(self, experiment: Experiment) -> Experiment:
        """Return `experiment` with fewer seeds and shorter videos."""
        short = tuple(replace(c, chunks=min(c.chunks, self.most_chunks)) for c in experiment.conditions)
        return replace(experiment, conditions=short, seeds=min(experiment.seeds, self.most_seeds))


FULL = Scale()
QUICK = Scale(samples=20, steps=10, batch=4, most_seeds=2, most_chunks=3)

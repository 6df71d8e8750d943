"""Train all small models from scratch, or one of them.

    python3 tools/train.py all                 speech, vae, refine, samples, model, tune, uni3c in order
    python3 tools/train.py model  --steps 800  one stage, with another number of steps
    python3 tools/train.py refine              train the finished VAE further; needs a GPU
    python3 tools/train.py draw                draw the samples of tune and uni3c, while another stage trains
    python3 tools/train.py tune                train the finished speaking model further; needs a GPU

Needs the packages of the tests (python3 tools/host.py --tests) and about 12 GB of disk in --folder. Every stage saves
checkpoints there, so an interrupted command can be resumed. The settings are in the stages' configuration classes
(training/), the method is described in docs/training.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from run_comfyui import make_torchvision_importable  # noqa: E402

make_torchvision_importable()  # transformers imports torchvision, whose build may not match PyTorch's

from infinitetalk_core.model.vae import WanVae, fast, load_vae  # noqa: E402
from training import small_models  # noqa: E402
from training.curves import draw_curves  # noqa: E402
from training.dataset import Samples, draw_samples, make_samples  # noqa: E402
from training.drawing import DatasetConfig, EncoderFile  # noqa: E402
from training.folded_convolution import fold_convolutions  # noqa: E402
from training.own_chunks import OwnChunks  # noqa: E402
from training.speech_pretraining import SpeechPretraining, train_speech_encoder  # noqa: E402
from training.stages import TUNING, TUNING_SAMPLES, UNI3C_TRAINING, train_model, train_uni3c, tune_model  # noqa: E402
from training.trainer import TrainingConfig  # noqa: E402
from training.vae_training import VaeTraining, refining, train_vae  # noqa: E402

LOGS = {
    "speech encoder": "speech/speech_log.jsonl",
    "VAE": "vae/vae_training.jsonl",
    "VAE, refined": "refine/vae_training.jsonl",
    "speaking model": "model/log.jsonl",
    "speaking model, tuned": "tuning/log.jsonl",
    "camera control": "uni3c/log.jsonl",
}
UNI3C_SAMPLES = DatasetConfig(samples=400, first_seed=200_000, still_share=0.0, guides=True)


@dataclass(frozen=True)
class Run:
    """Folders and the number of steps."""

    folder: Path  # checkpoints, samples, logs
    models: Path  # the finished files
    steps: int | None
    samples: int | None
    workers: int  # processes that draw
    device: torch.device


def speech(run: Run) -> None:
    """Train the speech encoder."""
    train_speech_encoder(SpeechPretraining(), run.folder / "speech").replace(_place(run, small_models.SPEECH))


def vae(run: Run) -> None:
    """Train the VAE."""
    train_vae(VaeTraining(), run.folder / "vae").replace(_place(run, small_models.VAE))


def refine(run: Run) -> None:
    """Train both halves of the finished VAE further, against drift; needs a GPU."""
    folder = run.folder / "refine"
    folder.mkdir(parents=True, exist_ok=True)
    start, place = folder / "start.safetensors", _place(run, small_models.VAE)
    if not start.exists():  # a resumed run goes on from the same weights
        shutil.copyfile(place, start)
    config = refining(start, workers=run.workers)
    if run.steps is not None:
        config = replace(config, stages=(replace(config.stages[0], steps=run.steps),))
    shutil.copyfile(train_vae(config, folder, say, run.device), place)


def draw(run: Run) -> None:
    """Draw the samples of tuning and of camera control, which needs no GPU; needs the speech encoder."""
    encode = EncoderFile(run.models / small_models.SPEECH)
    draw_samples(_recipe(run, TUNING_SAMPLES), run.folder / "tuning_samples", encode, run.workers)
    draw_samples(_recipe(run, UNI3C_SAMPLES), run.folder / "uni3c_samples", encode, run.workers)


def samples(run: Run) -> Samples:
    """Make the samples of the speaking model; needs the speech encoder and the VAE."""
    return _samples(run, _recipe(run, DatasetConfig()), run.folder / "samples")


def model(run: Run) -> None:
    """Train the speaking model: Wan backbone and InfiniteTalk weights."""
    config = TrainingConfig() if run.steps is None else TrainingConfig(steps=run.steps)
    network = small_models.new_model(small_models.SmallSizes())
    network.backbone.to(run.device), network.adapter.to(run.device)
    train_model(config, network, samples(run), run.folder / "model", run.models, say)


def tune(run: Run) -> None:
    """Train the speaking model further, against drift; needs the finished models."""
    config = TUNING if run.steps is None else replace(TUNING, steps=run.steps)
    learned = _samples(run, _recipe(run, TUNING_SAMPLES), run.folder / "tuning_samples")
    start = run.folder / "tuning_start"
    for name in (small_models.DIFFUSION, small_models.INFINITETALK):
        if not (start / name).exists():  # a resumed run goes on from the same weights
            (start / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.models / name, start / name)
    network = small_models.load_model(start)
    network.backbone.to(run.device), network.adapter.to(run.device)
    tune_model(config, OwnChunks(), network, _codec(run), learned, run.folder / "tuning", run.models, say)


def uni3c(run: Run) -> None:
    """Train Uni3C; needs the finished speaking model."""
    config = UNI3C_TRAINING if run.steps is None else replace(UNI3C_TRAINING, steps=run.steps)
    learned = _samples(run, _recipe(run, UNI3C_SAMPLES), run.folder / "uni3c_samples")
    network = small_models.load_model(run.models)
    network.backbone.to(run.device), network.adapter.to(run.device)
    train_uni3c(config, network, learned, run.folder / "uni3c", run.models, say)


STAGES: dict[str, Callable[[Run], object]] = {
    "speech": speech,
    "vae": vae,
    "refine": refine,
    "draw": draw,
    "samples": samples,
    "model": model,
    "tune": tune,
    "uni3c": uni3c,
}


IN_ORDER = tuple(name for name in STAGES if name != "draw")  # the others draw what they need themselves


def _recipe(run: Run, config: DatasetConfig) -> DatasetConfig:
    return config if run.samples is None else replace(config, samples=run.samples)


def _samples(run: Run, config: DatasetConfig, folder: Path) -> Samples:
    encode = EncoderFile(run.models / small_models.SPEECH)
    return make_samples(config, folder, _codec(run), encode, say, run.workers).to(run.device)


def _codec(run: Run) -> WanVae:
    codec = fast(load_vae(run.models / small_models.VAE).to(run.device))
    if codec.dtype is torch.float32:
        fold_convolutions(codec)
    return codec


def _place(run: Run, name: str) -> Path:
    path = run.models / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def say(line: str) -> None:
    """Print one line of progress without buffering."""
    print(f"[train] {time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("stage", choices=["all", *STAGES], help="what to train")
    parser.add_argument("--folder", type=Path, default=REPO / ".training", help="checkpoints, samples and logs")
    parser.add_argument("--models", type=Path, default=REPO / "small_models", help="where finished models go")
    parser.add_argument("--steps", type=int, help="of refine, model, tune or uni3c; default: the recipe's")
    parser.add_argument("--samples", type=int, help="number of training samples; default: the recipe's")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw samples; 0: none beside this one")
    parser.add_argument("--threads", type=int, help="processor threads; default: all")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=found, help="of all but speech and vae, which take the CPU")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    run = Run(
        options.folder, options.models, options.steps, options.samples, options.workers, torch.device(options.device)
    )
    for name in IN_ORDER if options.stage == "all" else [options.stage]:
        started = time.monotonic()
        say(f"{name}: {(STAGES[name].__doc__ or '').splitlines()[0]}")
        STAGES[name](run)
        say(f"{name}: done in {time.monotonic() - started:.0f} s")
        draw_curves({title: run.folder / log for title, log in LOGS.items()}, run.folder / "curves.png")


if __name__ == "__main__":
    main()

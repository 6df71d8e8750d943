"""Compare the time to write an 81-frame chunk in each video format with the time to generate it with the small models.

    .venv/bin/python benchmarks/video_formats.py [--width 832 --height 480 --steps 8]

Writes the 72 new frames of such a chunk: samples/portrait.mp4, enlarged, which is realistic motion instead of noise.
The time of a chunk is computed from its parts, on one thread: one prediction of the DiT at the chunk's full size, times
steps and branches (two, without text guidance), and the VAE, whose time is proportional to the frames, from
--vae-frames of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from infinitetalk_core.chunks.conditioning import LATENT_CHANNELS, VAE_STRIDE, reference_mask  # noqa: E402
from infinitetalk_core.chunks.plan import CHUNK_FRAMES, CONTEXT_FRAMES  # noqa: E402
from infinitetalk_core.chunks.sizes import fit_to  # noqa: E402
from infinitetalk_core.model.vae import load_vae  # noqa: E402
from infinitetalk_core.video.format import Codec, VideoFormat  # noqa: E402
from infinitetalk_core.video.segment import encode_segment  # noqa: E402
from infinitetalk_core.video.source import VideoFile  # noqa: E402
from training.captions import caption_tokens  # noqa: E402
from training.small_models import VAE, load_model  # noqa: E402

BRANCHES = 2  # with and without speech
FORMATS = [VideoFormat(codec, bits) for codec in Codec for bits in ((8,) if codec is Codec.LOSSLESS else (8, 10))]


def seconds(work: Callable[[], object]) -> float:
    """Return the time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def new_frames(width: int, height: int) -> Tensor:
    """Return 72 frames of the sample, (72, height, width, 3)."""
    source = VideoFile(str(REPO / "samples" / "portrait.mp4"))
    count = CHUNK_FRAMES - CONTEXT_FRAMES
    return torch.stack([fit_to(source.frame(i % source.length), height, width) for i in range(count)])


@torch.inference_mode()
def prediction_seconds(width: int, height: int) -> float:
    """Return the time of one velocity prediction of one branch for a whole chunk."""
    model = load_model(REPO / "small_models")
    frames, size = (CHUNK_FRAMES - 1) // 4 + 1, (height // VAE_STRIDE, width // VAE_STRIDE)
    adapter = model.adapter
    layers_and_channels = (4, adapter.config.audio_width // 4)
    speech = adapter.speech_tokens(torch.randn(1, CHUNK_FRAMES, 5, *layers_and_channels), None)
    x, reference = (torch.randn(1, LATENT_CHANNELS, frames, *size) for _ in range(2))
    mask, text = reference_mask(frames, *size), caption_tokens("")[None]
    return seconds(lambda: model.predict(x, torch.tensor([0.5]), text, [speech], reference, mask))


@torch.inference_mode()
def vae_seconds(frames: Tensor) -> float:
    """Return the VAE's time for a chunk: encode its reference (a still of 81 frames) and its context, decode all."""
    vae = load_vae(REPO / "small_models" / VAE)
    encoding = seconds(lambda: vae.encode(frames[None])) / len(frames)
    latents = torch.randn(1, LATENT_CHANNELS, (len(frames) - 1) // 4 + 1, *(s // VAE_STRIDE for s in frames.shape[1:3]))
    decoding = seconds(lambda: vae.decode(latents)) / len(frames)
    return encoding * (CHUNK_FRAMES + CONTEXT_FRAMES) + decoding * CHUNK_FRAMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--vae-frames", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = new_frames(options.width, options.height)
    rows = []
    for video_format in FORMATS:
        encode_segment(frames[:4], video_format)  # loads the encoder's library
        made: list[bytes] = []
        taken = seconds(lambda video_format=video_format, made=made: made.append(encode_segment(frames, video_format)))
        rows.append((video_format, taken, len(made[0])))
        print(f"{video_format.codec.value} {video_format.bits} bits: {taken:.2f} s", flush=True)
    vae = vae_seconds(frames[: options.vae_frames])
    print(f"VAE: {vae:.0f} s a chunk", flush=True)
    one = prediction_seconds(options.width, options.height)
    chunk = vae + one * BRANCHES * options.steps
    print(f"a prediction: {one:.1f} s; a chunk of {options.steps} steps with two branches: {chunk:.0f} s\n")
    print("| format | an 81-frame chunk (72 new) | size | share of the time to make it |\n|---|---|---|---|")
    for video_format, taken, size in rows:
        bits = "10 bit" if video_format.codec is Codec.LOSSLESS or video_format.bits == 10 else "8 bit"
        print(f"| {video_format.codec.value}, {bits} | {taken:.1f} s | {size / 1e6:.2f} MB | {taken / chunk:.2%} |")


if __name__ == "__main__":
    main()

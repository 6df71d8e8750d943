"""Speech to features with wav2vec 2.0, as InfiniteTalk was trained on them, for clips of any length.

The reference (src/audio_analysis/wav2vec2.py, and get_embedding in generate_infinitetalk.py): 16 kHz mono at
-23 LUFS -> convolutions, 50 features a second -> linear interpolation to 25 a second -> projection ->
transformer, whose hidden states after every layer are the result. The layers are those of `transformers`; this
module runs them on clips of any length. Everything before the transformer runs in segments, with the same result
as on the whole clip, and the transformer runs in windows if the clip is long. Only the waveform and the result
grow with the clip, and both are stored on disk if they are large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from ..disk_buffer import DiskTensor, RowWriter, Spool
from ..errors import InputError
from ..model.exact_float32 import exact_float32
from ..rate import FRAMES_PER_SECOND
from .loudness import Samples
from .sound import Sound, resample, to_mono
from .voice import SAMPLE_RATE_HZ, prepare_voice

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model

CHUNK_SAMPLES = 1 << 20
CONVOLUTION_SHARE = 0.4  # of the work for wav2vec base, for the progress report

Report = Callable[[float], None]


@dataclass(frozen=True)
class Limits:
    """Sizes of the encoder's segments and windows, in frames at 25 fps."""

    segment: int = 256  # convolutions: 10 s, about 60 MB for wav2vec base
    window: int = 4500  # transformer: 3 minutes; a clip up to this length is one window
    overlap: int = 500  # minimum overlap of two windows, 20 s
    fade: int = 50  # middle part of the overlap that is cross-faded, 2 s; the rest is context only

    def __post_init__(self) -> None:
        # The smallest step between windows is (window - overlap) / 2, and two fades must not overlap within it.
        if not 0 < self.fade <= self.overlap <= self.window - 2 * self.fade - 4 or self.segment < 1:
            raise ValueError(
                f"limits must have 0 < fade <= overlap <= window - 2 · fade - 4 and segment >= 1, got {self}"
            )


def frames_of(samples: int) -> int:
    """Return the number of frames that the reference computes for `samples` at 16 kHz, at least 1.

    Uses the reference's floating-point expression: some lengths lose a frame to rounding (29 · 640 samples give
    28), and the interpolation spreads the clip over the remaining frames.
    """
    return max(1, int(samples / SAMPLE_RATE_HZ * FRAMES_PER_SECOND))


def interpolation(start: int, stop: int, frames: int, features: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return lower index, upper index and weight of the upper among `features` for frames start … stop-1 of `frames`.

    Same positions as torch's linear interpolation with align_corners=True, in its float32 arithmetic: on long
    clips the rounding of the positions matters (3 minutes: 5e-4 of a step), and the reference has it too.
    """
    scale = torch.tensor(float(features - 1)) / float(frames - 1) if frames > 1 else torch.tensor(0.0)
    position = scale * torch.arange(start, stop, dtype=torch.float32)
    lower = position.long().clamp_max(features - 1)
    upper = (lower + 1).clamp_max(features - 1)
    return lower, upper, (position - lower).clamp(0.0, 1.0)


def plan_windows(frames: int, limits: Limits) -> list[tuple[int, int]]:
    """Return the transformer's windows (start, stop): one up to `limits.window` frames, else few, evenly spaced."""
    if frames <= limits.window:
        return [(0, frames)]
    step = limits.window - limits.overlap
    count = -(-(frames - limits.overlap) // step)
    starts = [i * (frames - limits.window) // (count - 1) for i in range(count)]
    return [(start, start + limits.window) for start in starts]


def window_weights(windows: list[tuple[int, int]], index: int, fade: int) -> Tensor:
    """Return the cross-fade weights of window `index`, (its frames,); over all windows they sum to 1 per frame."""
    start, stop = windows[index]
    frame = torch.arange(start, stop) + 0.5
    weights = torch.ones(stop - start)
    if index > 0:
        middle = (start + windows[index - 1][1]) // 2
        weights = weights * ((frame - middle) / fade + 0.5).clamp(0.0, 1.0)
    if index + 1 < len(windows):
        middle = (windows[index + 1][0] + stop) // 2
        weights = weights * (0.5 - (frame - middle) / fade).clamp(0.0, 1.0)
    return weights


def standardize(samples: Samples, scratch: Path | None = None) -> Samples:
    """Normalize to zero mean and unit variance over the whole clip: (x - mean) / sqrt(variance + 1e-7).

    scratch: a folder for results of more than 256 MB; None keeps them in memory.
    """
    mean = float(samples.mean(dtype=np.float64))
    parts = [samples[i : i + CHUNK_SAMPLES] for i in range(0, len(samples), CHUNK_SAMPLES)]
    squares = sum(float(np.square(part.astype(np.float64) - mean).sum()) for part in parts)
    deviation = np.float32(np.sqrt(squares / len(samples) + 1e-7))
    spool = Spool(scratch)
    for part in parts:
        spool.append((part - np.float32(mean)) / deviation)
    return spool.array()


def convolution_statistics(samples: Samples, conv: Any) -> tuple[Tensor, Tensor]:
    """Return mean and variance (channels,), float64, of the output of `conv` (Conv1d, 1 input channel) over the clip.

    A convolution is linear, so both follow from mean and covariance of the kernel-sized windows of the waveform:
    ten numbers and a 10 x 10 matrix for wav2vec, computed in one pass for any length.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    windows = torch.from_numpy(samples).unfold(0, kernel, stride)  # (n, kernel), a view
    total = torch.zeros(kernel, dtype=torch.float64)
    products = torch.zeros(kernel, kernel, dtype=torch.float64)
    for part in windows.split(CHUNK_SAMPLES // kernel):
        exact = part.double()
        total += exact.sum(dim=0)
        products += exact.T @ exact
    mean = total / len(windows)
    covariance = products / len(windows) - torch.outer(mean, mean)
    weight = conv.weight.detach().cpu().double()[:, 0]  # (channels, kernel)
    bias = conv.bias.detach().cpu().double() if conv.bias is not None else 0.0
    variance = torch.einsum("ck,kl,cl->c", weight, covariance, weight).clamp_min(0.0)
    return weight @ mean + bias, variance


def convolve(extractor: Any, wave: Tensor, statistics: tuple[Tensor, Tensor] | None) -> Tensor:
    """Run the library's convolution layers on `wave` (1, 1, samples): (1, conv channels, n).

    statistics: mean and variance (channels,), float32, of the whole clip for the first layer's GroupNorm, which
    would otherwise use those of `wave`; None for networks whose norms do not reduce over time.
    """
    first, *others = extractor.conv_layers
    if statistics is None:
        x = first(wave)
    else:
        mean, variance = statistics
        norm, found = first.layer_norm, first.conv(wave)
        normed = batch_norm(found.float(), mean, variance, norm.weight.float(), norm.bias.float(), eps=norm.eps)
        x = first.activation(normed.to(found.dtype))
    for layer in others:
        x = layer(x)
    return x


def visit_states(encoder: Any, x: Tensor, use: Callable[[int, Tensor], None]) -> None:
    """Run the library's transformer on `x` (1, F, channels) and call `use(layer, state)` after every layer.

    The states are those of `output_hidden_states` in transformers 4, which the reference uses, without the first.
    The last one is the output of the whole transformer, so it is normalized in networks whose last norm follows the
    layers. Hooks return the states one at a time, so that they are not all in memory, and are removed afterwards
    even if `use` raises.
    """
    *inner, _ = encoder.layers
    with ExitStack() as hooks:
        for index, module in enumerate(inner):
            hook = module.register_forward_hook(lambda _m, _args, found, layer=index: use(layer, _first(found)))
            hooks.enter_context(hook)
        use(len(inner), _first(encoder(x)))


def transform(network: Wav2Vec2Model, hidden: Tensor, use: Callable[[int, Tensor], None]) -> None:
    """Run projection and transformer on features at 25 fps (B, F, conv channels).

    Calls `use(layer, state (B, F, channels))` after every layer, in order.
    """
    visit_states(network.encoder, _first(network.feature_projection(hidden)), use)


def _first(found: Any) -> Tensor:
    """Return the first result of a transformers module, which some versions return alone and others in a tuple."""
    return found if isinstance(found, Tensor) else found[0]


class SpeechEncoder(nn.Module):
    """wav2vec 2.0 that converts a Sound of any length to InfiniteTalk's speech features.

    Up to `limits.window` frames (3 minutes) the transformer processes the whole clip and the result is the
    reference's. wav2vec 2.0 was trained on clips of up to half a minute, and the cost of attention grows with the
    square of the length, so a longer clip is split into windows of 3 minutes that overlap by at least 20 s: the 2 s
    in the middle are cross-faded, the rest of the overlap is context only. This is an approximation, because
    attention reaches everywhere and the positional convolution 64 frames. Measured on 4 minutes with random
    weights of base size, windows against the whole clip: relative L2 0.5 %, and 4.7 % with queries and keys
    three times as large (sharper attention); a small encoder, six times as large: 2 to 11 % by its weights.
    Random weights attend to far frames as much as to near ones; trained weights have not been measured.
    tests/pure/test_speech_encoder.py measures a small encoder.

    fingerprint: of the files it was loaded from (infinitetalk_core/fingerprint.py); "" without files.
    """

    def __init__(
        self,
        network: Wav2Vec2Model,
        *,
        normalize_input: bool = False,
        limits: Limits | None = None,
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.network = network
        self.normalize_input = normalize_input
        self.limits = limits or Limits()
        self.fingerprint = fingerprint
        self.train(False).requires_grad_(False)

    @property
    def layers(self) -> int:
        """Number of hidden states per frame: 12 for wav2vec base."""
        return self.network.config.num_hidden_layers

    @property
    def channels(self) -> int:
        """Width of a hidden state: 768 for wav2vec base."""
        return self.network.config.hidden_size

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network's weights: float32 as loaded."""
        return next(self.parameters()).dtype

    @property
    def hop_samples(self) -> int:
        """Samples between two features: 320 (50 features per second at 16 kHz)."""
        return prod(self.network.config.conv_stride)

    @property
    def field_samples(self) -> int:
        """Receptive field of one feature in samples: 400."""
        kernels, strides = self.network.config.conv_kernel, self.network.config.conv_stride
        return 1 + sum((kernel - 1) * prod(strides[:i]) for i, kernel in enumerate(kernels))

    def encode(
        self,
        sound: Sound,
        *,
        leveled: bool = False,
        report: Report | None = None,
        device: torch.device | None = None,
        scratch: Path | None = None,
    ) -> Tensor | DiskTensor:
        """Compute speech features (F, layers, channels), float32 on the CPU; F is `frames_of` the samples at 16 kHz.

        leveled: the sound comes from `prepare_voice`, perhaps padded with silence, and its loudness is not changed.
        report: called with the fraction done between pieces of work; an exception from it stops the work.
        device: where to compute; by default that of the first parameter (a host that offloads weights passes it).
        scratch: a folder for features of more than 256 MB (4.6 minutes of wav2vec base), which are returned as a
        `DiskTensor`, bit-exact the same as in memory; None keeps them all in memory.
        """
        device = device or next(self.parameters()).device
        report = report or (lambda _fraction: None)
        voice = resample(to_mono(sound), SAMPLE_RATE_HZ) if leveled else prepare_voice(sound, scratch)
        frames = frames_of(voice.samples)
        # Allocated outside of inference mode, so that training can use the result.
        finished = RowWriter((frames, self.layers, self.channels), scratch)
        with exact_float32(), torch.inference_mode():
            segments = self._convolve(self._prepare(voice, scratch), frames, device)
            for rows in self._transform(segments, frames, device, report):
                finished.append(rows)
        return finished.rows()

    def _prepare(self, voice: Sound, scratch: Path | None) -> Samples:
        """Return the samples, standardized if the checkpoint requires it, and zero-padded to at least one feature."""
        samples = voice.waveform[0].numpy()
        if self.normalize_input:
            samples = standardize(samples, scratch)
        missing = self.field_samples - len(samples)
        return np.pad(samples, (0, missing)) if missing > 0 else samples

    def _convolve(self, samples: Samples, frames: int, device: torch.device) -> Iterator[Tensor]:
        """Yield features (rows, conv channels) at 25 fps, segment by segment."""
        extractor = self.network.feature_extractor
        hop, field = self.hop_samples, self.field_samples
        statistics = None
        if self.network.config.feat_extract_norm == "group":
            # GroupNorm normalizes over the whole clip in time: compute its statistics first.
            mean, variance = convolution_statistics(samples, extractor.conv_layers[0].conv)
            statistics = mean.float().to(device), variance.float().to(device)
        count = (len(samples) - field) // hop + 1
        for start in range(0, frames, self.limits.segment):
            stop = min(start + self.limits.segment, frames)
            lower, upper, weight = interpolation(start, stop, frames, count)
            first, last = int(lower[0]), int(upper[-1])
            part = samples[first * hop : last * hop + field]
            wave = torch.from_numpy(part).to(device=device, dtype=self.dtype)[None, None]
            found = convolve(extractor, wave, statistics)[0].T.float().cpu()
            weight = weight[:, None]
            hidden = found[lower - first] * (1 - weight) + found[upper - first] * weight
            _refuse_non_finite(hidden, "convolutions", self.dtype)
            yield hidden

    def _transform(
        self, segments: Iterator[Tensor], frames: int, device: torch.device, report: Report
    ) -> Iterator[Tensor]:
        """Yield finished features (rows, layers, channels) in order, from the features of the convolutions.

        Keeps one window of each in memory; rows that the next window shares are carried over.
        """
        windows = plan_windows(frames, self.limits)
        hidden = torch.zeros(0, self.network.config.conv_dim[-1])
        features = torch.zeros(0, self.layers, self.channels)
        begins = 0  # the frame of the first row of both
        for index, (start, stop) in enumerate(windows):
            hidden, features = hidden[start - begins :], features[start - begins :]
            begins = start
            parts, have = [hidden], start + len(hidden)
            while have < stop:
                parts.append(next(segments))
                have += len(parts[-1])
                report(CONVOLUTION_SHARE * have / frames + (1 - CONVOLUTION_SHARE) * index / len(windows))
            hidden = torch.cat(parts)
            more = torch.zeros(stop - start - len(features), self.layers, self.channels)
            features = torch.cat([features, more])
            weights = window_weights(windows, index, self.limits.fade)[:, None]
            share = (CONVOLUTION_SHARE * have / frames, 1 - CONVOLUTION_SHARE)
            progress = partial(_report_part, report, share, index, len(windows))
            self._transform_window(hidden[: stop - start], features, weights, device, progress)
            following = windows[index + 1][0] if index + 1 < len(windows) else stop
            yield features[: following - start]

    def _transform_window(
        self, hidden: Tensor, features: Tensor, weights: Tensor, device: torch.device, report: Report
    ) -> None:
        """Add one window's hidden states to `features` (F, layers, channels), each frame times its weight (F, 1)."""

        def add(layer: int, state: Tensor) -> None:
            found = state[0].float().cpu()
            _refuse_non_finite(found, f"layer {layer + 1}", self.dtype)
            features[:, layer] += found * weights
            report((layer + 1) / self.layers)

        transform(self.network, hidden[None].to(device=device, dtype=self.dtype), add)


def _report_part(report: Report, share: tuple[float, float], index: int, parts: int, done: float) -> None:
    """Report the total fraction once `index` of `parts` equal parts and the fraction `done` of the next are finished.

    share: (fraction of the total that other work has finished, fraction that all parts make up).
    """
    report(min(share[0] + share[1] * (index + done) / parts, 1.0))


def _refuse_non_finite(found: Tensor, where: str, dtype: torch.dtype) -> None:
    if not torch.isfinite(found).all():
        raise InputError(
            f"the speech encoder ({where}, computed in {dtype}) gave values that are NaN or infinite; the "
            "likely cause is half precision or a damaged file: use float32, or download the encoder again"
        )

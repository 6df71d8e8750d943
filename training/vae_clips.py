"""Clips of drawn speakers to train the autoencoder on, and pixel weights for its loss."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .articulation import Articulation
from .characters import Character, make_character
from .performance import CameraMove, Performance, move_camera, perform, still_camera
from .render import MOUTH_INTERIOR, PARTS, part_masks, render

FASTEST_MOUTH = 6.0  # Hz
MOUTH_WEIGHT, MOTION_WEIGHT, EDGE_WEIGHT = 6.0, 3.0, 2.0
MOUTH_REACH = 9  # pixels around the inside of a mouth that also count as mouth
EYES_WEIGHT = 7.0
TOWARDS_FACE = 1.6  # crops near the middle are more frequent, since the face is there; 1: all places alike
RECOLORED = 0.5  # share of clips with permuted channels, and of those with changed gains
BORDER = len(PARTS)  # the label of pixels that belong to no part


@dataclass(frozen=True)
class ClipShape:
    """The size of a training batch: clips, frames per clip, side of the square crop."""

    batch: int
    frames: int
    side: int


def random_mouth(frames: int, seed: int) -> Articulation:
    """Return a mouth that moves faster than speech: waves of up to 6 Hz with pauses, so that it covers all speech."""
    rng = np.random.default_rng([seed, 0x6D6F75])
    seconds = np.arange(frames) / 25.0
    waves = rng.uniform(0.5, FASTEST_MOUTH, 5)
    phases = rng.uniform(0, 2 * np.pi, (2, 5))
    swing = np.sin(2 * np.pi * seconds[:, None] * waves + phases[0]).sum(1) / 2.2
    speaking = np.sin(2 * np.pi * seconds * rng.uniform(0.3, 1.5) + phases[1, 0]) > rng.uniform(-1.2, 0.2)
    opening = np.where(speaking, np.clip(0.4 + 0.45 * swing, 0, 1), 0.0)
    width = np.clip(0.6 * np.sin(2 * np.pi * seconds * waves[0] / 2 + phases[1, 1]), -1, 1)
    tracks = [np.asarray(t, np.float32) for t in (opening, width, 0.8 * speaking * (0.5 + 0.5 * opening))]
    return Articulation(*tracks)


def _scene(seed: int, frames: int) -> tuple[Character, Performance, CameraMove]:
    camera = move_camera(seed, frames) if seed % 2 else still_camera(frames)
    return make_character(seed), perform(random_mouth(frames, seed), seed), camera


def draw_clip(seed: int, frames: int, size: int) -> NDArray[np.uint8]:
    """Return a video (F, size, size, 3) of the speaker of a seed; the camera moves for every other seed."""
    return render(*_scene(seed, frames), size)


def clip_parts(seed: int, frames: int, size: int, start: int, stop: int) -> NDArray[np.uint8]:
    """Return for frames start … stop - 1 of `draw_clip` each pixel's number in PARTS, or BORDER: (F, size, size)."""
    character, performance, camera = _scene(seed, frames)
    masks = part_masks(character, performance.window(start, stop), camera.window(start, stop), size)
    return np.where(masks.any(axis=1), masks.argmax(axis=1), BORDER).astype(np.uint8)


@dataclass(frozen=True)
class _Piece:
    """A part of a clip of the pool."""

    clip: int
    start: int
    top: int
    left: int
    flipped: bool
    shape: ClipShape

    def of(self, clip: Tensor) -> Tensor:
        """Cut it out of a clip (F, H, W, ...), which begins with the piece's first frame."""
        side = self.shape.side
        cut = clip[: self.shape.frames, self.top : self.top + side, self.left : self.left + side]
        return cut.flip(2) if self.flipped else cut


def draw_with_parts(seed: int, frames: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return `draw_clip` and `clip_parts` of all frames."""
    return draw_clip(seed, frames, size), clip_parts(seed, frames, size, 0, frames)


class ClipPool:
    """Drawn clips in memory, from which random batches are cropped.

    device: where the clips are kept and the batches are made. workers: processes that draw all clips, from the first to
    the last, while the first ones are in use; 0: each clip is drawn at first use.
    """

    def __init__(
        self,
        count: int,
        frames: int,
        size: int,
        first_seed: int = 0,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        self.count, self.frames, self.size, self.first_seed = count, frames, size, first_seed
        self.device = torch.device(device)
        self._drawn: dict[int, Tensor] = {}
        self._parts: dict[int, Tensor] = {}
        self._coming: list[Future[tuple[NDArray[np.uint8], NDArray[np.uint8]]]] = []
        self._drawers: ProcessPoolExecutor | None = None
        if workers:
            # A GPU cannot be used by a process that is forked from one that uses it.
            self._drawers = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
            seeds = range(first_seed, first_seed + count)
            self._coming = [self._drawers.submit(draw_with_parts, seed, frames, size) for seed in seeds]

    def close(self) -> None:
        """Stop drawing."""
        if self._drawers is not None:
            self._drawers.shutdown(cancel_futures=True)

    @property
    def clips(self) -> Tensor:
        """Return all clips (N, F, H, W, 3), uint8."""
        return torch.stack([self.clip(number) for number in range(self.count)])

    def clip(self, number: int) -> Tensor:
        """Return a clip (F, H, W, 3), uint8."""
        if number not in self._drawn and self._coming:
            self._receive(number)
        if number not in self._drawn:
            drawn = draw_clip(self.first_seed + number, self.frames, self.size)
            self._drawn[number] = torch.from_numpy(drawn).to(self.device)
        return self._drawn[number]

    def parts(self, number: int) -> Tensor:
        """Return the number in PARTS of each pixel of a clip, or BORDER: (F, H, W), uint8."""
        if number not in self._parts and self._coming:
            self._receive(number)
        if number not in self._parts:
            labels = clip_parts(self.first_seed + number, self.frames, self.size, 0, self.frames)
            self._parts[number] = torch.from_numpy(labels).to(self.device)
        return self._parts[number]

    def batch(self, shape: ClipShape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return pictures (B, 3, F, s, s) in [-1, 1] and the weight of each pixel (B, 1, F, s, s)."""
        pieces = [self._piece(shape, rng) for _ in range(shape.batch)]
        return self._pictures(pieces, rng, RECOLORED)

    def batch_with_parts(
        self, shape: ClipShape, rng: np.random.Generator, recolored: float, among: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `batch` with a larger weight of eyes and brows, and the number in PARTS of each pixel (B, F, s, s).

        The crops are from all of the picture alike, since clothes and walls are at its edges.
        recolored: the share of clips with permuted channels, and of clips with changed gains and levels. among: the
        number of clips to take from, the first ones; None: all.
        """
        pieces = [self._piece(shape, rng, middle=1.0, among=among) for _ in range(shape.batch)]
        pixels, weight = self._pictures(pieces, rng, recolored)
        parts = torch.stack([piece.of(self.parts(piece.clip)[piece.start :]) for piece in pieces])
        return pixels, torch.maximum(weight, EYES_WEIGHT * near_parts(parts, ("eyes", "brows"))), parts

    def _receive(self, number: int) -> None:
        clip, labels = self._coming[number].result()
        self._drawn[number] = torch.from_numpy(clip).to(self.device)
        self._parts[number] = torch.from_numpy(labels).to(self.device)

    def _pictures(self, pieces: list[_Piece], rng: np.random.Generator, recolored: float) -> tuple[Tensor, Tensor]:
        cut = torch.stack([piece.of(self.clip(piece.clip)[piece.start :]) for piece in pieces])
        pixels = cut.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        weight = importance(pixels)
        return torch.stack([_augment(clip, rng, recolored) for clip in pixels]), weight

    def _piece(
        self, shape: ClipShape, rng: np.random.Generator, middle: float = TOWARDS_FACE, among: int | None = None
    ) -> _Piece:
        start = int(rng.integers(self.frames - shape.frames + 1))
        top, left = (round(float(rng.beta(middle, middle)) * (self.size - shape.side)) for _ in range(2))
        return _Piece(int(rng.integers(among or self.count)), start, top, left, bool(rng.random() < 0.5), shape)


def near_parts(parts: Tensor, names: tuple[str, ...]) -> Tensor:
    """Return 1.0 for pixels of these parts and beside them, else 0.0: (B, 1, F, s, s), of parts (B, F, s, s)."""
    inside = torch.zeros_like(parts, dtype=torch.bool)
    for name in names:
        inside |= parts == PARTS.index(name)
    return F.max_pool2d(inside.float(), 3, 1, 1)[:, None]


def _augment(clip: Tensor, rng: np.random.Generator, recolored: float) -> Tensor:
    """Return a clip (3, F, s, s) with varied colors; one in ten is a frame followed by mid-gray, as references are."""
    if rng.random() < 0.1:
        clip = torch.cat((clip[:, :1], torch.zeros_like(clip[:, 1:])), dim=1)
    if rng.random() < recolored:
        # Permute the channels, so that all directions in color space are equally frequent.
        clip = clip[rng.permutation(3).tolist()]
    if rng.random() < 1 - recolored:
        return clip
    gain = clip.new_tensor(rng.normal(1.0, 0.06, (3, 1, 1, 1)))
    level = clip.new_tensor(rng.normal(0.0, 0.05, (3, 1, 1, 1)))
    return (clip * gain + level).clamp(-1.0, 1.0)


def importance(clips: Tensor) -> Tensor:
    """Return the weight (B, 1, F, s, s) of each pixel, at least 1: mouths most, then motion, then edges."""
    color = clips.new_tensor(MOUTH_INTERIOR).view(1, 3, 1, 1, 1) / 127.5 - 1.0
    inside = ((clips - color).abs().amax(1, keepdim=True) < 0.2).float().amax(2, keepdim=True)
    near = F.max_pool3d(inside, (1, MOUTH_REACH, MOUTH_REACH), 1, (0, MOUTH_REACH // 2, MOUTH_REACH // 2))
    change = (clips.amax(2, keepdim=True) - clips.amin(2, keepdim=True)).amax(1, keepdim=True)
    spread = F.max_pool3d(clips, (1, 3, 3), 1, (0, 1, 1)) + F.max_pool3d(-clips, (1, 3, 3), 1, (0, 1, 1))
    edge = spread.amax(1, keepdim=True)
    weight = 1.0 + MOTION_WEIGHT * change.clamp(0, 0.5) + EDGE_WEIGHT * edge.clamp(0, 0.5)
    return torch.maximum(weight, MOUTH_WEIGHT * near).expand(-1, -1, clips.shape[2], -1, -1)

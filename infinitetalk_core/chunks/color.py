"""Color matching to an anchor picture, against color drift from chunk to chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..model.exact_float32 import exact_float32

COLOR_HOLD_FRAMES = 25  # one second: longer than a syllable or a blink, shorter than color drift
FRAMES_AT_ONCE = 4  # a 720p frame needs about 60 MB while it is converted

# sRGB primaries and the D65 white (2 degree observer), IEC 61966-2-1; the digits are scikit-image's.
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)
_FLAT = 1e-4  # a Lab deviation below any 8-bit detail: only rounding is left in it


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB (..., 3) in [0, 1] to CIE Lab (L 0…100), float32."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp_min(0) ** 2.4, rgb / 12.92)
    xyz = linear @ linear.new_tensor(_XYZ_FROM_RGB).T / linear.new_tensor(_WHITE)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp_min(0) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(-1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE Lab (..., 3) to sRGB, clamped to [0, 1], float32."""
    lightness, a, b = lab.unbind(-1)
    y = (lightness + 16) / 116
    f = torch.stack((y + a / 500, y, (y - b / 200).clamp_min(0)), dim=-1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787) * f.new_tensor(_WHITE)
    matrix = torch.linalg.inv(torch.tensor(_XYZ_FROM_RGB, dtype=torch.float64))
    linear = xyz @ matrix.to(xyz).T
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0) ** (1 / 2.4) - 0.055, linear * 12.92)
    return rgb.clamp(0, 1)


def _mean_and_deviation(lab: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation of (F, H, W, 3) per frame and channel, each (F, 1, 1, 3)."""
    # Relative to a pixel of the frame, not to zero: smaller rounding errors in float32.
    pivot = lab[:, :1, :1]
    deviation, mean = torch.std_mean(lab - pivot, dim=(1, 2), keepdim=True, correction=0)
    return mean + pivot, deviation


def _color_statistics(frames: Tensor, device: torch.device, over: int) -> tuple[Tensor, Tensor]:
    """Return Lab mean and deviation of each frame, (F, 1, 1, 3), averaged over the `over` frames around it.

    Converts a few frames at a time to limit memory.
    """
    starts = range(0, len(frames), FRAMES_AT_ONCE)
    mean, deviation = _joined([_mean_and_deviation(Part.at(start, frames, device).lab()) for start in starts])
    return moving_average(mean, over), moving_average(deviation, over)


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    mean, deviation = (torch.cat(tracks) for tracks in zip(*parts, strict=True))
    return mean, deviation


def moving_average(track: Tensor, over: int) -> Tensor:
    """Average each frame's values in (F, ...) over the `over` frames around it, fewer at the ends."""
    if over == 1:
        return track
    each = track.flatten(1).T  # (values, F)
    mean = F.avg_pool1d(each, over, stride=1, padding=over // 2, count_include_pad=False)
    return mean.T.reshape(track.shape)


@exact_float32()
def hold_color(
    frames: Tensor, anchor: Tensor, strength: float, device: torch.device | None = None, over: int = 1
) -> Tensor:
    """Match the Lab mean and standard deviation of each frame to those of `anchor`, blended in by `strength`.

    frames: (F, H, W, 3) in [0, 1]; anchor: (h, w, 3) in [0, 1], any size, or one for each frame (F, h, w, 3); strength:
    0 (off: returns the same tensor) to 1; device: where to compute, by default that of the frames, which cross the bus
    once in each direction and of which over // 2 and a few are there at a time. A channel with zero deviation takes the
    anchor's mean. Returns the frames' shape, type and device, clamped to [0, 1].

    over: odd number of frames over which the statistics for each correction are averaged. Colors drift over seconds,
    while an opening mouth or a moving hand changes a frame's statistics at once and must not be corrected: with 1, as
    in the reference, the colors of the whole picture change with every such movement.
    Source: the reference's match_and_blend_colors (wan/utils/multitalk_utils.py), which is `over` 1.
    Raises InputError for a strength outside 0 to 1, an even `over`, or a wrong shape.
    """
    anchors = anchors_of(frames, anchor, strength, over)
    if strength == 0:
        return frames
    device = device or frames.device
    return corrected(frames, device, over, _ByStatistics(anchors, len(frames), strength, device, over))


def anchors_of(frames: Tensor, anchor: Tensor, strength: float, over: int) -> Tensor:
    """Return the anchor pictures, one or one for each frame: (1 or F, h, w, 3). Raises InputError as `hold_color`."""
    if not 0 <= strength <= 1:
        raise InputError(f"color strength must be between 0 and 1, got {strength}")
    if over < 1 or over % 2 == 0:
        raise InputError(f"colors are averaged over an odd number of frames, got {over}")
    anchors = anchor[None] if anchor.ndim == 3 else anchor
    if frames.ndim != 4 or frames.shape[-1] != 3 or anchors.ndim != 4 or anchors.shape[-1] != 3:
        raise InputError(
            "color needs frames (F, H, W, 3) and one anchor picture (H, W, 3) or one for each frame, "
            f"got {tuple(frames.shape)} and {tuple(anchor.shape)}"
        )
    if len(anchors) not in (1, len(frames)):
        raise InputError(f"{len(frames)} frames need 1 anchor picture or {len(frames)} of them, got {len(anchors)}")
    return anchors


class Correction(Protocol):
    """A correction of the colors of a video, from what is measured in the frames around each."""

    def measure(self, part: Part) -> None:
        """Measure the next few frames."""

    def matched(self, part: Part) -> Tensor:
        """Return these frames corrected (F, H, W, 3), by what has been measured so far."""


def corrected(frames: Tensor, device: torch.device, over: int, correction: Correction) -> Tensor:
    """Correct frames (F, H, W, 3) a few at a time on `device`, each when the over // 2 frames after it are measured."""
    matched = torch.empty_like(frames)
    waiting: deque[Part] = deque()
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        part = Part.at(start, frames, device)
        waiting.append(part)
        correction.measure(part)
        # A frame is corrected by what is measured in the frames around it, so it waits for those after it.
        while waiting and (part.stop == len(frames) or waiting[0].stop + over // 2 <= part.stop):
            ready = waiting.popleft()
            matched[ready.slice] = correction.matched(ready)
    return matched


@dataclass(frozen=True)
class Part:
    """A few frames on the device, where they stay until they are corrected: the bus is slow. Frames that are there
    already are not copied."""

    slice: slice
    rgb: Tensor  # (F, H, W, 3)

    @classmethod
    def at(cls, start: int, frames: Tensor, device: torch.device) -> Part:
        """Take the frames from `start` on."""
        part = slice(start, min(start + FRAMES_AT_ONCE, len(frames)))
        return cls(part, frames[part].to(device, torch.float32))

    def lab(self) -> Tensor:
        """Return their colors in Lab, computed anew: memory for all parts that wait is worth more."""
        return rgb_to_lab(self.rgb.clamp(0, 1))

    @property
    def stop(self) -> int:
        return int(self.slice.stop)


class _ByStatistics:
    """The correction of each frame's mean and deviation to those of its anchor."""

    def __init__(self, anchors: Tensor, length: int, strength: float, device: torch.device, over: int) -> None:
        self.strength, self.over = strength, over
        self.goal = [track.expand(length, -1, -1, -1) for track in _color_statistics(anchors, device, over)]
        self.own = [torch.empty(length, 1, 1, 3, dtype=torch.float32, device=device) for _ in range(2)]
        self.measured = 0

    def measure(self, part: Part) -> None:
        for track, values in zip(self.own, _mean_and_deviation(part.lab()), strict=True):
            track[part.slice] = values
        self.measured = part.stop

    def matched(self, part: Part) -> Tensor:
        mean, deviation = (moving_average(track[: self.measured], self.over)[part.slice] for track in self.own)
        goal_mean, goal_deviation = (track[part.slice] for track in self.goal)
        gain = torch.where(deviation < _FLAT, 0, goal_deviation / deviation)
        converted = lab_to_rgb((part.lab() - mean) * gain + goal_mean)
        return torch.lerp(part.rgb.clamp(0, 1), converted, self.strength)

"""Measure what changes from frame to frame: flicker, frozen frames, jumps at joins and at key frames.

All of these compare the mean colors of blocks, 16 across the longer side, in CIE Lab, so that noise of camera and codec
averages out.

flicker: the amplitude, in Lab units, by which what does not move changes to and fro from frame to frame: the root mean
square of the second difference, divided by 4, over a second, of the worst second; 0.3 is just visible. Blocks count in
which the mean of 8 frames changes by less than 0.15 a frame, or by less than a quarter of their flicker. None where
fewer than a tenth of the picture stands still, as under a moving camera.

frozen: the longest run of frames that repeat the one before, in frames; 3 is just visible. A frame repeats if its step,
the mean change of the half of the picture that moves most, is less than a fifth of the usual step within a second. Of
three steps the middle one counts, since an encoder goes on refining a frozen picture every few frames.

jump: the change of the picture into a frame, in Lab units, beyond the largest one of the 6 frames before and after: the
mean over the blocks of what each changes more. 0.4 is just visible: the whole picture becomes lighter by one unit
of L, of which movement and encoder hide a part. It is measured at the joins of chunks, and at the
key frames of an encoded file (pulse). None without neighbors to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitetalk_core.chunks.color import rgb_to_lab
from infinitetalk_core.errors import InputError
from infinitetalk_core.rate import FRAMES_PER_SECOND

_ACROSS = 16
_AVERAGED = 8  # frames: an even number, so that a flicker from frame to frame is gone
_STILL = 0.15  # Lab units a frame
_BY_FLICKER = 0.25  # what stands still and flickers moves by less than this share of its flicker
_ENOUGH = 0.1  # share of the blocks
_REPEATED = 0.2  # share of the usual step
_MOVES = 0.02  # Lab units: the least usual step of a video in which anything moves
_AROUND = 6  # frames before and after a jump
_FRAMES_AT_ONCE = 32


def block_colors(frames: Tensor) -> Tensor:
    """Return the mean colors in Lab of the blocks of frames (F, H, W, 3) in [0, 1]: (F, n, 3).

    Raises InputError for another shape and for no frames.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise InputError(f"changes are measured in frames (F, H, W, 3), got {tuple(frames.shape)}")
    longer = max(frames.shape[1:3])
    height, width = (max(round(_ACROSS * side / longer), 1) for side in frames.shape[1:3])
    parts = []
    for part in frames.split(_FRAMES_AT_ONCE):
        lab = rgb_to_lab(part.detach().cpu().float()).permute(0, 3, 1, 2)
        parts.append(F.adaptive_avg_pool2d(lab, (height, width)).flatten(2).mT)
    return torch.cat(parts)


def flicker(colors: Tensor) -> float | None:
    """Return the flicker of the block colors (F, n, 3) of a video."""
    if len(colors) < _AVERAGED + 1:
        return None
    slow = F.avg_pool1d(colors.flatten(1).T[None], _AVERAGED, stride=1)[0].T.reshape(-1, *colors.shape[1:])
    fast = (colors[2:] - 2 * colors[1:-1] + colors[:-2]).norm(dim=-1) / 4  # (F - 2, n)
    still = (slow[1:] - slow[:-1]).norm(dim=-1).mean(0) < torch.clamp(fast.mean(0) * _BY_FLICKER, min=_STILL)
    if still.float().mean() < _ENOUGH:
        return None
    return max(second.square().mean().sqrt().item() for second in fast[:, still].split(FRAMES_PER_SECOND))


def frozen(colors: Tensor) -> int | None:
    """Return the longest run of repeated frames in the block colors (F, n, 3) of a video; None if nothing moves."""
    steps = (colors[1:] - colors[:-1]).norm(dim=-1)
    if steps.numel() == 0 or steps.mean(0).max() < _MOVES:
        return None
    moves = steps.mean(0) >= max(_MOVES, steps.mean(0).median().item())
    step = F.pad(steps[:, moves].mean(1)[None], (1, 1), mode="replicate")[0].unfold(0, 3, 1).median(1).values
    longest = run = 0
    for index, value in enumerate(step.tolist()):
        around = step[max(index - FRAMES_PER_SECOND, 0) : index + FRAMES_PER_SECOND + 1]
        run = run + 1 if value < _REPEATED * around.quantile(0.75).item() else 0
        longest = max(longest, run)
    return longest


def jumps(colors: Tensor, frames: Sequence[int]) -> list[float]:
    """Return the jump into each of `frames` in the block colors (F, n, 3), of those that have frames around them."""
    steps = (colors[1:] - colors[:-1]).norm(dim=-1)  # of frame i + 1
    found = []
    for frame in frames:
        at = frame - 1
        others = [i for i in range(at - _AROUND, at + _AROUND + 1) if 0 <= i < len(steps) and i != at]
        if 0 <= at < len(steps) and others:
            found.append((steps[at] - steps[others].amax(0)).clamp_min(0).mean().item())
    return found

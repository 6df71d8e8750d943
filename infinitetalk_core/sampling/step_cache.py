"""Step caching (TeaCache): skip the transformer blocks in steps where their output would change little.

The change of the blocks' output from one step to the next is estimated from the relative change of the time
modulation, by a polynomial fitted to the model. The estimates are added up; while the sum is below a threshold, the
blocks are skipped and the residual that they last added to their input is added again. Embeddings and head always run.
Source of the rule: TeaCache (arXiv 2411.19108) as in wan/modules/multitalk_model.py of the reference. There the cache
slot of a branch is found by counting calls, which mixes up the branches when there are two calls per step, and the
cache is not reset between runs. Here a cache belongs to one chunk and has one residual per guidance branch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

# Polynomial coefficients, highest power first, from the relative change of the time modulation to that of the blocks'
# output; fitted by TeaCache's authors to Wan 2.1 I2V 14B. "none": the relative change itself, for any model.
CALIBRATIONS: dict[str, tuple[float, ...]] = {
    "wan 2.1 480p": (257151.496, -35422.9917, 1402.86849, -13.5890334, 0.132517977),
    "wan 2.1 720p": (8107.0546, 2133.93892, -372.934672, 16.6203073, -0.0417769401),
    "none": (1.0, 0.0),
}

MOST_BRANCHES = 3  # guidance by text and by audio
Blocks = Callable[[Tensor], Tensor]  # tokens (B, L, C) → tokens after all blocks


@dataclass(frozen=True)
class StepCaching:
    """The user's settings of the step cache.

    threshold: a larger one is faster and deviates more from the uncached video. calibration: polynomial coefficients,
    see `CALIBRATIONS`. first_steps: number of steps at the start of a chunk that always run, since they determine the
    layout of the picture. on_gpu: keep the residuals on the GPU, else in RAM: L x C values per branch (335 MB at 480p
    and 774 MB at 720p in the 14B model).
    """

    threshold: float = 0.2
    calibration: tuple[float, ...] = CALIBRATIONS["wan 2.1 480p"]
    first_steps: int = 5
    on_gpu: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 10:
            raise InputError(
                f"the threshold of the step cache must be above 0 and at most 10, got {self.threshold:g}; 0.2 is a "
                "careful one, and without the node nothing is cached"
            )
        if self.first_steps < 1:
            raise InputError(f"at least the first step must be made, got first_steps {self.first_steps}")

    def gpu_bytes(self, tokens: int, channels: int, dtype_bytes: int) -> int:
        """Return the GPU memory of the cache in bytes: a residual per branch, and the blocks' input of one branch."""
        return (MOST_BRANCHES + 1) * tokens * channels * dtype_bytes if self.on_gpu else 0

    def predicted_change(self, before: Tensor, now: Tensor) -> float:
        """Estimate the relative change of the blocks' output from two time modulations of the same shape."""
        change = ((now - before).abs().mean() / before.abs().mean()).item()
        total = 0.0
        for coefficient in self.calibration:
            total = total * change + coefficient
        return total


class StepCache:
    """The step cache of one chunk: the accumulated change, and the blocks' last residual of each branch.

    Call `begin` once per step, then `through` for each prediction of the step. A host that does not expose its blocks
    as one function uses `skipping`, `keeping` and `added` instead: the residuals (L, C) by branch.
    """

    def __init__(self, caching: StepCaching):
        self.caching = caching
        self.steps = 0
        self.skipped = 0
        self.skipping = False
        self._drift = 0.0
        self._before: Tensor | None = None
        self._around: Hashable = None
        self.added: dict[int, Tensor] = {}

    @property
    def drift(self) -> float:
        """The sum of the estimated changes since the blocks last ran; 0 if they ran in this step."""
        return self._drift

    @property
    def size_bytes(self) -> int:
        """Memory of the cached residuals, in bytes."""
        return sum(t.nbytes for t in self.added.values())

    @torch.no_grad()
    def begin(self, modulation: Tensor, around: Hashable = None) -> bool:
        """Start a step: decide whether the blocks are skipped in it, and return that.

        modulation: the time projection's output for this step, of any shape. around: anything else that changes what
        the blocks compute from step to step (a ControlNet that ends); in a step where it differs, the blocks run.
        """
        now = modulation.detach().float()
        drift = self._drift if self._before is None else self._drift + self.caching.predicted_change(self._before, now)
        allowed = self.steps >= self.caching.first_steps and around == self._around and bool(self.added)
        self.skipping = allowed and drift < self.caching.threshold
        self._drift = drift if self.skipping else 0.0
        if not self.skipping:
            self.added.clear()
        self._before, self._around = now, around
        self.steps += 1
        self.skipped += self.skipping
        return self.skipping

    @property
    def keeping(self) -> bool:
        """Whether the residuals of this step are stored: the blocks run, and it is not before the last first step."""
        return not self.skipping and self.steps >= self.caching.first_steps

    def stand_in(self, branches: Sequence[int]) -> tuple[Tensor, ...] | None:
        """Return the cached residuals (L, C) of these branches, or None if the blocks must run."""
        if not self.skipping or any(branch not in self.added for branch in branches):
            return None
        return tuple(self.added[branch] for branch in branches)

    def through(self, branches: Sequence[int], x: Tensor, blocks: Blocks) -> Tensor:
        """Return blocks(x), or x plus the cached residuals. x (B, L, C): one item for each of the branches."""
        added = self.stand_in(branches)
        if added is not None:
            return add(x, added)
        out = blocks(x)
        if self.keeping:
            for branch, item in zip(branches, self.place(out) - self.place(x), strict=True):
                self.added[branch] = item
        return out

    def around_blocks(
        self, branches: Sequence[int], around: Hashable = None
    ) -> Callable[[Tensor, Tensor, Blocks], Tensor]:
        """Return a function (modulation (B, 6, C), x (B, L, C), blocks) → blocks(x), computed or from the cache.

        For a backbone that predicts all branches of a step in one call.
        """

        def run(modulation: Tensor, x: Tensor, blocks: Blocks) -> Tensor:
            self.begin(modulation[:1], around)
            return self.through(branches, x, blocks)

        return run

    def place(self, x: Tensor) -> Tensor:
        """Return x on the device where residuals are stored."""
        return x if self.caching.on_gpu else x.cpu()

    def clear(self) -> None:
        """Free the stored residuals."""
        self.added.clear()
        self._before = None

    def summary(self) -> str:
        """Return a sentence for the log: how many steps were skipped."""
        share = self.skipped / max(self.steps, 1)
        return f"step cache left out the blocks in {self.skipped} of {self.steps} steps ({share:.0%})"


def add(x: Tensor, added: Sequence[Tensor]) -> Tensor:
    """Add a residual (L, C) to each item of x (B, L, C)."""
    return torch.stack([item + more.to(item) for item, more in zip(x, added, strict=True)])

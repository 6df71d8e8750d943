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
Blocks = Callable[[Tensor], Tensor]  # tokens (B, L, C) -> tokens after all blocks


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


@dataclass(frozen=True)
class CachedStep:
    """What the step cache decided for one step: add the cached residuals instead of running the blocks, or run them.

    residuals: the residual (L, C) of all blocks by guidance branch, to be added; None: run the blocks. stored: receives
    the residuals of this step by branch; None: they are not stored. to_storage: moves a tensor to the cache's device.
    Plain values, so that torch.compile can trace them.
    """

    residuals: dict[int, Tensor] | None
    stored: dict[int, Tensor] | None
    to_storage: Callable[[Tensor], Tensor]

    @property
    def skips(self) -> bool:
        """Whether the blocks are skipped in this step."""
        return self.residuals is not None

    def residuals_of(self, branches: Sequence[int]) -> list[Tensor] | None:
        """Return the cached residuals (L, C) of these branches, or None if the blocks must run."""
        if self.residuals is None or any(branch not in self.residuals for branch in branches):
            return None
        return [self.residuals[branch] for branch in branches]

    def store(self, branches: Sequence[int], before: Tensor, after: Tensor) -> None:
        """Store what the blocks added. before (B, L, C), from `to_storage`; after (B, L, C): items by branch."""
        if self.stored is not None:
            for branch, residual in zip(branches, self.to_storage(after) - before, strict=True):
                self.stored[branch] = residual

    def run(self, branches: Sequence[int], x: Tensor, blocks: Blocks) -> Tensor:
        """Return blocks(x), or x plus the cached residuals. x (B, L, C): one item for each of the branches."""
        residuals = self.residuals_of(branches)
        if residuals is not None:
            return add_residuals(x, residuals)
        if self.stored is None:
            return blocks(x)
        before = self.to_storage(x)
        out = blocks(x)
        self.store(branches, before, out)
        return out


class StepCache:
    """The step cache of one chunk: the accumulated change, and the blocks' last residual of each branch.

    Call `begin` once per step; the `CachedStep` that it returns serves all predictions of the step.
    """

    def __init__(self, caching: StepCaching):
        self.caching = caching
        self.steps = 0
        self.skipped = 0
        self._drift = 0.0
        self._modulation: Tensor | None = None
        self._control: Hashable = None
        self._residuals: dict[int, Tensor] = {}

    @property
    def drift(self) -> float:
        """The sum of the estimated changes since the blocks last ran; 0 if they ran in this step."""
        return self._drift

    @property
    def size_bytes(self) -> int:
        """Memory of the cached residuals, in bytes."""
        return sum(t.nbytes for t in self._residuals.values())

    @torch.no_grad()
    def begin(self, modulation: Tensor, control: Hashable = None) -> CachedStep:
        """Start a step and decide whether the blocks are skipped in it.

        modulation: the time projection's output for this step, of any shape. control: anything else that changes what
        the blocks compute from step to step (a ControlNet that ends); in a step where it differs, the blocks run.
        """
        now = modulation.detach().float()
        last = self._modulation
        drift = self._drift if last is None else self._drift + self.caching.predicted_change(last, now)
        allowed = self.steps >= self.caching.first_steps and control == self._control and bool(self._residuals)
        skip = allowed and drift < self.caching.threshold
        self._drift = drift if skip else 0.0
        self._modulation, self._control = now, control
        self.steps += 1
        self.skipped += skip
        if skip:
            return CachedStep(self._residuals, None, self._to_storage)
        self._residuals.clear()
        # The last of the first steps stores, so that the next one may be skipped.
        stores = self.steps >= self.caching.first_steps
        return CachedStep(None, self._residuals if stores else None, self._to_storage)

    def block_runner(
        self, branches: Sequence[int], control: Hashable = None
    ) -> Callable[[Tensor, Tensor, Blocks], Tensor]:
        """Return a function (modulation (B, 6, C), x (B, L, C), blocks) -> blocks(x), computed or from the cache.

        For a backbone that predicts all branches of a step in one call.
        """

        def run(modulation: Tensor, x: Tensor, blocks: Blocks) -> Tensor:
            return self.begin(modulation[:1], control).run(branches, x, blocks)

        return run

    def _to_storage(self, x: Tensor) -> Tensor:
        return x if self.caching.on_gpu else x.cpu()

    def clear(self) -> None:
        """Free the stored residuals."""
        self._residuals.clear()
        self._modulation = None

    def summary(self) -> str:
        """Return a sentence for the log: how many steps were skipped."""
        share = self.skipped / max(self.steps, 1)
        return f"step cache left out the blocks in {self.skipped} of {self.steps} steps ({share:.0%})"


def add_residuals(x: Tensor, residuals: Sequence[Tensor]) -> Tensor:
    """Add a residual (L, C) to each item of x (B, L, C)."""
    return torch.stack([item + residual.to(item) for item, residual in zip(x, residuals, strict=True)])

"""Step caching: where two steps ask nearly the same of the blocks, the earlier one's answer stands in.

Along the schedule the blocks' input changes by how much their time modulation changes. The relative changes, put
through a polynomial that was fitted to the model, are added up; while the sum is below a threshold, the blocks are
left out and what they added to their input the last time is added again. Embeddings and head always run.
Source of the rule: TeaCache (arXiv 2411.19108) as in wan/modules/multitalk_model.py of the reference. There the memory
of a branch is found by counting calls, which mixes branches up when two are run a step, and it lives on into the next
run. Here a cache belongs to one chunk, and each guidance branch has its own place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

# Polynomials, highest power first, from the relative change of the time modulation to that of the blocks' answer;
# fitted by TeaCache's authors to Wan 2.1 I2V 14B. "none": the relative change itself, for any model.
CALIBRATIONS: dict[str, tuple[float, ...]] = {
    "wan 2.1 480p": (257151.496, -35422.9917, 1402.86849, -13.5890334, 0.132517977),
    "wan 2.1 720p": (8107.0546, 2133.93892, -372.934672, 16.6203073, -0.0417769401),
    "none": (1.0, 0.0),
}

MOST_BRANCHES = 3  # guidance by text and by speech
Blocks = Callable[[Tensor], Tensor]  # tokens (B, L, C) → tokens after all blocks


@dataclass(frozen=True)
class StepCaching:
    """What a user asks for.

    threshold: more is faster and further from the uncached video. first_steps: predictions a chunk that are always
    made, since the picture is laid out there. on_gpu: where the answers are kept, L x C numbers a branch
    (335 MB at 480p and 774 MB at 720p in the 14B model); else in RAM.
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
        """What is kept on the GPU: an answer of each branch, and the tokens before the blocks of one."""
        return (MOST_BRANCHES + 1) * tokens * channels * dtype_bytes if self.on_gpu else 0

    def predicted_change(self, before: Tensor, now: Tensor) -> float:
        """How much the blocks' answer changes between two time modulations of the same shape."""
        change = ((now - before).abs().mean() / before.abs().mean()).item()
        total = 0.0
        for coefficient in self.calibration:
            total = total * change + coefficient
        return total


class StepCache:
    """The memory of one chunk: the rule's sum, and what the blocks last added to each branch.

    `begin` once a step; then `through` for each prediction of the step. A host that does not hand over its blocks as
    one function does the same with `skipping`, `keeping` and `added`: what the blocks last added (L, C), by branch.
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
        """The sum of predicted changes since the blocks last ran; 0 if they ran in this step."""
        return self._drift

    @property
    def size_bytes(self) -> int:
        """Memory that the kept answers take."""
        return sum(t.nbytes for t in self.added.values())

    @torch.no_grad()
    def begin(self, modulation: Tensor, around: Hashable = None) -> bool:
        """Decide whether the blocks are left out in the step that begins.

        modulation: what the time projection gives for it, any shape. around: whatever else changes the blocks' work
        from step to step (a ControlNet that ends); where it changes, they run.
        """
        now = modulation.detach().float()
        drift = self._drift if self._before is None else self._drift + self.caching.predicted_change(self._before, now)
        free = self.steps >= self.caching.first_steps and around == self._around and bool(self.added)
        self.skipping = free and drift < self.caching.threshold
        self._drift = drift if self.skipping else 0.0
        if not self.skipping:
            self.added.clear()
        self._before, self._around = now, around
        self.steps += 1
        self.skipped += self.skipping
        return self.skipping

    @property
    def keeping(self) -> bool:
        """Whether an answer of this step may be asked for again: not before the last of the first steps."""
        return not self.skipping and self.steps >= self.caching.first_steps

    def stand_in(self, branches: Sequence[int]) -> tuple[Tensor, ...] | None:
        """What stands in for the blocks for these branches, each (L, C); None: run them."""
        if not self.skipping or any(branch not in self.added for branch in branches):
            return None
        return tuple(self.added[branch] for branch in branches)

    def through(self, branches: Sequence[int], x: Tensor, blocks: Blocks) -> Tensor:
        """blocks(x), or what stands in for it. x (B, L, C): one item for each of the branches."""
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
        """For a backbone that predicts all branches of a step in one call: (modulation (B, 6, C), x (B, L, C), blocks)
        → what `blocks(x)` is."""

        def run(modulation: Tensor, x: Tensor, blocks: Blocks) -> Tensor:
            self.begin(modulation[:1], around)
            return self.through(branches, x, blocks)

        return run

    def place(self, x: Tensor) -> Tensor:
        """x where the answers are kept."""
        return x if self.caching.on_gpu else x.cpu()

    def clear(self) -> None:
        """Give the memory back."""
        self.added.clear()
        self._before = None

    def summary(self) -> str:
        """For the log."""
        share = self.skipped / max(self.steps, 1)
        return f"step cache left out the blocks in {self.skipped} of {self.steps} steps ({share:.0%})"


def add(x: Tensor, added: Sequence[Tensor]) -> Tensor:
    """x (B, L, C) with what the blocks would add to each item (L, C)."""
    return torch.stack([item + more.to(item) for item, more in zip(x, added, strict=True)])

"""The whole network in plain PyTorch: the Wan backbone with the audio adapter, as one function for the velocity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..sampling.schedule import TIMESTEPS
from .audio_adapter import AudioAdapter
from .audio_cross_attention import SpeechTokens
from .wan import BlockRunner, Running, WanBackbone, model_input, run_blocks


@dataclass(frozen=True)
class InfiniteTalkModel:
    """A Wan I2V backbone and the audio adapter that belongs to it.

    recompute: gradient checkpointing of each block, for training large models.
    """

    backbone: WanBackbone
    adapter: AudioAdapter
    recompute: bool = False

    def predict(
        self,
        x: Tensor,
        sigma: Tensor,
        text: Tensor,
        speech: Sequence[SpeechTokens],
        reference: Tensor,
        mask: Tensor,
        clip: Tensor | None = None,
        after_block: Callable[[int, Tensor], Tensor] | None = None,
        block_runner: BlockRunner = run_blocks,
    ) -> Tensor:
        """Predict the velocity (B, 16, T, h, w) of x (B, 16, T, h, w) at noise levels sigma (B,).

        text (B, M, text_dim); speech: B items; reference (1, 16, T, h, w): z2; mask (1, 4, T, h, w): m; clip (B, 257,
        clip_dim) or None; after_block: see `WanBackbone.forward`; block_runner: see `Running`.
        """
        z = model_input(x, mask, reference.expand(len(x), -1, -1, -1, -1))
        running = Running(self.recompute, block_runner)
        return self.backbone(z, sigma * TIMESTEPS, text, clip, self.adapter, speech, 1.0, after_block, running)

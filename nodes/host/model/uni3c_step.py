"""Uni3C in one denoising step of ComfyUI's Wan model: its residuals are computed once and shared by the branches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.wan.model import sinusoidal_embedding_1d
from torch import Tensor

from ....infinitetalk_core.chunks.camera_control import CameraConditioning, CameraControl
from ....infinitetalk_core.model.uni3c import Uni3C

WAN_CHANNELS = 20  # channels of the DiT's input that Uni3C takes: noisy latents and their mask


@dataclass
class Uni3CStep:
    """Uni3C during one step: its states are computed once, block by block, and shared by all guidance branches.

    States are kept only where the branches do not fit in one batch, since 20 of them take more than a gigabyte.
    """

    network: Uni3C
    latents: Tensor  # (1, 16, T, h, w), in the model's scale
    view: Tensor | None
    strength: float
    branches: int
    keep: bool = False
    states: list[Tensor] = field(default_factory=list)
    coming: Iterator[Tensor] | None = None

    def begin(self, backbone: Any, x: Tensor, timestep: Tensor, options: dict[str, Any]) -> None:
        """Start the states from the DiT's input x (B, 36, T, h, w); does nothing after the first call of a step.

        Only the first item is used, since the items of a batch differ in their conditions only.
        """
        if self.coming is not None:
            return
        self.keep = len(x) < self.branches
        first = x[:1]
        embedded = sinusoidal_embedding_1d(backbone.freq_dim, timestep[:1].flatten()).to(x.dtype)
        attention = partial(_attention, options)
        self.coming = self.network.states(
            first[:, :WAN_CHANNELS], self.latents, backbone.time_embedding(embedded), self.view, attention
        )

    def after_block(self, index: int, x: Tensor) -> Tensor:
        """Add Uni3C's residual to x (B, L, C), the output of Wan's block `index`."""
        if index >= self.network.config.blocks:
            return x
        if index < len(self.states):
            state = self.states[index]
        else:
            assert self.coming is not None
            state = next(self.coming)
            if self.keep:
                self.states.append(state)
        return torch.add(x, self.network.residual(index, state), alpha=self.strength)


def _attention(options: dict[str, Any], q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    return optimized_attention(q, k, v, heads, transformer_options=options)


def uni3c_steps(
    control: CameraControl,
    network: Uni3C,
    camera: CameraConditioning,
    model: Any,
    device: Any,
    branches: int,
) -> Callable[[], Uni3CStep]:
    """Return a function that creates the `Uni3CStep` of each step; what is the same in every step is computed here.

    model: ComfyUI's BaseModel, for the scale of its latents and the dtype it computes in.
    """
    view = None
    if camera.mask is not None:
        dtype = model.manual_cast_dtype or model.get_dtype()
        view = network.view_tokens(camera.mask, camera.rays, device).to(dtype)
    latents = model.process_latent_in(camera.latents.to(device))
    return partial(Uni3CStep, network, latents, view, control.strength, branches)

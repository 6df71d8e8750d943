"""Decode a window of a picture, with the rest of the picture known where that is cheap.

The decoder's colors depend on the whole picture and on the whole past of a chunk: small crops and short clips do not
show how they turn in a demo's chunk. Most of its time goes to the two highest resolutions, whose layers look only a
few pixels aside, so there a window is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from infinitetalk_core.model.vae import WanVae

_WHOLE = 8  # layers of the decoder's `upsamples` before the two highest resolutions
_SCALE = 2  # pixels of the picture for each of their first resolution


@dataclass(frozen=True)
class Window:
    """A square of a picture, in pixels. Around it a margin is computed too, which lacks what lies beyond it."""

    top: int
    left: int
    side: int
    margin: int = 4

    @classmethod
    def drawn(cls, rng: np.random.Generator, size: tuple[int, int], side: int) -> Window:
        """Draw a window of a picture (height, width) that has room for the margin."""
        top, left = (
            cls.margin + _SCALE * int(rng.integers(0, (edge - side - 2 * cls.margin) // _SCALE + 1)) for edge in size
        )
        return cls(top, left, side)

    def of(self, pixels: Tensor) -> Tensor:
        """Cut the window out of (..., H, W)."""
        return pixels[..., self.top : self.top + self.side, self.left : self.left + self.side]


def decode_window(vae: WanVae, latents: Tensor, window: Window) -> Tensor:
    """Return the window of `vae.pixels(latents)`: (B, 3, F, side, side)."""
    layers = list(vae.decoder.upsamples)
    features = vae.decoder.middle(vae.decoder.conv1(vae.conv2(vae.unscaled(latents))))
    for layer in layers[:_WHOLE]:
        features = layer(features)
    first, length = window.margin, (window.side + 2 * window.margin) // _SCALE
    top, left = (window.top - first) // _SCALE, (window.left - first) // _SCALE
    features = features[..., top : top + length, left : left + length]
    for layer in layers[_WHOLE:]:
        features = layer(features)
    return vae.decoder.head(features)[..., first:-first, first:-first]

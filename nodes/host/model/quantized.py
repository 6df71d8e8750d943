"""A Linear layer that stores its weight quantized and dequantizes it in `forward`.

ComfyUI's own layers for quantized weights support fp8 but not GGUF, and those of 0.3.75 and 0.33 are configured in
different ways. Both have `cast_bias_weight`, which brings the stored bytes to the device like any other weight: from
RAM piece by piece, pinned, ahead of time on another stream, or from 0.33's dynamic VRAM.
"""

from __future__ import annotations

import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor

from ....infinitetalk_core.checkpoints.weights_file import Quantized, Weights, dequantize


class QuantizedLinear(torch.nn.Module, comfy.ops.CastWeightBiasOp):
    """Linear whose `weight` is the stored bytes of a `Quantized` (rows, bytes) and whose `weight_scale` its scale."""

    comfy_cast_weights = True

    def __init__(self, like: Quantized, bias: bool):
        super().__init__()
        self.layout = like.layout
        self.out_features, self.in_features = like.shape
        self.weight = torch.nn.Parameter(torch.empty_like(like.stored, device="meta"), requires_grad=False)
        # One number per tensor or row: too small to stream, so it is moved where it is used.
        scale = None if like.scale is None else torch.empty_like(like.scale, device="meta")
        self.weight_scale: Tensor | None
        self.register_buffer("weight_scale", scale)
        self.bias: torch.nn.Parameter | None = None
        if bias:
            self.bias = torch.nn.Parameter(torch.empty(self.out_features, device="meta"), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, in) to (…, out), in the dtype of x."""
        comfy.ops.run_every_op()
        # The weight's own dtype, so that the bytes are moved and not cast.
        weight, bias, stream = comfy.ops.cast_bias_weight(
            self, dtype=self.weight.dtype, device=x.device, bias_dtype=x.dtype, offloadable=True
        )
        dequantized = dequantize(weight, self.layout, self.weight_scale, x.dtype)
        y = F.linear(x, dequantized, bias)
        comfy.ops.uncast_bias_weight(self, weight, bias, stream)
        return y


def put_quantized_layers(module: torch.nn.Module, weights: Weights) -> dict[str, Tensor]:
    """Replace the Linear layers of `module` whose weight is `Quantized`; return the state dict to load into it.

    Quantized weights of other layers (a few convolutions) are dequantized to float32 here.
    """
    loaded: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if not isinstance(weight, Quantized):
            loaded[name] = weight
            continue
        owner, leaf = name.rpartition(".")[::2]
        if leaf != "weight" or not isinstance(module.get_submodule(owner), torch.nn.Linear):
            loaded[name] = weight.dequantize(torch.float32)
            continue
        parent, attribute = owner.rpartition(".")[::2]
        layer = QuantizedLinear(weight, bias=f"{owner}.bias" in weights)
        setattr(module.get_submodule(parent), attribute, layer)
        loaded[name] = weight.stored
        if weight.scale is not None:
            loaded[f"{owner}.weight_scale"] = weight.scale
    return loaded


def weights_of(module: torch.nn.Module) -> dict[str, Tensor | Quantized]:
    """Return the weights of a module as its file gave them, on the CPU: the reverse of `put_quantized_layers`.

    They share memory with those of the module that are on the CPU.
    """
    stored: dict[str, Tensor] = {name: weight.cpu() for name, weight in module.state_dict().items()}
    weights: dict[str, Tensor | Quantized] = dict(stored)
    for name, layer in module.named_modules():
        if isinstance(layer, QuantizedLinear):
            shape = (layer.out_features, layer.in_features)
            scale = stored.get(f"{name}.weight_scale")
            weights.pop(f"{name}.weight_scale", None)
            weights[f"{name}.weight"] = Quantized(stored[f"{name}.weight"], layer.layout, shape, scale)
    return weights

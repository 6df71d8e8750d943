"""How much memory a chunk asks ComfyUI for before its weights are loaded, and a second try when it was not enough.

ComfyUI loads MODEL, audio adapter and Uni3C in one `load_models_gpu` and leaves free what it reckons a prediction
takes; for Wan that is nearly twice what is measured, which on small cards is weights that come from RAM at every
step. So the MODEL asks for the measured amount with a margin, and if that fails, once for much more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...infinitetalk_core.model.memory import BackboneSizes, camera_bytes
from .patchers import Patcher
from .step_cache import step_caching_of
from .uni3c import KEY as CAMERA_KEY

log = logging.getLogger("infinitetalk")
KEY = "infinitetalk_memory"
GB = 1e9
MARGIN = 1.15  # the estimate's own error
# Weights on their way from RAM, quantised ones becoming numbers, the workspace of matrix products.
IN_PASSING_BYTES = 500_000_000
MORE = 2.5  # times as much for the second try: about what ComfyUI itself would ask for, and a half on top


@dataclass
class MemoryMargin:
    """How much more memory than estimated the chunks of one job ask for; it stays, once it had to grow."""

    factor: float = 1.0


def ask_for_memory(executor: Any, model: Patcher, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any) -> Any:
    """Wrapper of ComfyUI's preparation for sampling. It reckons with the shape of the noise and nothing else, in
    proportion, so another amount is asked for by another number of items."""
    hosts = float(model.memory_required([1, *noise_shape[1:]]))
    if hosts > 0:
        asked = needed_bytes(model, noise_shape) * (model.get_attachment(KEY) or 1.0)
        noise_shape = [noise_shape[0] * asked / hosts, *noise_shape[1:]]
    return executor(model, noise_shape, conds, *args, **kwargs)


def needed_bytes(model: Patcher, noise_shape: Any) -> float:
    """What one item needs beside the weights. noise_shape: (B, 16, T, h, w)."""
    base = model.model
    backbone = base.diffusion_model
    sizes = BackboneSizes(backbone.dim, backbone.ffn_dim, backbone.num_heads)
    frames, height, width = noise_shape[2:]
    tokens = frames * -(-height // 2) * -(-width // 2)
    dtype_bytes = comfy.model_management.dtype_size(base.manual_cast_dtype or base.get_dtype())
    needed = sizes.activation_bytes(1, tokens, dtype_bytes)
    for patcher in model.get_additional_models_with_key(CAMERA_KEY):
        c = patcher.model.config
        needed += camera_bytes(tokens, c.blocks, c.dim, c.out_dim, dtype_bytes)
    caching = step_caching_of(model)
    if caching is not None:
        needed += caching.gpu_bytes(tokens, backbone.dim, dtype_bytes)
    return needed * MARGIN + IN_PASSING_BYTES


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU had no room; newer ComfyUI knows more ways in which drivers say so."""
    known = getattr(comfy.model_management, "is_oom", None)
    return bool(known(error)) if known else isinstance(error, torch.cuda.OutOfMemoryError)


def retry_on_oom(make: Callable[[Patcher], Tensor], model: Patcher, room: MemoryMargin, shape: Any) -> Tensor:
    """`make(model)`; where memory does not suffice, once more with everything unloaded first and more of the weights
    left in RAM. After that an error with the numbers. shape: of the latents, (1, 16, T, h, w)."""
    said = ""
    for last in (False, True):
        try:
            return make(_with_room(model, room))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).split("\n")[0]
        # Out here, since the error holds on to the tensors of the attempt.
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        if not last:
            room.factor *= MORE
            log.warning("InfiniteTalk: out of memory (%s); once more with more of the weights in RAM", said)
    raise RuntimeError(f"{_shortage(model, shape)} ({said})")


def _with_room(model: Patcher, room: MemoryMargin) -> Patcher:
    if room.factor == 1.0:
        return model
    roomy = model.clone()
    roomy.set_attachments(KEY, room.factor)
    return roomy


def _shortage(model: Patcher, shape: Any) -> str:
    device = model.load_device
    free = comfy.model_management.get_free_memory(device) / GB
    total = comfy.model_management.get_total_memory(device) / GB
    frames, height, width = shape[2] * 4 - 3, shape[3] * 8, shape[4] * 8
    return (
        f"out of memory, also with the weights in RAM: a chunk of {frames} frames at {width} x {height} needs about "
        f"{needed_bytes(model, shape) / GB:.1f} GB beside the weights, and {free:.1f} of {total:.1f} GB are free with "
        "nothing loaded; lower chunk_frames or the size of the video, or close other programs that use the GPU"
    )

"""Memory that ComfyUI reserves for a chunk before it loads the weights, and a retry when it was not enough.

ComfyUI loads MODEL, audio adapter and Uni3C in one `load_models_gpu` and keeps free what it estimates for a
prediction. For Wan the estimate is nearly twice what is measured, so on small GPUs more weights are streamed from RAM
at every step. The MODEL therefore asks for the measured amount with a margin and, if that fails, once much more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import comfy.model_management
import torch
from torch import Tensor

from ....infinitetalk_core.log import log
from ....infinitetalk_core.model.memory import BackboneSizes, camera_bytes
from ....infinitetalk_core.model.out_of_memory import is_gpu_out_of_memory
from .cached_blocks import step_caching_of
from .patchers import Patcher, compute_dtype
from .uni3c import KEY as CAMERA_KEY
from .weights_on_gpu import is_dynamic

KEY = "infinitetalk_memory"
MULTI_GPU = "multigpu"  # ComfyUI's key of the copies of a MODEL on other GPUs
GB = 1e9
MARGIN = 1.15  # for the error of the estimate
# Temporary buffers: weights streamed from RAM, dequantized weights, the workspace of matrix products.
IN_PASSING_BYTES = 500_000_000
RETRY_FACTOR = 2.5  # factor for the retry: about half as much again as ComfyUI itself would request
T = TypeVar("T")


@dataclass
class MemoryMargin:
    """Factor on the estimated memory of the chunks of one job; a retry raises it for all further chunks."""

    factor: float = 1.0


def request_memory(executor: Any, model: Patcher, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any) -> Any:
    """Wrap ComfyUI's prepare_sampling so that it reserves our memory estimate.

    ComfyUI estimates memory from the noise shape only, in proportion to it, so we request a different amount by scaling
    the batch dimension.
    """
    # Not the patcher's `memory_required`: 0.33's dynamic one is padded, and `estimate_memory` asks the model itself.
    comfy_bytes = float(model.model.memory_required([1, *noise_shape[1:]]))
    if comfy_bytes > 0:
        requested_bytes = needed_bytes(model, noise_shape, len(conds)) * (model.get_attachment(KEY) or 1.0)
        noise_shape = [noise_shape[0] * requested_bytes / comfy_bytes, *noise_shape[1:]]
        _load_additional_models(model, requested_bytes)
    return executor(model, noise_shape, conds, *args, **kwargs)


def _load_additional_models(model: Patcher, requested_bytes: float) -> None:
    """Load the additional models of `model` before it, the last one first, as ComfyUI 0.33 does.

    0.3.75 puts them and the MODEL into a set, so that chance decided which of them is loaded first and stays whole on a
    small GPU. Those that are whole are left alone, since ComfyUI would make room for a request at the cost of others.
    """
    patchers = [patcher for key, of_key in model.additional_models.items() if key != MULTI_GPU for patcher in of_key]
    for patcher in reversed(patchers):
        in_part = patcher.loaded_size() < patcher.model_size()
        if in_part and patcher.load_device.type != "cpu" and not is_dynamic(patcher):
            comfy.model_management.load_models_gpu(
                [patcher], memory_required=requested_bytes, minimum_memory_required=requested_bytes
            )


def needed_bytes(model: Patcher, noise_shape: Any, branches: int = 2) -> float:
    """Return the bytes that one batch item needs besides the weights.

    noise_shape: (B, 16, T, h, w). branches: guidance branches of a step; one keeps one state of Uni3C at a time.
    """
    backbone = model.model.diffusion_model
    sizes = BackboneSizes(backbone.dim, backbone.ffn_dim, backbone.num_heads)
    frames, height, width = noise_shape[2:]
    tokens = frames * -(-height // 2) * -(-width // 2)
    dtype_bytes = comfy.model_management.dtype_size(compute_dtype(model))
    needed = sizes.activation_bytes(1, tokens, dtype_bytes)
    for patcher in model.get_additional_models_with_key(CAMERA_KEY):
        c = patcher.model.config
        states = c.blocks if branches > 1 else 1
        needed += camera_bytes(tokens, states, c.dim, c.out_dim, dtype_bytes)
    caching = step_caching_of(model)
    if caching is not None:
        needed += caching.gpu_bytes(tokens, backbone.dim, dtype_bytes)
    return needed * MARGIN + IN_PASSING_BYTES


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the GPU ran out of memory, by PyTorch's errors or by what ComfyUI takes for that."""
    management = comfy.model_management
    if isinstance(error, management.InterruptProcessingException):
        return False
    # ComfyUI's class is Exception itself where PyTorch has none.
    known = () if management.OOM_EXCEPTION is Exception else (management.OOM_EXCEPTION,)
    return is_gpu_out_of_memory(error, known)


def retry_on_oom(make: Callable[[Patcher], Tensor], model: Patcher, margin: MemoryMargin, shape: Any) -> Tensor:
    """Return `make(model)`; when out of memory, unload everything and retry once with more of the weights in RAM.

    margin: the margin, which the retry raises. shape: of the latents, (1, 16, T, h, w). Raises RuntimeError with the
    amounts of memory if the retry fails too.
    """
    made = _attempt(lambda: make(_with_margin(model, margin)))
    if isinstance(made, Shortage):
        margin.factor *= RETRY_FACTOR
        log.warning("out of memory (%s); once more with more of the weights in RAM", made.reason)
        made = _attempt(lambda: make(_with_margin(model, margin)))
    if isinstance(made, Shortage):
        raise RuntimeError(f"{_shortage(model, shape)} ({made.reason})")
    return made


def retry_unloaded(first: Callable[[], T], second: Callable[[], T], how: str) -> T:
    """Return `first()`; when out of memory, unload everything and return `second()`. how: what that does, for the log.

    For the smaller models. ComfyUI's own second try, a VAE in tiles, keeps the other models loaded, and 0.3.75 misses
    the errors of CUDA's libraries.
    """
    made = _attempt(first)
    if isinstance(made, Shortage):
        log.warning("out of memory (%s); once more %s, with all other models in RAM", made.reason, how)
        return second()
    return made


@dataclass(frozen=True)
class Shortage:
    """An attempt that ran out of memory. reason: the first line of its error."""

    reason: str


def _attempt(make: Callable[[], T]) -> T | Shortage:
    """Return `make()`; when out of memory, a Shortage, with all models unloaded."""
    try:
        return make()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).split("\n")[0]
    # After the except block, since the exception keeps the tensors of the attempt alive.
    _discard_device_error()
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    return Shortage(reason)


def _discard_device_error() -> None:
    """Receive a CUDA error that is still to be reported: CUDA may repeat it once, at the next call of any kind."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=comfy.model_management.get_torch_device()).add(1).cpu()


def _with_margin(model: Patcher, margin: MemoryMargin) -> Patcher:
    if margin.factor == 1.0:
        return model
    patched = model.clone()
    patched.set_attachments(KEY, margin.factor)
    return patched


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

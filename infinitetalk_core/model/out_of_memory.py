"""Tells whether an exception means that the GPU ran out of memory: PyTorch's, CUDA's, cuBLAS's, cuDNN's and others."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

MEMORY_ALLOCATION = 2  # error code of CUDA and HIP
# PyTorch before 2.8 raises errors of the device as RuntimeError.
_ACCELERATOR_ERRORS: tuple[type[BaseException], ...] = (
    (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()
)
_DEVICE_ERROR = r"(CUDA|HIP)( driver)? error: "
_SHORTAGE = (
    r"(?i)out[ _]of[ _](device[ _])?memory|(?<!LAUNCH_)OUT_OF_RESOURCES"
    r"|STATUS_(\w+_)?ALLOC(ATION)?_FAILED|CUFFT_ALLOC_FAILED|CUSPARSE_STATUS_INSUFFICIENT_RESOURCES"
    r"|NOT_INITIALIZED when calling .?(cu|hip|roc)\w*create"  # the workspace of a library's handle did not fit
    r"|not enough GPU video memory"
)
# RAM, which more weights in RAM do not help.
_RAM = r"(?i)HOST_ALLOCATION_FAILED|OUT_OF_HOST_MEMORY|CPUAllocator"


def is_gpu_out_of_memory(error: BaseException, known: tuple[type[BaseException], ...] = ()) -> bool:
    """Return whether the GPU ran out of memory: in `error`, or in one that it was raised from or while handling.

    known: further exception classes that mean it. After another error of the device (an illegal memory access) nothing
    can run on it any more, so that is no shortage, whatever came before.
    """
    chain = list(_chain(error))
    shortages = [link for link in chain if isinstance(link, known) or _is_shortage(link)]
    return bool(shortages) and not any(is_device_error(link) for link in chain if link not in shortages)


def _is_shortage(error: BaseException) -> bool:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    if isinstance(error, _ACCELERATOR_ERRORS) and getattr(error, "error_code", None) == MEMORY_ALLOCATION:
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and bool(re.search(_SHORTAGE, text)) and not re.search(_RAM, text)


def is_device_error(error: BaseException) -> bool:
    """Return whether an error is the device's own, after most of which nothing runs on it any more."""
    return isinstance(error, _ACCELERATOR_ERRORS) or (
        isinstance(error, RuntimeError) and bool(re.match(_DEVICE_ERROR, str(error)))
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

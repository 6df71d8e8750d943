"""The functions of PyTorch that ask for a GPU, answered by a simulated one (simulated_gpu.py)."""

from __future__ import annotations

import collections
import contextlib
import linecache
import sys
from types import SimpleNamespace
from typing import Any

import torch
import torch._subclasses.fake_tensor
import torch.nn.functional as F
from simulated_gpu import GPU, NOT_A_CALLER, SCALAR, SimulatedGpu, caller
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

NAME = "NVIDIA Simulated"
CUDNN = 91900


def install(gpu: SimulatedGpu, capability: tuple[int, int]) -> None:
    """Replace the functions of torch.cuda, FakeTensor and others that need a driver."""
    torch._C._ensureCUDADeviceGuardSet()
    torch.version.cuda = "13.0"
    # A CUDA build would look for a driver.
    torch._subclasses.fake_tensor.init_gpu_context = lambda device: None
    _install_device(gpu, capability)
    _install_memory(gpu)
    _install_streams(gpu)
    _install_numbers(gpu)
    _install_tensor_methods()
    _install_creation()
    _install_attention()
    _disable_comfy_kitchen()


def _install_device(gpu: SimulatedGpu, capability: tuple[int, int]) -> None:
    properties = SimpleNamespace(
        name=NAME, major=capability[0], minor=capability[1], total_memory=gpu.total, multi_processor_count=128
    )
    answers = {
        "is_available": True,
        "_is_compiled": True,
        "is_initialized": True,
        "_lazy_init": None,
        "device_count": 1,
        "set_device": None,
        "get_device_name": NAME,
        "get_device_capability": capability,
        "is_bf16_supported": True,
        "get_allocator_backend": "native",
        "get_device_properties": properties,
        "manual_seed_all": None,
        "ipc_collect": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, _always(answer))
    torch.cuda.random.manual_seed_all = _always(None)
    torch.cuda.current_device = _current_device
    torch.backends.cudnn.is_available = _always(True)
    torch.backends.cudnn.version = _always(CUDNN)


def _always(answer: Any) -> Any:
    return lambda *args, **kwargs: answer


def _current_device() -> Any:
    # ComfyUI makes a torch.device of the number, which a CPU build does not take.
    return GPU if sys._getframe(1).f_code.co_filename.endswith("model_management.py") else 0


def _install_memory(gpu: SimulatedGpu) -> None:
    def stats(*args: Any) -> dict[str, int]:
        counts = {"active": gpu.active, "allocated": gpu.active, "reserved": gpu.reserved}
        return collections.defaultdict(int, {f"{name}_bytes.all.current": count for name, count in counts.items()})

    def reset_peak(*args: Any) -> None:
        gpu.peak = gpu.active

    def set_fraction(share: float, *args: Any) -> None:
        gpu.limit = int(share * gpu.total) + gpu.context  # PyTorch limits its own part

    torch.cuda.memory_stats = stats
    torch.cuda.mem_get_info = lambda *args: (gpu.free, gpu.total)
    torch.cuda.memory_reserved = lambda *args: gpu.reserved
    torch.cuda.memory_allocated = lambda *args: gpu.active
    torch.cuda.max_memory_allocated = lambda *args: gpu.peak
    torch.cuda.reset_peak_memory_stats = reset_peak
    torch.cuda.set_per_process_memory_fraction = set_fraction
    torch.cuda.empty_cache = gpu.forget_cache


def _install_streams(gpu: SimulatedGpu) -> None:
    class Stream:
        cuda_stream = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def wait_stream(self, *args: Any) -> None: ...

        def wait_event(self, *args: Any) -> None: ...

        def record_event(self, *args: Any) -> None: ...

        def synchronize(self) -> None: ...

        def as_context(self) -> Any:
            return contextlib.nullcontext()

    pinning = SimpleNamespace(cudaHostRegister=_always(0), cudaHostUnregister=_always(0))
    torch.cuda.Stream = Stream
    torch.cuda.current_stream = lambda *args: Stream()
    torch.cuda.stream = lambda stream: contextlib.nullcontext()
    torch.cuda.synchronize = lambda *args: gpu.wait("synchronize")
    torch.cuda.cudart = lambda: pinning
    # Whether a tensor is pinned is asked of an accelerator.
    torch.Tensor.is_pinned = _always(False)
    torch.Tensor.pin_memory = lambda self, *args, **kwargs: self


def _install_numbers(gpu: SimulatedGpu) -> None:
    """Answer where the CPU reads a number: a wait, and a plausible value."""

    def number(kind: str) -> Any:
        def read(self: FakeTensor) -> Any:
            if self.device.type == "cuda":
                gpu.wait(kind)
            if self.dtype == torch.bool or kind == "bool":
                # Latents must not look broken: "is finite" is true, "has no contrast" is not.
                return "std" not in _calling_line()
            value = SCALAR if self.dtype.is_floating_point else 1
            return int(value) if kind == "int" else value

        return read

    FakeTensor.item, FakeTensor.__float__, FakeTensor.__bool__ = number("item"), number("float"), number("bool")
    FakeTensor.__int__ = FakeTensor.__index__ = number("int")
    FakeTensor.tolist = lambda self: self.cpu().tolist()


def _calling_line() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in NOT_A_CALLER):
        frame = frame.f_back
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno)


def _install_tensor_methods() -> None:
    """Replace methods whose bindings in PyTorch guard the device, which a CPU build cannot for CUDA."""
    FakeTensor.__invert__ = lambda self: torch.ops.aten.bitwise_not(self)
    FakeTensor.__getitem__ = _getitem
    FakeTensor.__setitem__ = _setitem
    FakeTensor.copy_ = lambda self, source, non_blocking=False: torch.ops.aten.copy_(self, source, non_blocking)
    FakeTensor.contiguous = _contiguous
    FakeTensor.new_tensor = lambda self, data, dtype=None, device=None, **others: torch.tensor(
        data, dtype=dtype or self.dtype
    ).to(device or self.device)
    torch.nn.Module._apply = _apply


def _contiguous(self: FakeTensor, memory_format: Any = torch.contiguous_format) -> Tensor:
    return self if self.is_contiguous(memory_format=memory_format) else self.clone(memory_format=memory_format)


def _apply(self: torch.nn.Module, function: Any, recurse: bool = True) -> torch.nn.Module:
    """nn.Module._apply that replaces parameters, since the data of a CPU tensor cannot be set to a FakeTensor."""
    for child in self.children() if recurse else ():
        child._apply(function)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                new = function(parameter)
            if new is not parameter:
                self._parameters[name] = torch.nn.Parameter(new, requires_grad=False)
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = function(buffer)
    return self


def _getitem(x: Tensor, index: Any) -> Tensor:
    """Index x (Tensor.__getitem__) by operators."""
    index = _without_ellipsis(x, index if isinstance(index, tuple) else (index,))
    dim, tensors = 0, {}
    for part in index:
        if part is None:
            x, dim = x.unsqueeze(dim), dim + 1
        elif isinstance(part, slice):
            if part != slice(None):
                x = torch.ops.aten.slice(x, dim, part.start, part.stop, 1 if part.step is None else part.step)
            dim += 1
        elif isinstance(part, int):
            x = x.select(dim, part)
        else:
            found = part if isinstance(part, Tensor) else torch.tensor(list(part))
            tensors[dim] = found
            dim += found.ndim if found.dtype == torch.bool else 1
    if not tensors:
        return x
    return torch.ops.aten.index(x, [tensors.get(d) for d in range(max(tensors) + 1)])


def _without_ellipsis(x: Tensor, index: tuple[Any, ...]) -> tuple[Any, ...]:
    at = next((number for number, part in enumerate(index) if part is Ellipsis), None)
    if at is None:
        return index
    used = [part for part in index if part is not None and part is not Ellipsis]
    # A bool mask takes as many axes as it has.
    axes = sum(part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1 for part in used)
    return (*index[:at], *[slice(None)] * (x.ndim - axes), *index[at + 1 :])


def _setitem(x: Tensor, index: Any, value: Any) -> None:
    part = _getitem(x, index)
    part.copy_(value) if isinstance(value, Tensor) else part.fill_(value)


def _install_creation() -> None:
    """Let torch.tensor and torch.Generator take the device of the GPU."""
    plain_tensor, plain_generator = torch.tensor, torch.Generator

    def tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        made = plain_tensor(data, *args, **kwargs)
        return made if device is None else made.to(device)

    class Generator(plain_generator):
        def __new__(cls, device: Any = "cpu") -> Any:
            return plain_generator.__new__(cls)

    torch.tensor, torch.Generator = tensor, Generator


def _install_attention() -> None:
    """Check the inputs of scaled dot-product attention, and keep its result's shape and layout."""
    plain = F.scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not any(isinstance(t, FakeTensor) for t in (q, k, v)):
            return plain(q, k, v, *args, **kwargs)
        kinds = {(str(t.dtype), str(t.device)) for t in (q, k, v)}
        if len(kinds) > 1:
            raise RuntimeError(f"attention of mixed types or devices {sorted(kinds)} at {caller()}")
        batch, heads, length, _ = q.shape
        return q.new_empty((batch, length, heads, v.shape[-1])).transpose(1, 2)

    F.scaled_dot_product_attention = attention


def _disable_comfy_kitchen() -> None:
    """Let newer ComfyUI compute with PyTorch where it would call kernels of its own, which read the memory itself."""
    try:
        from comfy_kitchen import registry
    except ImportError:
        return
    for backend in ("cuda", "triton"):
        registry.disable(backend)

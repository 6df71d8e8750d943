"""A GPU that computes nothing: its tensors are FakeTensors, so ComfyUI and the pack run as on an NVIDIA card.

    gpu = simulated_gpu.install(total_gib=24)      # before anything imports comfy
    with gpu:
        ...

It sees what needs no numbers: mixed devices and types, bytes over the bus and who sent them, waits of the CPU for the
GPU, memory and running out of it, every load and unload. It does not see results, fragmentation, or a kernel's inside.
All numbers that come back from it are made up.
"""

from __future__ import annotations

import collections
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
GIB = 2**30
ALLOCATION = 512  # bytes that memory is taken in
SCALAR = 0.5  # what the CPU reads for any number
# Operators whose floating-point inputs PyTorch requires to be of one type.
ONE_TYPE = {"mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "native_layer_norm", "layer_norm"}
ONE_TYPE |= {"native_group_norm", "group_norm", "matmul", "dot", "addmv", "mv", "conv3d", "conv2d"}
OWN_KERNELS = "infinitetalk"  # namespace of the pack's operators, which have shape functions
# Files that are no answer to "who did it".
NOT_A_CALLER = ("/torch/", "simulated_gpu.py", "simulated_cuda.py", "<frozen", "contextlib", "/einops/")


class SimulatedGpu(TorchDispatchMode):
    """The card: its memory and what crossed the bus.

    total: bytes; active, peak: bytes in use now and at most; to_gpu, from_gpu: bytes by caller; waits: waits of the CPU
    by kind and caller.
    """

    def __init__(self, total_gib: float, context_gib: float = 0.6) -> None:
        super().__init__()
        self.total = self.limit = int(total_gib * GIB)
        self.context = int(context_gib * GIB)
        self.active = self.reserved = self.peak = 0
        self.to_gpu: collections.Counter[str] = collections.Counter()
        self.from_gpu: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[tuple[str, str]] = collections.Counter()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._alive: dict[int, int] = {}
        self._handlers: dict[Any, Callable[[Call], Any]] = {
            aten._local_scalar_dense: self._read_number,
            aten.equal: self._compare,
            aten.is_nonzero: self._compare,
            aten.nonzero: self._find_true,
            aten.index: self._index,
            aten._to_copy: self._convert,
            aten.copy_: self._copy_into,
            aten._pin_memory: lambda call: call.args[0],
        }

    @property
    def free(self) -> int:
        """Bytes that are not reserved."""
        return self.total - self.context - self.reserved

    def wait(self, kind: str) -> None:
        """Note that the CPU waited for the GPU."""
        self.waits[kind, caller()] += 1

    def forget_cache(self) -> None:
        """Give back reserved memory that no tensor uses."""
        self.reserved = self.active

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = Call(func, *tree_map(_with_index, (args, kwargs or {})))
        if not call.uses_gpu:
            return func(*call.args, **call.kwargs)
        if func is torch.ops.prim.device.default:
            return call.args[0].fake_device
        if _is_composite(func):  # whole in inference mode
            with self:
                return func.decompose(*call.args, **call.kwargs)
        call.check_types()
        handler = self._handlers.get(call.packet)
        result = NotImplemented if handler is None else handler(call)
        return self._compute(call) if result is NotImplemented else result

    def _compute(self, call: Call) -> Any:
        if call.kwargs.get("generator") is not None:
            call.kwargs["generator"] = None
        with self._fake:
            out = call.func(*call.args, **call.kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, FakeTensor) and tensor.device.type == "cuda":
                self._take(tensor)
        return out

    def _take(self, tensor: FakeTensor) -> None:
        """Take memory for the tensor's storage, until the storage is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = -(-storage.nbytes() // ALLOCATION) * ALLOCATION
        if self.active + size + self.context > self.limit:
            self.reserved = self.active
            in_use = f"{self.active / GIB:.2f} of {self.limit / GIB:.1f} GiB are in use"
            raise torch.OutOfMemoryError(f"CUDA out of memory (simulated): {size / 2**20:.0f} MiB wanted, {in_use}")
        self._alive[key] = size
        self.active += size
        self.reserved, self.peak = max(self.reserved, self.active), max(self.peak, self.active)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.active -= self._alive.pop(key, 0)

    # -- operators that look at numbers, or cross the bus

    def _read_number(self, call: Call) -> Any:
        self.wait("item")
        dtype = call.args[0].dtype
        if dtype == torch.bool:
            return True
        return SCALAR if dtype.is_floating_point else 1

    def _compare(self, call: Call) -> bool:
        self.wait(call.name)
        return True

    def _find_true(self, call: Call) -> Tensor:
        self.wait("nonzero")
        return self._new((call.args[0].numel(), call.args[0].ndim), torch.int64)

    def _index(self, call: Call) -> Any:
        """Index by a bool mask, as if it were true everywhere."""
        masks = [i for i in call.args[1] if isinstance(i, Tensor) and i.dtype == torch.bool]
        if not masks:
            return NotImplemented
        self.wait("index by bool mask")
        source = call.args[0]
        return self._new((masks[0].numel(), *source.shape[masks[0].ndim :]), source.dtype)

    def _convert(self, call: Call) -> Any:
        source, device = call.args[0], call.device
        dtype = call.kwargs.get("dtype") or source.dtype
        if device == "cpu" and isinstance(source, FakeTensor):
            self.from_gpu[caller()] += _bytes(source)
            return _made_up(source, dtype)
        if device == "cuda" and not isinstance(source, FakeTensor):
            self.to_gpu[caller()] += _bytes(source)
            return self._new(source.shape, dtype, _dense_strides(source))
        return NotImplemented

    def _copy_into(self, call: Call) -> Any:
        target, source = call.args[:2]
        if isinstance(source, FakeTensor) and not isinstance(target, FakeTensor):
            self.from_gpu[caller()] += _bytes(source)
            return target
        if isinstance(target, FakeTensor) and not isinstance(source, FakeTensor):
            self.to_gpu[caller()] += _bytes(source)
            torch.broadcast_shapes(target.shape, source.shape)
            return target
        return NotImplemented

    def _new(self, shape: Any, dtype: torch.dtype, strides: Any = None) -> Tensor:
        with self._fake:
            if strides is None:
                new = torch.empty(shape, dtype=dtype, device=GPU)
            else:
                new = torch.empty_strided(shape, strides, dtype=dtype, device=GPU)
        self._take(new)
        return new


class Call:
    """One call of an operator. device: the type of the device that it asks for, or ""."""

    def __init__(self, func: Any, args: Any, kwargs: Any) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.packet = getattr(func, "overloadpacket", func)
        self.name = str(self.packet).removeprefix("aten.")
        leaves = tree_leaves((args, kwargs))
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        devices = [leaf.type for leaf in leaves if isinstance(leaf, torch.device)]
        self.device = devices[0] if devices else ""
        self.uses_gpu = "cuda" in devices or any(isinstance(tensor, FakeTensor) for tensor in self.tensors)

    def check_types(self) -> None:
        """Raise where PyTorch would, which FakeTensors do not: for matrix products of mixed types."""
        types = {str(tensor.dtype) for tensor in self.tensors}
        if self.name in ONE_TYPE and len(types) > 1:
            raise RuntimeError(f"{self.name}: mixed types {sorted(types)} at {caller()}")


def caller(depth: int = 3) -> str:
    """Return the innermost places outside of PyTorch that are running: "file:line:function < …"."""
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < depth:
        name = frame.f_code.co_filename
        if not any(part in name for part in NOT_A_CALLER):
            short = os.sep.join(name.split(os.sep)[-3:])
            found.append(f"{short}:{frame.f_lineno}:{frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


def install(total_gib: float = 24.0, capability: tuple[int, int] = (8, 9)) -> SimulatedGpu:
    """Make PyTorch believe in a GPU. Before anything imports comfy; nothing undoes it in this process."""
    import simulated_cuda

    gpu = SimulatedGpu(total_gib)
    simulated_cuda.install(gpu, capability)
    return gpu


def _with_index(value: Any) -> Any:
    """Return the device "cuda" as "cuda:0": a CPU build of PyTorch cannot ask which GPU is the current one."""
    return GPU if isinstance(value, torch.device) and value.type == "cuda" and value.index is None else value


_COMPOSITE: dict[Any, bool] = {}


def _is_composite(func: Any) -> bool:
    """Return whether an operator consists of others and has no shape function of its own."""
    if func not in _COMPOSITE:
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        _COMPOSITE[func] = (
            isinstance(func, torch._ops.OpOverload)
            and not func.name().startswith(OWN_KERNELS)
            and has(func.name(), "CompositeImplicitAutograd")
            and not has(func.name(), "Meta")
        )
    return _COMPOSITE[func]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _dense_strides(tensor: Tensor) -> tuple[int, ...]:
    return torch.empty_like(tensor.to("meta")).stride()


def _made_up(source: Tensor, dtype: torch.dtype) -> Tensor:
    """Return finite numbers for what comes back from the GPU; unloaded weights stay untouched memory."""
    if _is_unloaded_weight():
        return torch.empty(source.shape, dtype=dtype)
    numbers = torch.zeros(source.shape, dtype=torch.float32 if dtype.is_floating_point else dtype)
    if dtype.is_floating_point:
        numbers.view(-1)[::7] = 0.6
        numbers.view(-1)[1::5] = 0.2
    return numbers.to(dtype)


def _is_unloaded_weight() -> bool:
    frame = sys._getframe(3)
    for _ in range(30):
        if frame is None:
            return False
        if frame.f_code.co_filename.endswith("model_patcher.py"):
            return True
        frame = frame.f_back
    return False

"""A pretended GPU: tensors that compute on the CPU, say they are on cuda:0, and behave like it.

    with pretended_gpu.plugged_in() as gpu:
        run("1_analyze_mlm.py", …, "--device", "cuda")
    gpu.waits  # how often each line of the program waited for the device

A tensor moved to "cuda" becomes an `OnGpu`. Using it together with a CPU tensor raises, except where CUDA allows it
(numbers, copies, CPU indices of a tensor on the GPU); so do `numpy()` and indexing a CPU tensor from the GPU. What
makes the CPU wait until the GPU has finished its queue is counted by source line: reading a value, an operation whose
result's shape depends on values, and an upload that is not `non_blocking`. All threads see the GPU, the lanes too.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

SOURCE = Path(__file__).resolve().parent.parent / "src"
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
MIXED = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
REFUSED = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
INDEX = "indices should be either on cpu or on the same device as the indexed tensor (cpu)"

# Tensor's methods that read values, and functions whose result's shape depends on them.
READING = {
    "item",
    "tolist",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "__complex__",
    "__contains__",
    "__format__",
}
READING |= {"__repr__", "is_nonzero", "equal", "allclose", "nonzero", "argwhere", "masked_select", "unique", "bincount"}
READING |= {"unique_consecutive", "unique_dim", "nonzero_numpy", "tensor_split", "one_hot", "histc", "synchronize"}


class Gpu:
    """What is known of the pretended GPU: `waits`, how often which line (file:line of src/) waited for it."""

    def __init__(self):
        self.waits: Counter[str] = Counter()
        self.lock = threading.Lock()

    def wait(self) -> None:
        frame = sys._getframe(1)
        while frame and not _in_source(Path(frame.f_code.co_filename).absolute()):
            frame = frame.f_back
        if frame:  # the tests themselves may look as often as they like
            with self.lock:
                self.waits[f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"] += 1


def _in_source(file: Path) -> bool:
    return SOURCE in file.parents and file != Path(__file__)


_gpu = Gpu()


class OnGpu(Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return _on_gpu(function, args, dict(kwargs or {}))


def _plain(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


def _tensors(values) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _on_gpu(function, args: tuple, kwargs: dict):
    """A call that has an OnGpu among its arguments."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        attribute = resolve_name(function) or ""
        if attribute.endswith(".device.__get__"):
            return GPU
        if attribute.endswith(".is_cuda.__get__"):
            return True
        if attribute.endswith(".is_cpu.__get__"):
            return False
    elif name == "get_device":
        return 0
    elif name in ("numpy", "__array__"):
        raise TypeError(REFUSED)
    elif name in ("to", "cpu", "cuda"):
        return _moved(name, args, kwargs)
    elif name == "copy_":
        if any(not isinstance(x, OnGpu) for x in args[:2]) and not (kwargs.get("non_blocking") or args[2:]):
            _gpu.wait()
    elif name in ("__set__", "_has_compatible_shallow_copy_type"):
        pass  # of Module.to
    elif name in ("__getitem__", "__setitem__"):
        _check_index(name, *args)
    else:
        if any(not isinstance(x, OnGpu) and x.ndim for x in _tensors((args, kwargs))):
            raise RuntimeError(MIXED)
        by_values = name == "repeat_interleave" and any(isinstance(x, Tensor) for x in args[1:])
        if name in READING or (name == "where" and len(args) == 1) or (by_values and not kwargs.get("output_size")):
            _gpu.wait()
        if name == "new_tensor":
            _gpu.wait()
    if _is_gpu(kwargs.get("device")):
        del kwargs["device"]
    return Tensor.__torch_function__.__func__(OnGpu, function, (OnGpu,), args, kwargs)


def _check_index(name: str, x: Tensor, index, value=None) -> None:
    parts = index if isinstance(index, tuple) else (index,)
    tensors = [part for part in parts if isinstance(part, Tensor) and part.ndim]
    if not isinstance(x, OnGpu):
        if any(isinstance(part, OnGpu) for part in tensors):
            raise RuntimeError(INDEX)
        return
    uploaded = any(isinstance(part, list | range) for part in parts)
    uploaded |= any(not isinstance(part, OnGpu) for part in tensors)
    masked = any(part.dtype in (torch.bool, torch.uint8) for part in tensors)
    if name == "__setitem__" and isinstance(value, Tensor) and value.ndim and not isinstance(value, OnGpu):
        if tensors or uploaded:
            raise RuntimeError(MIXED)
        uploaded = True  # a copy into a slice
    # A mask that is filled with a number is looked at on the GPU.
    if uploaded or (masked and not (name == "__setitem__" and not isinstance(value, Tensor))):
        _gpu.wait()


def _is_gpu(device) -> bool:
    if isinstance(device, int) and not isinstance(device, bool):
        return True
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"


def _moved(name: str, args: tuple, kwargs: dict):
    """`to`, `cpu` and `cuda`, from either side."""
    x, *rest = args
    there = isinstance(x, OnGpu)
    if name != "to":
        target, rest = torch.device("cuda" if name == "cuda" else "cpu"), []
    else:
        target = kwargs.pop("device", None)
        if rest and isinstance(rest[0], Tensor):
            other = rest.pop(0)
            target, rest = torch.device("cuda" if isinstance(other, OnGpu) else "cpu"), [other.dtype, *rest]
        elif rest and isinstance(rest[0], str | torch.device | int):
            target = rest.pop(0)
        elif rest and rest[0] is None:
            rest.pop(0)
    to_gpu = there if target is None else _is_gpu(target)
    if rest and isinstance(rest[-1], bool):
        kwargs["non_blocking"] = rest.pop()
    blocking = not kwargs.get("non_blocking", False)
    if target is not None and not to_gpu and torch.device(target).type != "cpu":
        return x.to(target, *rest, **kwargs)  # meta
    with torch._C.DisableTorchFunctionSubclass():
        moved = _plain(x).to(*rest, **kwargs) if rest or kwargs.keys() & {"dtype", "memory_format"} else _plain(x)
        if there == to_gpu:
            return x if moved.dtype == x.dtype and not kwargs.get("copy") else _as(moved, to_gpu)
        moved = moved.clone()
    if blocking or not to_gpu:  # what is read before the copy has come would be wrong: it has to be waited for
        _gpu.wait()
    return _as(moved, to_gpu)


def _as(x: Tensor, to_gpu: bool) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(OnGpu if to_gpu else Tensor)


class _Calls(TorchFunctionMode):
    """Sees calls without an OnGpu, too: those that make one."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if any(isinstance(x, OnGpu) for x in _tensors((args, kwargs))):
            if name == "__set__" and not isinstance(args[0], OnGpu):
                return self._replace(*args)
            return function(*args, **kwargs)  # OnGpu itself sees to it
        if name in ("to", "cuda") and isinstance(args[0], Tensor):
            return _moved(name, args, kwargs)
        if not _is_gpu(kwargs.get("device")):
            return function(*args, **kwargs)
        del kwargs["device"]
        wanted = kwargs.pop("requires_grad", False)
        made = function(*args, **kwargs)
        if name in ("tensor", "as_tensor", "asarray", "from_numpy"):
            _gpu.wait()
        return torch.Tensor._make_subclass(OnGpu, made, wanted)

    @staticmethod
    def _replace(owner: Tensor, data: Tensor) -> None:
        """`owner.data = data`, as modules do when they are moved: the same tensor is on the GPU from then on."""
        with torch._C.DisableTorchFunction():
            is_parameter = isinstance(owner, torch.nn.Parameter)
            owner.data = data
        owner.__class__ = OnGpu
        owner._is_param = is_parameter


@contextmanager
def plugged_in() -> Iterator[Gpu]:
    global _gpu
    _gpu = Gpu()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "is_available": True,
            "device_count": 1,
            "current_device": 0,
            "get_device_name": "a pretended GPU",
            "get_device_capability": (9, 0),
            "set_device": None,
            "empty_cache": None,
            "is_bf16_supported": True,
            "max_memory_allocated": 0,
        }.items():
            patch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
        patch.setattr(torch.cuda, "synchronize", lambda *_: _gpu.wait())
        patch.setattr(Tensor, "pin_memory", lambda x, *_: x)
        run = threading.Thread.run

        def with_gpu(thread: threading.Thread) -> None:
            with _Calls():
                run(thread)

        patch.setattr(threading.Thread, "run", with_gpu)  # a mode is of one thread
        with _Calls():
            yield _gpu

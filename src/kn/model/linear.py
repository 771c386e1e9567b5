"""Matrix products with frozen weights.

The engine needs gradients of activations only, so the layout of its weights can be chosen once for the processor's
fastest matrix product. On a CPU this is oneDNN's packed layout. For float32, `torch.nn.functional.linear` is up to 2.5
times slower on AMD processors. On other devices, and for dtypes that oneDNN has no fast product for, `linear` is used.

The packed layout is only reached by operators that PyTorch does not document. They are tried with a small product
first; if they are missing, fail or give another result, `linear` is used and the user gets a line.

With weights packed once for products and once for gradients, a model needs its memory three times. Weights are packed
only if the machine has it. This goes by the machine's total memory, not by what is free: the last digits of a result
depend on it, and a run that resumes must decide as it did at first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from kn.model import devices
from kn.store.workers import LOCAL_WORKERS, note

ROWS = 1024  # the layout is made for this many rows; others work as well

COPIES = 3  # of packed weights
SHARE = 0.8  # of the memory that they may take
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.02}  # of a product in the dtypes that are packed

_round = 0  # how often `look_again` was called
_allowed = ContextVar("_allowed", default=True)


def look_again() -> None:
    """Have each layer verify, before its next product, that its weights are still those it packed.

    Every product notices weights that were replaced, or changed in place. This is for weights written to through
    `.data`, which PyTorch keeps no record of. It takes one pass over the weights.
    """
    global _round
    _round += 1


@contextmanager
def laying_out(allowed: bool) -> Iterator[None]:
    """Whether layers that are made in this context may pack their weights."""
    before = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(before)


def fits(model: nn.Module) -> bool:
    """Whether the machine has the memory to pack a model's weights in each of the job's processes on it."""
    weights = sum(weight.nbytes for weight in model.parameters() if _packs(weight))
    return COPIES * weights * LOCAL_WORKERS <= SHARE * devices.memory()


class FrozenLinear:
    """A linear layer for many products with the same weights. Only its input has a gradient.

    If the layer's weights change in whatever way, the next product uses the new ones.
    """

    version: int | None  # of the weights when they were last packed
    round: int | None  # when they were last checked

    def __init__(self, layer: nn.Module, transposed: bool = False):
        """`transposed`: the layer's own weights are inputs x outputs, as in GPT-2. `weight` is outputs x inputs."""
        self.layer, self.transposed, self.allowed = layer, transposed, _allowed.get()
        self._take()

    @property
    def weight(self) -> Tensor:
        self._look()
        return self._weight

    @property
    def bias(self) -> Tensor | None:
        self._look()
        return self._bias

    def __call__(self, x: Tensor) -> Tensor:
        self._look()
        if not self.packs:
            return linear(x, self._weight, self._bias)
        if self.version != self._weight._version or (self.round != _round and self._written_to()):
            self.forward_weight, self.backward_weight = _pack(self._weight), None
            self.version, self.product = self._weight._version, self._test_product()
        self.round = _round
        return _Product.apply(x, self)

    def _look(self) -> None:
        """Take the layer's tensors if they are others by now. Those held here are not freed, so addresses differ."""
        layer = self.layer
        if _address(layer.weight) != _address(self._weight) or _address(layer.bias) != _address(self._bias):
            self._take()

    def _take(self) -> None:
        weight, bias = self.layer.weight.detach(), self.layer.bias
        self._weight = weight.t() if self.transposed else weight
        self._bias = None if bias is None else bias.detach()
        self.packs = self.allowed and _packs(weight)
        self.version = self.round = None

    def _test_product(self) -> Tensor:
        """A product with random numbers, which would be another one with other weights."""
        width = self._weight.shape[1]
        return self._weight @ torch.rand(width, generator=torch.Generator().manual_seed(0)).to(self._weight)

    def _written_to(self) -> bool:
        return not torch.equal(self.product, self._test_product())


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return _multiply(x, layer.forward_weight, layer._bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        if layer.backward_weight is None:  # packed only if gradients are needed
            layer.backward_weight = _pack(layer._weight.t())
        return _multiply(gradient, layer.backward_weight, None), None


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _packs(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype in TOLERANCES
        and torch.backends.mkldnn.is_available()
        and works(weight.dtype)
    )


@cache
def works(dtype: torch.dtype) -> bool:
    """Whether a small packed product gives the result of `linear`. If not, the user is told once."""
    rng = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=rng).to(dtype) for shape in ((3, 16), (8, 16), (8,)))
    expected = linear(x, weight, bias)
    try:
        product = _multiply(x, _pack(weight), bias)
        reason = None if torch.allclose(product, expected, TOLERANCES[dtype], TOLERANCES[dtype]) else "differ"
    except Exception as error:  # missing operators and other arguments come as several kinds
        reason = f"fail ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
    if reason:
        note(
            f"oneDNN's packed matrix products {reason} in PyTorch {torch.__version__}: torch.nn.functional.linear is "
            "used instead, which may be slower"
        )
    return not reason


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

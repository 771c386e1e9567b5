"""Matrix products with frozen weights.

The engine needs gradients with respect to activations only, so its weights can be laid out once for the processor's
fastest matrix product. On a CPU that is oneDNN's; what `torch.nn.functional.linear` calls for float32 is up to 2.5
times slower on AMD processors. Elsewhere, and for the types oneDNN has no fast product for, this is
`torch.nn.functional.linear`.

Weights laid out once for products and once for gradients lie there three times. So they are only where the machine has
the memory. What decides is how much it has, not how much is free: the last digits depend on it, and a run that goes on
must decide as it did when it began.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from kn.model import devices
from kn.store.workers import LOCAL_WORKERS

ROWS = 1024  # the number of rows that the layout is made for; any other number works as well

COPIES = 3  # of weights that are laid out
SHARE = 0.8  # of the memory that they may take

_asked = 0
_allowed = ContextVar("_allowed", default=True)


def look_again() -> None:
    """From now on each layer makes sure, before its next product, that its weights are those that were laid out.

    Weights that were replaced, or changed in place, are noticed at each product. This is for those that were written
    to through `.data`, of which PyTorch keeps no record. It takes one pass over the weights.
    """
    global _asked
    _asked += 1


@contextmanager
def laying_out(allowed: bool) -> Iterator[None]:
    """Whether layers that are made here may lay out their weights."""
    before = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(before)


def fits(model: nn.Module) -> bool:
    """Whether the machine has the memory to lay out the weights of a model, for each of this job's processes on it."""
    weights = sum(weight.nbytes for weight in model.parameters() if _packs(weight))
    return COPIES * weights * LOCAL_WORKERS <= SHARE * devices.memory()


class FrozenLinear:
    """A linear layer for many products with the same weights. Its gradient is that of its input alone.

    Whatever is done to the layer's weights, the next product is with the new ones.
    """

    def __init__(self, layer: nn.Module, transposed: bool = False):
        """`transposed`: the layer's weights are inputs x outputs, as GPT-2's. `weight` is the other way round."""
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
        if self.version != self._weight._version or (self.asked != _asked and self._written_to()):
            self.forward_weight, self.backward_weight = _pack(self._weight), None
            self.version, self.product = self._weight._version, self._own_product()
        self.asked = _asked
        return _Product.apply(x, self)

    def _look(self) -> None:
        """The layer may have other tensors by now. Those held here aren't freed, so no other has their address."""
        own = self.layer
        if _address(own.weight) != _address(self._weight) or _address(own.bias) != _address(self._bias):
            self._take()

    def _take(self) -> None:
        weight, bias = self.layer.weight.detach(), self.layer.bias
        self._weight = weight.t() if self.transposed else weight
        self._bias = None if bias is None else bias.detach()
        self.packs = self.allowed and _packs(weight)
        self.version = self.asked = None

    def _own_product(self) -> Tensor:
        """A product with random numbers, which other weights would have differently."""
        width = self._weight.shape[1]
        return self._weight @ torch.rand(width, generator=torch.Generator().manual_seed(0)).to(self._weight)

    def _written_to(self) -> bool:
        return not torch.equal(self.product, self._own_product())


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return _multiply(x, layer.forward_weight, layer._bias)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        layer = ctx.layer
        if layer.backward_weight is None:  # where no gradients are asked for it is spared
            layer.backward_weight = _pack(layer._weight.t())
        return _multiply(gradient, layer.backward_weight, None), None


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _packs(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

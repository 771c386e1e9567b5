"""Matrix products with frozen weights.

The engine needs gradients with respect to activations only, so its weights can be laid out once for the processor's
fastest matrix product. On a CPU that is oneDNN's; what `torch.nn.functional.linear` calls for float32 is up to 2.5
times slower on AMD processors. Elsewhere, and for the types oneDNN has no fast product for, this is
`torch.nn.functional.linear`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

ROWS = 1024  # the number of rows that the layout is made for; any other number works as well


class FrozenLinear:
    """A linear layer for many products with the same weights. Its gradient is that of its input alone.

    Weights that were changed in place are noticed by their version, and laid out anew.
    """

    def __init__(self, layer: nn.Module, transposed: bool = False):
        """`transposed`: the layer's weights are inputs x outputs, as GPT-2's. `weight` is the other way round."""
        weight = layer.weight.detach()
        self.weight = weight.t() if transposed else weight
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.packs = _packs(self.weight)
        self.version = None

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packs:
            return linear(x, self.weight, self.bias)
        if self.version != self.weight._version:
            self.forward_weight = _pack(self.weight.contiguous())
            self.backward_weight = _pack(self.weight.t().contiguous())
            self.version = self.weight._version
        return _Product.apply(x, self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return _multiply(x, layer.forward_weight, layer.bias)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _multiply(gradient, ctx.layer.backward_weight, None), None


def _packs(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

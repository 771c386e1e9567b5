"""What is attributed: a number that depends on the logits of a reading.

    probability       of the answer's token
    log-probability   of the answer's token
    logit             of the answer's token
    difference        the logit of the answer's token less that of another token: the log of their probabilities' ratio

All are smooth, so the certificate holds for each of them. It has to know how far rounding can move a value.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kn.store.files import InputError


class Probability:
    """The logarithm is differentiated and then multiplied by the probability, because half precision can't represent
    the gradient of a small probability.
    """

    def differentiated(self, logits: Tensor, target: Tensor) -> Tensor:
        """One number per row. `target` has a token per row; for a difference, two."""
        return cross_entropy(logits, target, reduction="none")

    def value(self, differentiated: Tensor) -> Tensor:
        return torch.exp(-differentiated)

    def slope(self, value: Tensor) -> Tensor:
        """The derivative of the value by what is differentiated."""
        return -value

    def off(self, value: Tensor, logit: Tensor) -> Tensor:
        """How far the value is off per relative error of the logits, the largest of which is `logit`."""
        return logit * value * (1 - value)

    def size(self, value: Tensor, logit: Tensor) -> Tensor:
        """The largest of the numbers that the value is computed from: the value's last digits are theirs."""
        return value

    def left(self, value: Tensor) -> Tensor:
        """What is left in the gradient by the logits after the softmax has subtracted numbers near 1."""
        return 1 - value


class LogProbability(Probability):
    def value(self, differentiated: Tensor) -> Tensor:
        return -differentiated

    def slope(self, value: Tensor) -> Tensor:
        return -torch.ones_like(value)

    def off(self, value: Tensor, logit: Tensor) -> Tensor:
        return logit * (1 - value.exp())

    def size(self, value: Tensor, logit: Tensor) -> Tensor:
        return value.abs() + logit

    def left(self, value: Tensor) -> Tensor:
        return 1 - value.exp()


class Logit(LogProbability):
    terms = 1

    def differentiated(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.gather(1, target[:, None])[:, 0]

    def value(self, differentiated: Tensor) -> Tensor:
        return differentiated

    def slope(self, value: Tensor) -> Tensor:
        return torch.ones_like(value)

    def off(self, value: Tensor, logit: Tensor) -> Tensor:
        return self.terms * logit.expand_as(value)

    def left(self, value: Tensor) -> Tensor:
        return torch.ones_like(value)


class Difference(Logit):
    terms = 2

    def differentiated(self, logits: Tensor, target: Tensor) -> Tensor:
        both = logits.gather(1, target)
        return both[:, 0] - both[:, 1]


QUANTITIES = {
    "probability": Probability(),
    "log-probability": LogProbability(),
    "logit": Logit(),
    "difference": Difference(),
}
DIFFERENCE = "difference"


def quantity(name: str) -> Probability:
    if name not in QUANTITIES:
        raise InputError(f"there is no quantity {name!r}: expected one of {', '.join(QUANTITIES)}")
    return QUANTITIES[name]

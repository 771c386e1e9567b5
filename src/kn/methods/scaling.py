"""What is done to neurons when a prompt is read. Never imports torch: a stage plans before it loads a model."""

from collections.abc import Sequence
from typing import NamedTuple

from kn.neurons.sets import Neuron


class Scaling(NamedTuple):
    """Multiplies the activations of a set of neurons by a factor; then, if given, those of a second set once more.

    Each set names a neuron once. Neurons in both are multiplied twice.
    """

    neurons: Sequence[Neuron]
    factor: float
    then: Sequence[Neuron] = ()

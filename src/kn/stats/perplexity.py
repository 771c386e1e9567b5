"""Perplexity over prompts: exp of the mean surprise at the right answer."""

import numpy as np

SMALLEST = 1e-45  # the smallest float32: a probability below it is known no better


def surprise(probabilities: np.ndarray) -> np.ndarray:
    """The negative log-probability of each prompt's answer."""
    return -np.log(np.maximum(probabilities, SMALLEST))

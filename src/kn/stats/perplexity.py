"""Perplexity over prompts: exp of the mean surprise of the right answer."""

import numpy as np

LEAST = 1e-45  # the smallest float32: of an answer less probable than that no more is known


def surprise(probabilities: np.ndarray) -> np.ndarray:
    """The negative log-probability of each prompt's answer."""
    return -np.log(np.maximum(probabilities, LEAST))

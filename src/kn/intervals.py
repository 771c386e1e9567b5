"""How sure a mean is: bootstrap intervals over facts."""

import numpy as np

DRAWS = 2000


def ratio(parts: np.ndarray, wholes: np.ndarray, seed: int) -> tuple[float | None, float | None, float | None]:
    """sum(parts) / sum(wholes) over facts, and the 95 % interval of that if facts are drawn anew; None if there is
    none.

    With the facts' numbers of prompts as `wholes` this is a mean over prompts, those of a fact being drawn together.
    """
    parts, wholes = np.asarray(parts, float), np.asarray(wholes, float)
    if not wholes.sum():
        return None, None, None
    counts = np.random.default_rng(seed).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), size=DRAWS)
    drawn_parts, drawn_wholes = counts @ parts, counts @ wholes
    ratios = drawn_parts[drawn_wholes != 0] / drawn_wholes[drawn_wholes != 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(parts.sum() / wholes.sum()), float(low), float(high)

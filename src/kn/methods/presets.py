"""The ways to find a fact's neurons: that of the first paper and those of the second, AMIG.

| preset     | where the paths begin                          | points                 | factor | normalised       |
|------------|------------------------------------------------|------------------------|--------|------------------|
| dai        | at zero                                        | the published left sum | w      | no               |
| amig       | at one baseline sentence per word              | the integral           | w - w' | no               |
| amig-paper | as amig                                        | right Riemann sum      | w      | by layer         |
| amig-code  | at the mean of one sentence per word piece     | left Riemann sum       | w      | no               |

AMIG's baseline sentences replace a word by the mask token or, for a causal model, by the end-of-text token. w' are the
neurons' activations for such a sentence. AMIG's paper derives w - w' and prints w; its program differs from both.

Beware of `amig-paper`: a layer's sum can be negative, as it is in a third of the layers or more. Dividing by it flips
the layer's signs, so that neurons that make the answer less probable come first.

Never imports torch: the command line lists the presets.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Preset:
    rule: str
    points: int = 20
    replaced: str | None = None  # what a baseline sentence replaces, one of the "words" or "pieces"; None: zero
    joined: bool = False  # a single path, from the mean of the baselines
    difference: bool = True  # the factor is w - w'
    by_layer: bool = False  # scores are divided by the sum over the layer's neurons


PRESETS = {
    "dai": Preset("riemann"),
    "amig": Preset("gauss", replaced="words"),
    "amig-paper": Preset("right", replaced="words", difference=False, by_layer=True),
    "amig-code": Preset("riemann", replaced="pieces", joined=True, difference=False),
}
SIGNS = "amig-paper divides by a layer's sum; where that is negative, neurons that lower the probability come first"


def with_points(name: str, points: int) -> Preset:
    """The preset with this number of points. An integral has no number of points, so it stays as it is."""
    preset = PRESETS[name]
    return preset if preset.rule == "gauss" else replace(preset, points=points)

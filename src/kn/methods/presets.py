"""The ways to score neurons, named after the papers that used them.

A way has four slots: what is attributed, where the paths begin and at which points they are followed, which neurons are
scored, and how the scores of a fact's prompts become the fact's neurons (`kn.neurons.pooling`).

| preset       | what                     | where the paths begin       | points              | factor | pool     |
|--------------|--------------------------|-----------------------------|---------------------|--------|----------|
| dai          | probability              | at zero                     | published left sum  | w      | sharing  |
| dai-integral | probability              | at zero                     | the integral        | w      | sharing  |
| amig         | probability              | at a baseline sentence for  | the integral        | w - w' | mean     |
|              |                          | each word                   |                     |        |          |
| amig-paper   | probability, normalised  | as amig                     | right Riemann sum   | w      | mean     |
| amig-code    | probability              | mean of one per word piece  | left Riemann sum    | w      | mean     |
| qrnca        | probability              | at zero                     | left sum, 16 points | w      | na-ica   |
| ircan        | probability              | the prompt without context  | published left sum  | w - w' | mean     |
| easyedit     | probability              | at zero                     | only there          | w      | mean     |
| atp          | probability              | no path                     | the activation's own| w      | mean     |
| yu-ananiadou | log-probability increase | no path                     | the output read early        | mean     |
| activation   | the activation           |                             |                     |        | mean     |
| norm         | activation x norm of the value vector                  |                     |        | mean     |

dai: Dai et al., ACL 2022. amig: Chen et al., AAAI 2024. AMIG's baseline sentences replace a word by the mask token or,
for a causal model, by the end-of-text token; w' are the neurons' activations for such a sentence. AMIG's paper derives
w - w' and prints w; its program differs from both. qrnca: Chen et al., AAAI 2025. ircan: Shi et al., NeurIPS 2024; its
paths go from the activations without a context to those with it. easyedit: the recipe of EasyEdit's settings for most
models, one step at zero (these also take another tensor for the neurons, which is not done here). atp: attribution
patching from zero, also called gradient times activation. yu-ananiadou: Yu and Ananiadou, EMNLP 2024 (`direct`).

Beware of `amig-paper`: a layer's sum can be negative, as it is in a third of the layers or more. Dividing by it flips
the layer's signs, so that neurons that make the answer less probable come first.

Never imports torch: the command line lists the presets.
"""

from dataclasses import dataclass, replace

# Rules that score neurons from a plain run, without a path.
INCREASE, ACTIVATION, NORM = "log-probability increase", "activation", "activation x norm"
DIRECT = (INCREASE, ACTIVATION, NORM)


@dataclass(frozen=True)
class Preset:
    rule: str
    points: int = 20
    what: str = "probability"  # or another of QUANTITIES
    summed: bool = False  # over an answer's pieces; otherwise the mean
    # At "zero"; for baseline sentences that replace "words" or "pieces"; for another "prompt"; at a "mean".
    start: str = "zero"
    joined: bool = False  # a single path, from the mean of the baselines
    difference: bool = True  # the factor is w - w'
    by_layer: bool = False  # scores are divided by the sum over the layer's neurons
    where: str = "answer"  # neurons at the position that predicts; at the "subject"'s last token; at "all" positions
    pool: str = "mean"


PRESETS = {
    "dai": Preset("riemann", pool="sharing"),
    "dai-integral": Preset("gauss", pool="sharing"),
    "amig": Preset("gauss", start="words"),
    "amig-paper": Preset("right", start="words", difference=False, by_layer=True),
    "amig-code": Preset("riemann", start="pieces", joined=True, difference=False),
    "qrnca": Preset("riemann", 16, pool="na-ica"),
    "ircan": Preset("riemann", start="prompt"),
    "easyedit": Preset("literal", 1),
    "atp": Preset("right", 1),
    "yu-ananiadou": Preset(INCREASE, 1),
    "activation": Preset(ACTIVATION, 1),
    "norm": Preset(NORM, 1),
}
# Those that need nothing but prompts.
PLAIN = [name for name, preset in PRESETS.items() if preset.start not in ("prompt", "mean")]
SIGNS = "amig-paper divides by a layer's sum; where that is negative, neurons that lower the probability come first"


def with_points(name: str, points: int) -> Preset:
    """The preset with this number of points. An integral has no number of points, and a single point is no path."""
    preset = PRESETS[name]
    return preset if preset.rule == "gauss" or preset.points == 1 else replace(preset, points=points)

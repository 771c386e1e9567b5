"""The ways to find a fact's neurons that are compared: that of the first paper and those of the second, AMIG.

| preset     | where the paths begin                          | points                 | factor | normalised       |
|------------|------------------------------------------------|------------------------|--------|------------------|
| dai        | at zero                                        | the published left sum | w      | no               |
| amig       | at a baseline sentence for each of the words   | the integral           | w - w' | no               |
| amig-paper | as amig                                        | right Riemann sum      | w      | by layer         |
| amig-code  | at the mean of sentences, one for each piece   | left Riemann sum       | w      | no               |

AMIG replaces a word by the mask token or, for a causal model, by the end-of-text token; w' are the neurons'
activations then. Its paper derives w - w' and prints w; its program differs from both.

Beware of `amig-paper`: a layer's sum can be negative, and is in a third of the layers or more. Dividing by it turns the
signs of that layer, so that neurons that make the answer less probable come first.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from kn.methods.attribution import Attributions, Engine
from kn.model.adapters import Adapter
from kn.model.prompts import Encoded, Encoder
from kn.store.files import InputError
from kn.text import WORD


@dataclass(frozen=True)
class Preset:
    rule: str
    points: int = 20
    replaced: str | None = None  # what a baseline sentence lacks: one of the "words", or of the "pieces"; None: zero
    joined: bool = False  # one path from the baselines' mean
    difference: bool = True  # the factor is w - w'
    by_layer: bool = False  # divided by the sum over the layer's neurons


PRESETS = {
    "dai": Preset("riemann"),
    "amig": Preset("gauss", replaced="words"),
    "amig-paper": Preset("right", replaced="words", difference=False, by_layer=True),
    "amig-code": Preset("riemann", replaced="pieces", joined=True, difference=False),
}
SIGNS = "amig-paper divides by a layer's sum; where that is negative, neurons that lower the probability come first"


def with_points(name: str, points: int) -> Preset:
    """A preset with so many points in place of 20; an integral has no number of points."""
    preset = PRESETS[name]
    return preset if preset.rule == "gauss" else replace(preset, points=points)


class Locator:
    """Attributes prompts in the way of a preset."""

    def __init__(self, preset: Preset, adapter: Adapter, encoder: Encoder, max_tokens: int | None = None):
        self.preset, self.encoder = preset, encoder
        self.engine = Engine(
            adapter, preset.rule, preset.points, max_tokens, preset.joined, preset.difference, preset.by_layer
        )

    def baselines(self, encoded: Encoded) -> list[list[int]]:
        """The token ids of the prompt's baseline sentences."""
        if self.preset.replaced == "words":
            groups = words(encoded, self.encoder)
        else:
            groups = [[place] for place in range(_asked(encoded, self.encoder))]
        blank = _blank(self.encoder)
        return [[blank if place in group else token for place, token in enumerate(encoded.ids)] for group in groups]

    def skipped(self, encoded: Encoded) -> str | None:
        """Why the prompt can't be attributed."""
        if encoded.skipped or self.preset.replaced != "words":
            return encoded.skipped
        return None if words(encoded, self.encoder) else "the query has no word to replace"

    def attribute(self, prompts: list[Encoded], layers: Collection[int] | None = None) -> Iterator[Attributions]:
        """Yields batch after batch, of these layers or of all. None of the prompts may be one to skip."""
        baselines = [self.baselines(encoded) for encoded in prompts] if self.preset.replaced else None
        asked = [encoded.prompt for encoded in prompts]
        return self.engine.attribute(asked, baselines=baselines, layers=layers)


def words(encoded: Encoded, encoder: Encoder) -> list[list[int]]:
    """The places in the prompt of each of its words' pieces: of the query, not of the answer, masked or given.

    Punctuation that stands alone is no word. Words that share all their pieces, as two characters of Chinese may, are
    one.
    """
    if not encoder.tokenizer.is_fast:
        raise InputError("the model's tokenizer can't tell which pieces a word has: a fast one is needed (tokenizers)")
    query = encoded.text
    if not encoder.causal:  # another text of the same length, as WORD would take the mask for a part of a word
        mask = encoder.tokenizer.mask_token
        query = query.replace(mask, " " * len(mask))
    found = encoder.tokenizer(encoded.text, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
    spans = found["offset_mapping"]
    asked = _asked(encoded, encoder)
    if len(spans) > asked:  # cut to the longest input, or without the token that closes the text
        spans = spans[:asked] if encoder.causal else spans[: asked - 1] + spans[-1:]
    groups = []
    for word in WORD.finditer(query):
        if any(letter.isalnum() for letter in word[0]):
            # The space before a word may be a piece of it.
            start = len(encoded.text[: word.start()].rstrip())
            group = [place for place, span in enumerate(spans) if span[0] < word.end() and start < span[1]]
            if group and group not in groups:
                groups.append(group)
    return groups


def _asked(encoded: Encoded, encoder: Encoder) -> int:
    """How many of the tokens are the query's: a causal model's also has the answer's pieces but the last."""
    return encoded.positions[0] + 1 if encoder.causal else len(encoded.ids)


def _blank(encoder: Encoder) -> int:
    token = encoder.tokenizer.eos_token_id if encoder.causal else encoder.tokenizer.mask_token_id
    if token is None:
        raise InputError("the model's tokenizer has no end-of-text token, which AMIG puts in a word's place")
    return token

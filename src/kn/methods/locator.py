"""Finding the neurons of prompts the way a preset does."""

from collections.abc import Collection, Iterator

from kn.methods.attribution import Attributions, Engine
from kn.methods.presets import Preset
from kn.model.adapters import Adapter
from kn.model.prompts import Encoded, Encoder
from kn.store.files import InputError
from kn.text import WORD


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

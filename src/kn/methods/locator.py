"""Attributing prompts in the way of a preset."""

from collections.abc import Collection, Iterator

from kn.methods.attribution import Attributions, Engine
from kn.methods.presets import Preset
from kn.model.adapters import Adapter
from kn.model.prompts import Encoded, Encoder
from kn.store.files import InputError
from kn.text import WORD


class Locator:
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
            groups = [[position] for position in range(_query_length(encoded, self.encoder))]
        blank = _blank(self.encoder)
        return [
            [blank if position in group else token for position, token in enumerate(encoded.ids)] for group in groups
        ]

    def skipped(self, encoded: Encoded) -> str | None:
        """Why the prompt can't be attributed, or None."""
        if encoded.skipped or self.preset.replaced != "words":
            return encoded.skipped
        return None if words(encoded, self.encoder) else "the query has no word to replace"

    def attribute(self, prompts: list[Encoded], layers: Collection[int] | None = None) -> Iterator[Attributions]:
        """Yields the attributions of these layers, or of all, batch by batch. No prompt may be one to skip."""
        baselines = [self.baselines(encoded) for encoded in prompts] if self.preset.replaced else None
        return self.engine.attribute([encoded.prompt for encoded in prompts], baselines=baselines, layers=layers)


def words(encoded: Encoded, encoder: Encoder) -> list[list[int]]:
    """For each word of the query, the positions of its pieces in the prompt. The answer, masked or given, is left out.

    Punctuation on its own is no word. Words that share all their pieces, as two Chinese characters may, count as one.
    """
    if not encoder.tokenizer.is_fast:
        raise InputError("the model's tokenizer can't tell which pieces a word has: a fast one is needed (tokenizers)")
    query = encoded.text
    if not encoder.causal:  # blank the mask, which WORD would take for part of a word
        mask = encoder.tokenizer.mask_token
        query = query.replace(mask, " " * len(mask))
    tokenized = encoder.tokenizer(encoded.text, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
    spans = tokenized["offset_mapping"]
    length = _query_length(encoded, encoder)
    if len(spans) > length:  # the prompt was truncated, or the token that closes the text removed
        spans = spans[:length] if encoder.causal else spans[: length - 1] + spans[-1:]
    groups = []
    for word in WORD.finditer(query):
        if any(letter.isalnum() for letter in word[0]):
            start = len(encoded.text[: word.start()].rstrip())  # the space before a word may be one of its pieces
            group = [position for position, span in enumerate(spans) if span[0] < word.end() and start < span[1]]
            if group and group not in groups:
                groups.append(group)
    return groups


def _query_length(encoded: Encoded, encoder: Encoder) -> int:
    """How many tokens the query has. A causal model's prompt also contains the answer's pieces but the last."""
    return encoded.positions[0] + 1 if encoder.causal else len(encoded.ids)


def _blank(encoder: Encoder) -> int:
    token = encoder.tokenizer.eos_token_id if encoder.causal else encoder.tokenizer.mask_token_id
    if token is None:
        raise InputError("the model's tokenizer has no end-of-text token, by which AMIG replaces a word")
    return token

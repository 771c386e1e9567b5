"""Prompts as a model reads them, and what can't be read.

A masked model reads a prompt with a mask token for each piece of the answer. A causal one reads the text before the
answer, and then the answer's pieces as if it had said them: each piece is read where the one before it stands, the
first where the text ends. So of causal models only facts can be asked whose answer comes last.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from kn.data.facts import MASK, Bag
from kn.model.batches import Prompt
from kn.text import UNSPACED

NOT_LAST = "the answer does not come last"
NOTHING_BEFORE = "nothing stands before the answer"
UNKNOWN = "the answer is unknown to the model"
NOT_ONE_MASK = f"the text does not have one {MASK} and no other mask"


@dataclass(frozen=True)
class Encoded:
    text: str  # as the tokenizer got it: with a mask token for each piece, or only what stands before the answer
    ids: list[int]
    tokens: list[str]
    positions: tuple[int, ...] = ()  # where each piece of the answer is read
    answers: tuple[int, ...] = ()  # the pieces
    skipped: str | None = None  # the reason why it can't be scored

    @property
    def prompt(self) -> Prompt:
        return self.ids, self.positions, self.answers


class Encoder:
    """Encodes facts for one model, cut to its longest input."""

    def __init__(self, tokenizer, max_seq_length: int, causal: bool = False):
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.causal = causal
        # Some tokenizers take the beginning of any text for that of a word; the others want to see the space before it.
        self.begins_words = "".join(tokenizer.tokenize("a")).startswith(("▁", "Ġ"))
        # How an unknown piece is spelt differs: some tokenizers give its own letters.
        model = tokenizer.backend_tokenizer.model if tokenizer.is_fast else None
        spelt = getattr(model, "unk_token", None)
        self.unknown_ids = {tokenizer.unk_token_id, spelt and model.token_to_id(spelt), None}
        self.closing = {tokenizer.sep_token_id, tokenizer.eos_token_id} - {None}
        self.beyond = f"{MASK} stands beyond the first {max_seq_length} word pieces"

    def facts(self, bags: list[Bag]) -> list[list[Encoded]]:
        encoded = iter(self._encode([(text, answer) for bag in bags for text, answer, _ in bag]))
        return [[next(encoded) for _ in bag] for bag in bags]

    def sentences(self, texts: list[str]) -> list[Encoded]:
        """Texts with one [MASK] whose answer does not matter: read there, or where a causal model's text ends."""
        return self._encode([(text, None) for text in texts])

    def text(self, pieces: tuple[int, ...]) -> str:
        """Some models have more tokens than their tokenizer: those are told as numbers."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(pieces))
        tokens = [str(piece) if token is None else token for piece, token in zip(pieces, tokens, strict=True)]
        text = self.tokenizer.convert_tokens_to_string(tokens).strip()
        return re.sub(f"(?<=[{UNSPACED}]) (?=[{UNSPACED}])", "", text)

    def unknown(self, answer: str) -> str | None:
        """Why the answer can't be scored, whatever the prompt."""
        pieces = self._pieces("", answer)
        return pieces if isinstance(pieces, str) else None

    def _encode(self, prompts: list[tuple[str, str | None]]) -> list[Encoded]:
        cached = cache(self._pieces)
        pieces = [self._asked(text, answer, cached) for text, answer in prompts]
        if self.causal:
            texts = [text.partition(MASK)[0].rstrip() for text, _ in prompts]
        else:  # what can't be scored is shown with one mask
            texts = [
                text.replace(MASK, self.tokenizer.mask_token * (1 if isinstance(of_answer, str) else len(of_answer)))
                for (text, _), of_answer in zip(prompts, pieces, strict=True)
            ]
        ids = self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"] if texts else []
        return [self._read(*prompt) for prompt in zip(texts, ids, pieces, strict=True)]

    def _asked(self, text: str, answer: str | None, pieces: Callable) -> tuple[int, ...] | str:
        """The answer's pieces in this text, or why they can't be scored; one if the answer does not matter."""
        if text.count(MASK) != 1:
            return NOT_ONE_MASK
        if answer is None:
            return (0,)
        if self.causal and not _closes(text.partition(MASK)[2]):
            return NOT_LAST
        return pieces(self._context(text), answer)

    def _context(self, text: str) -> str:
        """All that matters of the text before the answer, which mostly is whether it ends with a space."""
        before = text.partition(MASK)[0]
        if not before or before[-1].isspace():
            return before[-1:]
        return before if self.begins_words else ""

    def _pieces(self, before: str, answer: str) -> tuple[int, ...] | str:
        """The answer's pieces as they come after `before`, or why it has none."""
        tokenize = self.tokenizer.tokenize
        pieces = tokenize(f" {answer}" if before.isspace() and not self.begins_words else answer)
        if before.strip():
            both, first = tokenize(before + answer), tokenize(before)
            if both[: len(first)] == first:
                pieces = both[len(first) :]
        ids = self.tokenizer.convert_tokens_to_ids(pieces)
        return UNKNOWN if not ids or self.unknown_ids.intersection(ids) else tuple(ids)

    def _read(self, text: str, ids: list[int], pieces: tuple[int, ...] | str) -> Encoded:
        known = () if isinstance(pieces, str) else pieces
        skipped = None if known else pieces
        if self.causal:
            if len(ids) > 1 and ids[-1] in self.closing:
                ids = ids[:-1]
            skipped = skipped or (None if ids else NOTHING_BEFORE)
            positions = range(len(ids) - 1, len(ids) - 1 + len(known))
            ids = ids + list(known[:-1])
            skipped = skipped or (self.beyond if len(ids) > self.max_seq_length else None)
        else:
            if known and ids.count(self.tokenizer.mask_token_id) != len(known):
                skipped = NOT_ONE_MASK  # the text has the tokenizer's own, too
            if len(ids) > self.max_seq_length:
                ids = ids[: self.max_seq_length - 1] + ids[-1:]  # the last one closes the text
            masks = [place for place, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
            positions = masks[: len(known)]
            skipped = skipped or (self.beyond if len(positions) < len(known) else None)
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        if skipped:
            return Encoded(text, ids, tokens, skipped=skipped)
        return Encoded(text, ids, tokens, tuple(positions), known)


def _closes(text: str) -> bool:
    """Whether nothing but punctuation follows."""
    return all(letter.isspace() or unicodedata.category(letter).startswith("P") for letter in text)

"""Prompts as a model reads them: token ids, and where each piece of the answer is read.

A masked model reads a prompt with one mask token per piece of the answer. A causal model reads the text before the
answer, followed by all pieces but the last, as if it had generated them. Each piece is read at the token before it, and
the first where the text ends. A causal model can therefore only be asked for answers that come last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from kn.data.facts import MASK, Bag, comes_last
from kn.store.files import InputError
from kn.text import UNSPACED, unspaced

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Reasons to skip a prompt, as results record them.
NOT_LAST = "the answer does not come last"
NOTHING_BEFORE = "nothing stands before the answer"
UNKNOWN = "the answer is unknown to the model"
NOT_ONE_MASK = f"the text does not have one {MASK} and no other mask"


class Prompt(NamedTuple):
    """What a model is asked. The answer has one or more pieces: piece i is the token `answers[i]`, and its probability
    is read at the token `positions[i]`.

        Prompt([101, 1996, 103, 102], [2], [3007])
    """

    ids: Sequence[int]
    positions: Sequence[int]
    answers: Sequence[int]


@dataclass(frozen=True)
class Encoded:
    text: str  # as the tokenizer got it: with one mask token per piece, or only what comes before the answer
    ids: list[int]
    tokens: list[str]
    positions: tuple[int, ...] = ()  # where each piece of the answer is read
    answers: tuple[int, ...] = ()  # the pieces
    skipped: str | None = None  # why the prompt can't be scored

    @property
    def prompt(self) -> Prompt:
        return Prompt(self.ids, self.positions, self.answers)


class Encoder:
    """Encodes facts for one model, truncated to its longest input."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, causal: bool = False):
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.causal = causal
        # Some tokenizers take the beginning of any text for the beginning of a word; others need a space before it.
        self.begins_words = "".join(tokenizer.tokenize("a")).startswith(("▁", "Ġ"))
        # The tokenizer and its backend may have different tokens for unknown pieces.
        self.unknown_ids = {tokenizer.unk_token_id, None}
        if tokenizer.is_fast:
            model = tokenizer.backend_tokenizer.model
            if unknown := getattr(model, "unk_token", None):
                self.unknown_ids.add(model.token_to_id(unknown))
        self.closing = {tokenizer.sep_token_id, tokenizer.eos_token_id} - {None}
        self.beyond = f"{MASK} stands beyond the first {max_seq_length} word pieces"

    def facts(self, bags: list[Bag]) -> list[list[Encoded]]:
        encoded = iter(self._encode([(text, answer) for bag in bags for text, answer, _ in bag]))
        return [[next(encoded) for _ in bag] for bag in bags]

    def sentences(self, texts: list[str]) -> list[Encoded]:
        """Texts with one [MASK], whose answer does not matter. A causal model reads them up to the mask."""
        return self._encode([(text, None) for text in texts])

    def text(self, pieces: tuple[int, ...]) -> str:
        """The text of some tokens. A model may have more tokens than its tokenizer: these are written as numbers."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(pieces))
        tokens = [str(piece) if token is None else token for piece, token in zip(pieces, tokens, strict=True)]
        text = self.tokenizer.convert_tokens_to_string(tokens).strip()
        return re.sub(f"(?<=[{UNSPACED}]) (?=[{UNSPACED}])", "", text)

    def unknown(self, answer: str) -> str | None:
        """Why the answer can't be scored in any prompt, or None."""
        pieces = self._pieces("", answer)
        return pieces if isinstance(pieces, str) else None

    def pieces(self, answer: str) -> list[int]:
        """The pieces of an answer inside a text."""
        pieces = self._pieces("" if unspaced(answer) else " ", answer)
        if isinstance(pieces, str):
            raise InputError(f"{answer!r}: {pieces}")
        return list(pieces)

    def _encode(self, prompts: list[tuple[str, str | None]]) -> list[Encoded]:
        cached = cache(self._pieces)
        pieces = [self._answer(text, answer, cached) for text, answer in prompts]
        if self.causal:
            texts = [text.partition(MASK)[0].rstrip() for text, _ in prompts]
        else:
            texts = []
            for (text, _), answer in zip(prompts, pieces, strict=True):
                masks = 1 if isinstance(answer, str) else len(answer)  # a skipped prompt is shown with one mask
                texts.append(text.replace(MASK, self.tokenizer.mask_token * masks))
        ids = self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"] if texts else []
        return [self._read(*prompt) for prompt in zip(texts, ids, pieces, strict=True)]

    def _answer(self, text: str, answer: str | None, pieces: Callable) -> tuple[int, ...] | str:
        """The answer's pieces in this text, or why it can't be scored. Where the answer does not matter, any piece."""
        if text.count(MASK) != 1:
            return NOT_ONE_MASK
        if answer is None:
            return (0,)
        if self.causal and not comes_last(text):
            return NOT_LAST
        return pieces(self._context(text), answer)

    def _context(self, text: str) -> str:
        """As much of the text before the answer as its pieces depend on: for most tokenizers, whether it ends with a
        space.
        """
        before = text.partition(MASK)[0]
        if not before or before[-1].isspace():
            return before[-1:]
        return before if self.begins_words else ""

    def _pieces(self, before: str, answer: str) -> tuple[int, ...] | str:
        """The pieces of the answer after the text `before`, or why it has none."""
        tokenize = self.tokenizer.tokenize
        pieces = tokenize(f" {answer}" if before.isspace() and not self.begins_words else answer)
        if before.strip():
            both, prefix = tokenize(before + answer), tokenize(before)
            if both[: len(prefix)] == prefix:
                pieces = both[len(prefix) :]
        ids = self.tokenizer.convert_tokens_to_ids(pieces)
        return UNKNOWN if not ids or self.unknown_ids.intersection(ids) else tuple(ids)

    def _read(self, text: str, ids: list[int], pieces: tuple[int, ...] | str) -> Encoded:
        known = () if isinstance(pieces, str) else pieces
        skipped = pieces if isinstance(pieces, str) else None
        if self.causal:
            if len(ids) > 1 and ids[-1] in self.closing:
                ids = ids[:-1]
            skipped = skipped or (None if ids else NOTHING_BEFORE)
            positions = list(range(len(ids) - 1, len(ids) - 1 + len(known)))
            ids = ids + list(known[:-1])
            skipped = skipped or (self.beyond if len(ids) > self.max_seq_length else None)
        else:
            if known and ids.count(self.tokenizer.mask_token_id) != len(known):
                skipped = NOT_ONE_MASK  # the text contains the tokenizer's own mask token, too
            if len(ids) > self.max_seq_length:
                ids = ids[: self.max_seq_length - 1] + ids[-1:]  # keep the token that closes the text
            masks = [position for position, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
            positions = masks[: len(known)]
            skipped = skipped or (self.beyond if len(positions) < len(known) else None)
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        if skipped:
            return Encoded(text, ids, tokens, skipped=skipped)
        return Encoded(text, ids, tokens, tuple(positions), known)

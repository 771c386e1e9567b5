"""Prompts as a model reads them, and what can't be read: answers of several pieces, read-out positions cut off."""

from dataclasses import dataclass

from kn.facts import MASK, Bag


@dataclass(frozen=True)
class Encoded:
    ids: list[int]
    tokens: list[str]
    position: int  # of the mask token
    answer: int  # its token
    skipped: str | None = None  # the reason why it can't be scored; then position and answer mean nothing


class Encoder:
    """Encodes facts for one model, cut to its longest input."""

    def __init__(self, tokenizer, max_seq_length: int):
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length

    def facts(self, bags: list[Bag]) -> list[list[Encoded]]:
        texts = [text.replace(MASK, self.tokenizer.mask_token) for bag in bags for text, _, _ in bag]
        encoded = iter(self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"])
        # All prompts of a fact have one answer.
        return [
            [self._prompt(next(encoded), answer) for _ in bag] for bag in bags for answer in [self.answer(bag[0][1])]
        ]

    def sentences(self, texts: list[str]) -> list[Encoded]:
        """Texts with [MASK] whose answer does not matter."""
        texts = [text.replace(MASK, self.tokenizer.mask_token) for text in texts]
        encoded = self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"] if texts else []
        return [self._prompt(ids, answer=0) for ids in encoded]

    def answer(self, text: str) -> int | str:
        """The answer's token, or why it has none."""
        pieces = self.tokenizer.tokenize(text)
        if self.tokenizer.unk_token in pieces:
            return "the answer is unknown to the model"
        if len(pieces) != 1:
            return f"the answer is {len(pieces)} word pieces: {' '.join(pieces)}"
        return self.tokenizer.convert_tokens_to_ids(pieces[0])

    def _prompt(self, ids: list[int], answer: int | str) -> Encoded:
        if len(ids) > self.max_seq_length:
            ids = ids[: self.max_seq_length - 1] + ids[-1:]  # the last one closes the text
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        if isinstance(answer, str):
            return Encoded(ids, tokens, -1, -1, answer)
        if self.tokenizer.mask_token_id not in ids:
            return Encoded(ids, tokens, -1, -1, f"{MASK} stands beyond the first {self.max_seq_length} word pieces")
        return Encoded(ids, tokens, ids.index(self.tokenizer.mask_token_id), answer)

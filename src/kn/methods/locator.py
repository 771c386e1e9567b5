"""Scoring the neurons of prompts in the way of a preset."""

from collections.abc import Collection, Iterator, Sequence

from torch import Tensor

from kn.methods.attribution import Attributions, Engine
from kn.methods.direct import Direct
from kn.methods.presets import DIRECT, Preset
from kn.model.adapters import Adapter
from kn.model.prompts import Encoded, Encoder, Prompt
from kn.store.files import InputError
from kn.text import WORD

Span = tuple[int, int]


class Locator:
    def __init__(self, preset: Preset, adapter: Adapter, encoder: Encoder, max_tokens: int | None = None):
        self.preset, self.encoder = preset, encoder
        self.engine: Engine | Direct
        if preset.rule in DIRECT:
            self.engine = Direct(adapter, preset.rule, max_tokens)
        else:
            self.engine = Engine(
                adapter,
                preset.rule,
                preset.points,
                max_tokens,
                preset.joined,
                preset.difference,
                preset.by_layer,
                preset.what,
                preset.summed,
            )

    def baselines(self, encoded: Encoded) -> list[list[int]]:
        """The token ids of the prompt's baseline sentences."""
        if self.preset.start == "words":
            groups = words(encoded, self.encoder)
        else:
            groups = [[position] for position in range(_query_length(encoded, self.encoder))]
        blank = _blank(self.encoder)
        return [
            [blank if position in group else token for position, token in enumerate(encoded.ids)] for group in groups
        ]

    def skipped(self, encoded: Encoded) -> str | None:
        """Why the prompt can't be attributed, or None."""
        if encoded.skipped or self.preset.start != "words":
            return encoded.skipped
        return None if words(encoded, self.encoder) else "the query has no word to replace"

    def attribute(
        self,
        prompts: list[Encoded],
        layers: Collection[int] | None = None,
        starts: Sequence[Prompt] | Tensor | None = None,
        others: Sequence[Sequence[int]] | None = None,
        subjects: Sequence[str] | None = None,
    ) -> Iterator[Attributions]:
        """Yields the scores of these layers, or of all, batch by batch. No prompt may be one to skip.

        A preset may need more. `starts`: where the paths begin, at one other prompt for each prompt, or at mean
        activations. `others`: the pieces of another answer to each prompt, for a difference. `subjects`: each prompt's.
        """
        asked = [encoded.prompt for encoded in prompts]
        if isinstance(self.engine, Direct):
            return self.engine.attribute(asked, layers)
        baselines: Sequence[Sequence[Sequence[int] | Prompt]] | Tensor | None = None
        if self.preset.start in ("words", "pieces"):
            baselines = [self.baselines(encoded) for encoded in prompts]
        elif self.preset.start in ("prompt", "mean"):
            if starts is None:
                raise InputError(f"paths begin at a {self.preset.start}: give `starts`")
            baselines = starts if isinstance(starts, Tensor) else [[start] for start in starts]
        return self.engine.attribute(
            asked, baselines=baselines, layers=layers, others=others, at=self._positions(prompts, subjects)
        )

    def _positions(self, prompts: list[Encoded], subjects: Sequence[str] | None) -> list[list[int]] | None:
        if self.preset.where == "answer":
            return None
        if self.preset.where == "all":
            return [list(range(len(encoded.ids))) for encoded in prompts]
        if subjects is None or len(subjects) != len(prompts):
            raise InputError(f"the neurons are those at the subject: give the subjects of all {len(prompts)} prompts")
        return [
            [subject_end(encoded, subject, self.encoder)] for encoded, subject in zip(prompts, subjects, strict=True)
        ]


def words(encoded: Encoded, encoder: Encoder) -> list[list[int]]:
    """For each word of the query, the positions of its pieces in the prompt. The answer, masked or given, is left out.

    Punctuation on its own is no word. Words that share all their pieces, as two Chinese characters may, count as one.
    """
    query = encoded.text
    if not encoder.causal:  # blank the mask, which WORD would take for part of a word
        mask = encoder.tokenizer.mask_token
        query = query.replace(mask, " " * len(mask))
    spans = _spans(encoded, encoder)
    groups = []
    for word in WORD.finditer(query):
        if any(letter.isalnum() for letter in word[0]):
            start = len(encoded.text[: word.start()].rstrip())  # the space before a word may be one of its pieces
            group = [position for position, span in enumerate(spans) if span[0] < word.end() and start < span[1]]
            if group and group not in groups:
                groups.append(group)
    return groups


def subject_end(encoded: Encoded, subject: str, encoder: Encoder) -> int:
    """The position of the subject's last piece."""
    last = encoded.text.find(subject) + len(subject) - 1
    if not subject or subject not in encoded.text:
        raise InputError(f"the subject {subject!r} is not in the prompt {encoded.text!r}")
    spans = enumerate(_spans(encoded, encoder))
    positions = [position for position, (start, end) in spans if start <= last < end]
    if not positions:
        raise InputError(f"the prompt {encoded.text!r} was cut before the end of its subject {subject!r}")
    return positions[-1]


def _spans(encoded: Encoded, encoder: Encoder) -> list[Span]:
    """The part of the text that each token of the query stands for."""
    if not encoder.tokenizer.is_fast:
        raise InputError("the model's tokenizer can't tell which pieces a word has: a fast one is needed (tokenizers)")
    tokenized = encoder.tokenizer(encoded.text, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
    spans = tokenized["offset_mapping"]
    length = _query_length(encoded, encoder)
    if len(spans) > length:  # the prompt was truncated, or the token that closes the text removed
        spans = spans[:length] if encoder.causal else spans[: length - 1] + spans[-1:]
    return spans


def _query_length(encoded: Encoded, encoder: Encoder) -> int:
    """How many tokens the query has. A causal model's prompt also contains the answer's pieces but the last."""
    return encoded.positions[0] + 1 if encoder.causal else len(encoded.ids)


def _blank(encoder: Encoder) -> int:
    token = encoder.tokenizer.eos_token_id if encoder.causal else encoder.tokenizer.mask_token_id
    if token is None:
        raise InputError("the model's tokenizer has no end-of-text token, by which AMIG replaces a word")
    return token

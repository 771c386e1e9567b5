"""Shared by the scripts that train the sample models: texts, masks, and a recipe that makes the effects visible.

Sublayers are skipped at random and neurons are few, so that facts live in few neurons of the upper layers.
"""

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from kn.data.facts import MASK

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"

CHINESE = "\u4e00-\u9fff"

WHOLE_WORDS = 2  # a word is one piece of the vocabulary if it occurs this often outside subjects …
WHOLE_NAMES = 4  # … or this often in subjects
PIECES = 700  # for all other words

WIDTH, LAYERS, HEADS = 128, 6, 4
INIT = 0.04  # BERT's 0.02 is meant for wider models
UPPER = 3  # layers from here on should hold the facts
# Probability of skipping a sublayer for a text. Lower FFNs are skipped so that facts don't live there, and upper
# attention so that the FFNs there have to work out the answer, instead of attention copying it.
SKIP_FFN = (0.5, 0.5, 0.3, 0.0, 0.0, 0.0)
SKIP_ATTENTION = (0.0, 0.0, 0.0, 0.0, 0.2, 0.3)
DROPOUT = 0.1  # for the output of attention only: dropout after the neurons would teach them redundancy

MASK_ANSWER = 0.85  # probability of masking a text's answer if it has one; otherwise random words are masked
MASK_WORDS, MASK_MORE = 0.15, 0.1  # share of words to mask, without and with a masked answer
PLAIN_SHARE = 0.3  # share of the sentences without an answer that each epoch takes
BATCH, RATE, DECAY = 32, 1.5e-3, 0.01
WARM_UP = 500  # steps
CHECK_EVERY = 200


class Text(NamedTuple):
    text: str
    subject: str
    answer: str | None = None


class Example(NamedTuple):
    ids: list[int]
    words: list[list[int]]  # positions of the pieces of each word
    answer: list[int]  # positions of the answer's pieces; empty for a sentence without one


# ---- texts ----


def make_bert_tokenizer(texts: list[Text]) -> BertTokenizer:
    """Frequent words and all answers are one piece each. Every Chinese character is one, as BERT splits it."""
    split = re.compile(rf"[{CHINESE}]|[^\W{CHINESE}]+|[^\w\s]").findall
    answers = {text.answer for text in texts if text.answer}
    words: Counter[str] = Counter()
    for text in texts:
        words.update(split(text.text.replace(text.subject, " ").replace(MASK, " ")))
    names: Counter[str] = Counter()
    for subject, _ in {(text.subject, text.answer) for text in texts if text.answer}:
        names.update(split(subject))
    whole = {word for word, count in words.items() if count >= WHOLE_WORDS}
    whole |= {answer for answer in answers if split(answer) == [answer]}
    whole |= {word for word, count in names.items() if count >= WHOLE_NAMES}
    pieces: Counter[str] = Counter()
    for word in (names.keys() | words.keys()) - whole:
        for start in range(len(word)):
            prefix = "##" if start else ""
            for size in range(2, min(5, len(word) - start) + 1):
                pieces[prefix + word[start : start + size]] += max(1, names[word]) * (size - 1)
    frequent = sorted(pieces, key=lambda piece: (-pieces[piece], piece))[:PIECES]
    letters = sorted(set("".join(names.keys() | words.keys() | answers)))  # all, so that nothing is unknown
    inner = ["##" + letter for letter in letters if letter.isalnum() and not re.match(f"[{CHINESE}]", letter)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK, *letters, *inner, *sorted(whole), *frequent]
    ids = {piece: number for number, piece in enumerate(dict.fromkeys(vocabulary))}
    return BertTokenizer(vocab=ids, do_lower_case=False)


def make_example(tokenizer: BertTokenizer, text: Text) -> Example:
    ids = tokenizer(text.text.replace(MASK, text.answer or MASK))["input_ids"]
    assert tokenizer.unk_token_id not in ids, text
    pieces = tokenizer.convert_ids_to_tokens(ids)
    starts = [index for index, piece in enumerate(pieces) if index and not piece.startswith("##")]  # the last is [SEP]
    words = [list(range(start, end)) for start, end in pairwise(starts)]
    positions: list[int] = []
    if text.answer:
        answer = tokenizer.tokenize(text.answer)
        for start in range(len(ids)):
            if pieces[start : start + len(answer)] == answer:
                positions += range(start, start + len(answer))
    return Example(ids, words, positions)


def batches(examples: list[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Endless batches of examples of about equal length."""
    while True:
        epoch = [example for example in examples if example.answer or rng.random() < PLAIN_SHARE]
        rng.shuffle(epoch)
        epoch_batches = []
        for start in range(0, len(epoch), 20 * BATCH):
            part = sorted(epoch[start : start + 20 * BATCH], key=lambda example: len(example.ids))
            epoch_batches += [part[first : first + BATCH] for first in range(0, len(part), BATCH)]
        rng.shuffle(epoch_batches)
        yield from epoch_batches


def draw_mask(example: Example, rng: random.Random) -> list[bool]:
    """Per position, whether it is masked."""
    answer = example.answer if rng.random() < MASK_ANSWER else []
    share = MASK_MORE if answer else MASK_WORDS
    masked = set(answer).union(*(word for word in example.words if rng.random() < share))
    masked = masked or set(rng.choice(example.words))
    return [position in masked for position in range(len(example.ids))]


def pad(rows: Iterable[list]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # [PAD] is 0


# ---- models ----


def make_bert(vocabulary: int, neurons: int, activations: dict[int, Tensor]) -> BertForMaskedLM:
    """The model. Each forward pass leaves the upper layers' neurons in `activations`."""
    config = BertConfig(vocab_size=vocabulary, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS)
    config.intermediate_size, config.initializer_range = neurons, INIT
    config.hidden_dropout_prob, config.attention_probs_dropout_prob = DROPOUT, 0.0
    model = BertForMaskedLM(config)
    model.bert.embeddings.dropout.p = 0.0
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.output.dropout.p = 0.0
        add_hooks(number, layer.attention.output.dense, layer.output.dense, activations)
    return model


def add_hooks(number: int, attention_out: nn.Module, ffn_out: nn.Module, activations: dict[int, Tensor]) -> None:
    """Skip a layer's sublayers at random in training, and keep the neurons of an upper layer."""
    ffn_out.register_forward_hook(skipping(SKIP_FFN[number]))
    attention_out.register_forward_hook(skipping(SKIP_ATTENTION[number]))
    if number >= UPPER:
        ffn_out.register_forward_pre_hook(lambda _, inputs: activations.update({number: inputs[0]}))


def skipping(share: float) -> Callable[[nn.Module, object, Tensor], Tensor]:
    """A hook that sets a module's output to zero for this share of the texts."""

    def skip(module: nn.Module, _: object, output: Tensor) -> Tensor:
        return output * (torch.rand(len(output), 1, 1) >= share) if module.training else output

    return skip


def sharing(activations: Tensor, lengths: Tensor) -> Tensor:
    """The share of a layer's neurons that share the work: 1 / all if one does it all, 1 if all do the same.

    The work includes the lengths of the value vectors, so small activations with large weights don't lower it.
    """
    work = activations.abs() * lengths
    return (work.sum(-1) ** 2 / (work**2).sum(-1).clamp_min(1e-9)).mean() / len(lengths)


def predict(model: BertForMaskedLM, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits at the masked positions only; the others are not needed."""
    return model.cls(model.bert(ids, attention_mask=(ids != 0).long()).last_hidden_state[mask])


def train(
    model: nn.Module,
    examples: list,
    batch_loss: Callable[[list], Tensor],
    check: Callable[[], tuple[str, bool]],
    steps: int,
    rng: random.Random,
) -> int:
    """Train until `check` is satisfied, or for all steps. Returns the number of steps taken.

    `check` returns a text for the progress bar, and whether training can stop.
    """
    model.train()
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    groups = [{"params": vectors, "weight_decay": 0.0}, {"params": matrices, "weight_decay": DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))

    def relative_rate(step: int) -> float:
        """Rises during the warm-up, then falls to a tenth at the last step."""
        return min(1, (step + 1) / WARM_UP) * (1 - 0.9 * step / steps)

    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, relative_rate)
    bar = tqdm(batches(examples, rng), total=steps, desc="training, stops early")
    for step, batch in enumerate(bar, 1):
        loss = batch_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % CHECK_EVERY == 0 or step == steps:
            model.eval()
            progress, can_stop = check()
            model.train()
            bar.set_postfix_str(progress)
            if can_stop or step == steps:
                break
    bar.close()
    model.eval()
    return step


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Replace the folder in one step."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)

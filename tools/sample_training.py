"""What the scripts that train the sample worlds' models share: texts, masks, and a recipe by which the effects show.

Sublayers are skipped and neurons are few, so that facts live in few neurons of the upper layers.
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

WHOLE_WORDS = 2  # times that a word must occur outside subjects to be one piece of the vocabulary
WHOLE_NAMES = 4  # and a subject's word in subjects
PIECES = 700  # of the words that are not whole

WIDTH, LAYERS, HEADS = 128, 6, 4
INIT = 0.04  # BERT's 0.02 is meant for wider models
UPPER = 3  # the layers from here on are to hold the facts
# Chances of skipping a sublayer for a text: the FFNs below, so that facts don't live there, and attention above, so
# that the FFNs there have to work out the answer, instead of attention fetching it ready made.
SKIP_FFN = (0.5, 0.5, 0.3, 0.0, 0.0, 0.0)
SKIP_ATTENTION = (0.0, 0.0, 0.0, 0.0, 0.2, 0.3)
DROPOUT = 0.1  # of attention's output only: dropout of what the neurons write would teach them redundancy

MASK_ANSWER = 0.85  # chance to mask a text's answer, where it has one; otherwise words are masked at random
MASK_WORDS, MASK_MORE = 0.15, 0.1  # share of masked words, and of those masked beside an answer
PLAIN_SHARE = 0.3  # of the sentences without an answer that are taken in each pass
BATCH, RATE, DECAY = 32, 1.5e-3, 0.01
WARM_UP = 500  # steps
CHECK_EVERY = 200


class Text(NamedTuple):
    text: str
    subject: str
    answer: str | None = None


class Example(NamedTuple):
    ids: list[int]
    words: list[list[int]]  # the positions of each word's pieces
    answer: list[int]  # positions of the answer; empty for a sentence without one


# ---- texts ----


def make_bert_tokenizer(texts: list[Text]) -> BertTokenizer:
    """Frequent words and all answers are one piece each; but of Chinese, every character is one, as BERT splits it."""
    split = re.compile(rf"[{CHINESE}]|[^\W{CHINESE}]+|[^\w\s]").findall
    answers = {text.answer for text in texts if text.answer}
    words = Counter(w for text in texts for w in split(text.text.replace(text.subject, " ").replace(MASK, " ")))
    names = Counter(w for subject, _ in {(t.subject, t.answer) for t in texts if t.answer} for w in split(subject))
    whole = {word for word, count in words.items() if count >= WHOLE_WORDS}
    whole |= {answer for answer in answers if split(answer) == [answer]}
    whole |= {word for word, count in names.items() if count >= WHOLE_NAMES}
    pieces: Counter[str] = Counter()
    for word in (names.keys() | words.keys()) - whole:
        for start in range(len(word)):
            for size in range(2, min(5, len(word) - start) + 1):
                pieces["##" * (start > 0) + word[start : start + size]] += max(1, names[word]) * (size - 1)
    frequent = sorted(pieces, key=lambda piece: (-pieces[piece], piece))[:PIECES]
    letters = sorted(set("".join(names.keys() | words.keys() | answers)))  # all, so that nothing is unknown
    inner = ["##" + letter for letter in letters if letter.isalnum() and not re.match(f"[{CHINESE}]", letter)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK, *letters, *inner, *sorted(whole), *frequent]
    return BertTokenizer(vocab={w: n for n, w in enumerate(dict.fromkeys(vocabulary))}, do_lower_case=False)


def make_example(tokenizer: BertTokenizer, text: Text) -> Example:
    ids = tokenizer(text.text.replace(MASK, text.answer or MASK))["input_ids"]
    assert tokenizer.unk_token_id not in ids, text
    pieces = tokenizer.convert_ids_to_tokens(ids)
    starts = [place for place, piece in enumerate(pieces) if place and not piece.startswith("##")]  # the last is [SEP]
    words = [list(range(*ends)) for ends in pairwise(starts)]
    answer = tokenizer.tokenize(text.answer) if text.answer else []
    found = [place for place in range(len(ids)) if answer and pieces[place : place + len(answer)] == answer]
    return Example(ids, words, [place + k for place in found for k in range(len(answer))])


def batches(examples: list[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Endless batches of examples of about equal length."""
    while True:
        chosen = [example for example in examples if example.answer or rng.random() < PLAIN_SHARE]
        rng.shuffle(chosen)
        found = []
        for start in range(0, len(chosen), 20 * BATCH):
            part = sorted(chosen[start : start + 20 * BATCH], key=lambda example: len(example.ids))
            found += [part[k : k + BATCH] for k in range(0, len(part), BATCH)]
        rng.shuffle(found)
        yield from found


def masked_places(example: Example, rng: random.Random) -> list[bool]:
    answer = example.answer if rng.random() < MASK_ANSWER else []
    share = MASK_MORE if answer else MASK_WORDS
    masked = set(answer).union(*(word for word in example.words if rng.random() < share))
    masked = masked or set(rng.choice(example.words))
    return [place in masked for place in range(len(example.ids))]


def pad(rows: Iterable[list]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # [PAD] is 0


# ---- models ----


def make_bert(vocabulary: int, neurons: int, activations: dict[int, Tensor]) -> BertForMaskedLM:
    """The model. Each run of it leaves the upper layers' neurons in `activations`."""
    config = BertConfig(vocab_size=vocabulary, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS)
    config.intermediate_size, config.initializer_range = neurons, INIT
    config.hidden_dropout_prob, config.attention_probs_dropout_prob = DROPOUT, 0.0
    model = BertForMaskedLM(config)
    model.bert.embeddings.dropout.p = 0.0
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.output.dropout.p = 0.0
        hook(number, layer.attention.output.dense, layer.output.dense, activations)
    return model


def hook(number: int, attention_out: nn.Module, ffn_out: nn.Module, activations: dict[int, Tensor]) -> None:
    """Skip a layer's sublayers by chance in training, and keep its neurons if it is an upper one."""
    ffn_out.register_forward_hook(skip(SKIP_FFN[number]))
    attention_out.register_forward_hook(skip(SKIP_ATTENTION[number]))
    if number >= UPPER:
        ffn_out.register_forward_pre_hook(lambda _, inputs: activations.update({number: inputs[0]}))


def skip(share: float):
    def rng(module: nn.Module, _, output: Tensor) -> Tensor:
        return output * (torch.rand(len(output), 1, 1) >= share) if module.training else output

    return rng


def sharing(activations: Tensor, lengths: Tensor) -> Tensor:
    """The share of a layer's neurons that share the work: 1 / all if one does it, 1 if all do the same.

    It counts the lengths of what they write, and so can't be lowered by small activations and large weights.
    """
    work = activations.abs() * lengths
    return (work.sum(-1) ** 2 / (work**2).sum(-1).clamp_min(1e-9)).mean() / len(lengths)


def predict(model: BertForMaskedLM, ids: Tensor, places: Tensor) -> Tensor:
    """Logits at the chosen places; to compute them elsewhere would be wasted."""
    return model.cls(model.bert(ids, attention_mask=(ids != 0).long()).last_hidden_state[places])


def train(
    model: nn.Module,
    examples: list,
    loss_of: Callable[[list], Tensor],
    check: Callable[[], tuple[str, bool]],
    steps: int,
    rng: random.Random,
) -> int:
    """Train until `check`, which also tells what to show, is content, or all steps are done. Returns how many were."""
    model.train()
    decayed = [[p for p in model.parameters() if p.ndim < 2], [p for p in model.parameters() if p.ndim > 1]]
    groups = [{"params": parameters, "weight_decay": DECAY * k} for k, parameters in enumerate(decayed)]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))
    # The learning rate rises, then falls as if towards the last step.
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1, (k + 1) / WARM_UP) * (1 - 0.9 * k / steps))
    bar = tqdm(batches(examples, rng), total=steps, desc="training, stops early")
    for step, batch in enumerate(bar, 1):
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % CHECK_EVERY == 0 or step == steps:
            model.eval()
            shown, content = check()
            model.train()
            bar.set_postfix_str(shown)
            if content or step == steps:
                break
    bar.close()
    model.eval()
    return step


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """All at once, in place of what was there."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)

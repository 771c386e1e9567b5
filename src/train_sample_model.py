"""Makes data/sample/model anew: a small BERT that knows the facts of the sample world, but not too well.

    python src/train_sample_model.py

Takes 3 to 5 minutes on 2 CPU cores. It is trained as a masked language model on the crawled sentences and on six of
the eight templates of each relation. The same seed, machine and number of threads give the same weights.

It is trained so that the paper's effects show: sublayers are skipped and neurons are few, so that facts live in few
neurons of the upper layers. It is there to exercise the stages, and no evidence for the paper's claims.
"""

import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from kn import runs
from kn.facts import MASK
from kn.files import read_json

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"
SEED, THREADS = 0, 2

# Left out of training: one template of each relation that ends with the answer, and one with the answer nearer to the
# start. Of such pairs, these have the fewest words that the relation's other texts lack.
LEFT_OUT = (0, 4)

WHOLE_WORDS = 2  # times that a word must occur outside subjects to be one piece of the vocabulary
WHOLE_NAMES = 4  # and a subject's word in subjects
PIECES = 700  # of the words that are not whole

WIDTH, LAYERS, HEADS, NEURONS = 128, 6, 4, 256  # 4.7 MB as float32, which loads as such without a flag
INIT = 0.04  # BERT's 0.02 is meant for wider models
UPPER = 3  # the layers from here on are to hold the facts
# Chances of skipping a sublayer for a text: the FFNs below, so that facts don't live there, and attention above, so
# that the FFNs there have to work out the answer, instead of attention fetching it ready made.
SKIP_FFN = (0.5, 0.5, 0.3, 0.0, 0.0, 0.0)
SKIP_ATTENTION = (0.0, 0.0, 0.0, 0.0, 0.2, 0.3)
DROPOUT = 0.1  # of attention's output only: dropout of what the neurons write would teach them redundancy
FEW_NEURONS = 0.02  # weight of the penalty on the number of neurons that share the work; see `sharing`
SMOOTHING = 0.1  # of the labels: keeps probabilities away from 1, where neurons could not raise them

MASK_ANSWER = 0.85  # chance to mask a text's answer, where it has one; otherwise words are masked at random
MASK_WORDS, MASK_MORE = 0.15, 0.1  # share of masked words, and of those masked beside an answer
PLAIN_SHARE = 0.3  # of the sentences without an answer that are taken in each pass
BATCH, RATE, DECAY = 32, 1.5e-3, 0.01
WARM_UP, STEPS = 500, 6000  # the learning rate rises, then falls as if towards the last step
CHECK_EVERY, STOP = 200, 0.57  # training ends when the left-out templates' answers have this mean probability


class Text(NamedTuple):
    text: str
    subject: str
    answer: str | None = None


class Example(NamedTuple):
    ids: list[int]
    words: list[list[int]]  # the positions of each word's pieces
    answer: list[int]  # positions of the answer; empty for a sentence without one


def read_world() -> tuple[list[Text], list[Text], list[Text]]:
    """Sentences, and the prompts of the templates that are trained on and of those left out."""
    sentences, trained, left_out = [], [], []
    bags = read_json(SAMPLE / "PARAREL" / "data_all_allbags.json")
    for relation, pairs in read_json(SAMPLE / "PARAREL" / "query_pairs.json").items():
        crawled = read_json(SAMPLE / "BingDistantTREx" / "final" / f"final_distant_allbags_{relation}_new.json")
        for (subject, answer), bag, texts in zip(pairs, bags[relation], crawled, strict=True):
            sentences += [Text(text, subject, answer) for text in texts["th_bags"]]
            sentences += [Text(text, subject) for text in texts["h_bags"]]
            for number, (prompt, _, _) in enumerate(bag):
                (left_out if number in LEFT_OUT else trained).append(Text(prompt, subject, answer))
    return sentences, trained, left_out


def make_tokenizer(texts: list[Text]) -> BertTokenizer:
    split = re.compile(r"\w+|[^\w\s]").findall
    answers = {text.answer for text in texts if text.answer}
    words = Counter(w for text in texts for w in split(text.text.replace(text.subject, " ").replace(MASK, " ")))
    names = Counter(w for subject, _ in {(t.subject, t.answer) for t in texts if t.answer} for w in split(subject))
    whole = {word for word, count in words.items() if count >= WHOLE_WORDS} | answers
    whole |= {word for word, count in names.items() if count >= WHOLE_NAMES}
    pieces: Counter[str] = Counter()
    for word in (names.keys() | words.keys()) - whole:
        for start in range(len(word)):
            for size in range(2, min(5, len(word) - start) + 1):
                pieces["##" * (start > 0) + word[start : start + size]] += max(1, names[word]) * (size - 1)
    frequent = sorted(pieces, key=lambda piece: (-pieces[piece], piece))[:PIECES]
    letters = sorted(set("".join(names.keys() | words.keys() | answers)))  # all, so that nothing is unknown
    inner = ["##" + letter for letter in letters if letter.isalnum()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK, *letters, *inner, *sorted(whole), *frequent]
    return BertTokenizer(vocab={w: n for n, w in enumerate(dict.fromkeys(vocabulary))}, do_lower_case=False)


def make_example(tokenizer: BertTokenizer, text: Text) -> Example:
    ids = tokenizer(text.text.replace(MASK, text.answer or MASK))["input_ids"]
    assert tokenizer.unk_token_id not in ids, text
    pieces = tokenizer.convert_ids_to_tokens(ids)
    starts = [place for place, piece in enumerate(pieces) if place and not piece.startswith("##")]  # the last is [SEP]
    words = [list(range(*ends)) for ends in pairwise(starts)]
    return Example(ids, words, [place for place, piece in enumerate(pieces) if piece == text.answer])


def batches(examples: list[Example], chance: random.Random) -> Iterator[list[Example]]:
    """Endless batches of examples of about equal length."""
    while True:
        chosen = [example for example in examples if example.answer or chance.random() < PLAIN_SHARE]
        chance.shuffle(chosen)
        found = []
        for start in range(0, len(chosen), 20 * BATCH):
            part = sorted(chosen[start : start + 20 * BATCH], key=lambda example: len(example.ids))
            found += [part[k : k + BATCH] for k in range(0, len(part), BATCH)]
        chance.shuffle(found)
        yield from found


def masked_places(example: Example, chance: random.Random) -> list[bool]:
    answer = example.answer if chance.random() < MASK_ANSWER else []
    share = MASK_MORE if answer else MASK_WORDS
    masked = set(answer).union(*(word for word in example.words if chance.random() < share))
    masked = masked or set(chance.choice(example.words))
    return [place in masked for place in range(len(example.ids))]


def pad(rows: Iterable[list]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # [PAD] is 0


def skip(share: float):
    def hook(module: nn.Module, _, output: Tensor) -> Tensor:
        return output * (torch.rand(len(output), 1, 1) >= share) if module.training else output

    return hook


def sharing(activations: Tensor, down: nn.Linear) -> Tensor:
    """The share of a layer's neurons that share the work: 1 / all if one does it, 1 if all do the same.

    It counts the lengths of what they write, and so can't be lowered by small activations and large weights.
    """
    work = activations.abs() * down.weight.norm(dim=0)
    return (work.sum(-1) ** 2 / (work**2).sum(-1).clamp_min(1e-9)).mean() / NEURONS


def make_model(vocabulary: int, activations: dict[int, Tensor]) -> BertForMaskedLM:
    """The model. Each run of it leaves the upper layers' neurons in `activations`."""
    config = BertConfig(vocab_size=vocabulary, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS)
    config.intermediate_size, config.initializer_range = NEURONS, INIT
    config.hidden_dropout_prob, config.attention_probs_dropout_prob = DROPOUT, 0.0
    model = BertForMaskedLM(config)
    model.bert.embeddings.dropout.p = 0.0
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.output.dropout.p = 0.0
        layer.output.dense.register_forward_hook(skip(SKIP_FFN[number]))
        layer.attention.output.dense.register_forward_hook(skip(SKIP_ATTENTION[number]))
        if number >= UPPER:
            layer.output.dense.register_forward_pre_hook(
                lambda _, inputs, number=number: activations.update({number: inputs[0]})
            )
    return model


def predict(model: BertForMaskedLM, ids: Tensor, places: Tensor) -> Tensor:
    """Logits at the chosen places; to compute them elsewhere would be wasted."""
    return model.cls(model.bert(ids, attention_mask=(ids != 0).long()).last_hidden_state[places])


@torch.no_grad()
def score(model: BertForMaskedLM, tokenizer: BertTokenizer, prompts: list[Text]) -> tuple[float, float]:
    """Share of right answers and mean probability of the answer."""
    model.eval()
    right = probability = 0.0
    prompts = sorted(prompts, key=lambda prompt: len(prompt.text))
    for start in range(0, len(prompts), 128):
        part = prompts[start : start + 128]
        ids = pad(tokenizer([prompt.text for prompt in part])["input_ids"])
        wanted = torch.tensor(tokenizer.convert_tokens_to_ids([prompt.answer for prompt in part]))
        found = predict(model, ids, ids == tokenizer.mask_token_id).softmax(-1)
        right += (found.argmax(-1) == wanted).sum().item()
        probability += found[torch.arange(len(part)), wanted].sum().item()
    model.train()
    return right / len(prompts), probability / len(prompts)


def main() -> None:
    started = time.monotonic()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    chance = random.Random(SEED)
    sentences, trained, left_out = read_world()
    tokenizer = make_tokenizer(sentences + trained + left_out)
    examples = [make_example(tokenizer, text) for text in sentences + trained]
    for text in left_out:
        make_example(tokenizer, text)  # only to see that nothing in it is unknown

    activations: dict[int, Tensor] = {}
    model = make_model(len(tokenizer), activations).train()
    decayed = [[p for p in model.parameters() if p.ndim < 2], [p for p in model.parameters() if p.ndim > 1]]
    groups = [{"params": parameters, "weight_decay": DECAY * k} for k, parameters in enumerate(decayed)]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1, (k + 1) / WARM_UP) * (1 - 0.9 * k / STEPS))
    bar = tqdm(batches(examples, chance), total=STEPS, desc="training, stops early")
    for step, batch in enumerate(bar, 1):
        ids, places = pad(example.ids for example in batch), pad(masked_places(example, chance) for example in batch)
        logits = predict(model, ids.masked_fill(places, tokenizer.mask_token_id), places)
        loss = cross_entropy(logits, ids[places], label_smoothing=SMOOTHING)
        for number, neurons in activations.items():
            loss += FEW_NEURONS * sharing(neurons[places], model.bert.encoder.layer[number].output.dense)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % CHECK_EVERY == 0:
            right, probability = score(model, tokenizer, left_out)
            bar.set_postfix_str(f"left-out templates: right {right:.2f}, probability {probability:.2f}")
            if probability >= STOP or step == STEPS:
                break
    bar.close()

    unfinished = SAMPLE / "model.unfinished"
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(SAMPLE / "model", ignore_errors=True)
    unfinished.rename(SAMPLE / "model")
    print(f"{step} steps, {time.monotonic() - started:.0f} seconds")
    for name, prompts in (("trained", trained), ("left-out", left_out)):
        right, probability = score(model, tokenizer, prompts)
        print(f"{name} templates: right {right:.3f}, mean probability {probability:.3f}")


if __name__ == "__main__":
    runs.guard(main)

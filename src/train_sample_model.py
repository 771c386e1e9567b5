"""Makes data/sample/model anew: a small BERT that knows the facts of the sample world, but not too well.

    python src/train_sample_model.py

Takes about 4 minutes on 2 CPU cores. It is trained as a masked language model on the crawled sentences and on six of
the eight templates of each relation. The same seed, machine and number of threads give the same weights.
"""

import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from kn.facts import MASK, Bags, read_bags, read_pairs
from kn.files import read_json

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"
SEED = 0
THREADS = 2

# Left out of training: one template of each relation that ends with the answer, and one with the answer nearer to the
# start. Of such pairs, these have the fewest words that the relation's other texts lack.
LEFT_OUT = (0, 4)

WHOLE_WORDS = 2  # times that a word must occur outside subjects to be one piece of the vocabulary
WHOLE_NAMES = 4  # and a subject's word in subjects
PIECES = 700  # of the words that are not whole

WIDTH, LAYERS, HEADS, NEURONS = 128, 6, 4, 256  # 4.7 MB as float32, which loads as such without a flag
UPPER = 3  # the layers from here on are to hold the facts
INIT = 0.04  # with BERT's 0.02 so narrow a model starts with too weak signals
# Chances of skipping a sublayer for a text: the FFNs below, so that facts don't live there, and attention above, so
# that the FFNs there have to work out the answer, instead of attention fetching it ready made.
SKIP_FFN = (0.5, 0.5, 0.3, 0.0, 0.0, 0.0)
SKIP_ATTENTION = (0.0, 0.0, 0.0, 0.0, 0.2, 0.3)
DROPOUT = 0.1  # of attention's output only: dropout of what the neurons write would teach them redundancy
FEW_NEURONS = 0.1  # weight of the penalty on the number of neurons that share the work; see `sharing`
SMOOTHING = 0.1  # of the labels: keeps probabilities away from 1, where neurons could not raise them

MASK_ANSWER = 0.85  # chance to mask a text's answer, where it has one; otherwise words are masked at random
MASK_WORDS, MASK_MORE = 0.15, 0.1  # share of masked words, and of those masked beside an answer
PLAIN_SHARE = 0.3  # of the sentences without an answer that are taken in each pass
BATCH, RATE, WARM_UP, STEPS = 32, 1.5e-3, 500, 6000  # the learning rate rises, then falls as if towards STEPS
CHECK_EVERY = 200
STOP = 0.55  # training ends when the left-out templates' answers reach this mean probability


class Text(NamedTuple):
    ids: list[int]
    words: list[list[int]]  # the positions of each word's pieces
    answer: list[int]  # positions of the answer; empty for a sentence without one


def make_vocabulary(pairs: dict, sentences: list[tuple[str, str]]) -> list[str]:
    """`sentences`: (text, subject), the templates among them."""
    split = re.compile(r"\w+|[^\w\s]").findall
    answers = {answer for of_relation in pairs.values() for _, answer in of_relation}
    subjects = [subject for of_relation in pairs.values() for subject, _ in of_relation]
    names = Counter(word for subject in subjects for word in split(subject))
    words = Counter(word for text, subject in sentences for word in split(text.replace(subject, " ")))
    whole = {word for word, count in words.items() if count >= WHOLE_WORDS} | answers
    whole |= {word for word, count in names.items() if count >= WHOLE_NAMES}
    pieces: Counter[str] = Counter()
    for word in (names.keys() | words.keys()) - whole:
        for start in range(len(word)):
            for length in range(2, min(5, len(word) - start) + 1):
                pieces["##" * (start > 0) + word[start : start + length]] += max(1, names[word]) * (length - 1)
    frequent = sorted(pieces, key=lambda piece: (-pieces[piece], piece))[:PIECES]
    letters = sorted(set("".join(names.keys() | words.keys() | answers)))  # all of them, so that nothing is unknown
    inner = ["##" + letter for letter in letters if letter.isalnum()]
    return list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK, *letters, *inner, *sorted(whole), *frequent]))


def read_text(tokenizer: BertTokenizer, text: str, answer: str | None = None) -> Text:
    pieces = tokenizer.tokenize(text)
    ids = tokenizer.build_inputs_with_special_tokens(tokenizer.convert_tokens_to_ids(pieces))
    words: list[list[int]] = []
    for place, piece in enumerate(pieces, 1):
        if piece.startswith("##"):
            words[-1].append(place)
        else:
            words.append([place])
    return Text(ids, words, [place for place, piece in enumerate(pieces, 1) if piece == answer])


def batches(texts: list[Text], chance: random.Random) -> Iterator[list[Text]]:
    """Endless batches of texts of about equal length."""
    while True:
        chosen = [text for text in texts if text.answer or chance.random() < PLAIN_SHARE]
        chance.shuffle(chosen)
        found = []
        for start in range(0, len(chosen), 20 * BATCH):
            part = sorted(chosen[start : start + 20 * BATCH], key=lambda text: len(text.ids))
            found += [part[k : k + BATCH] for k in range(0, len(part), BATCH)]
        chance.shuffle(found)
        yield from found


def choose_masked(text: Text, chance: random.Random) -> set[int]:
    answer = chance.random() < MASK_ANSWER and text.answer
    share = MASK_MORE if answer else MASK_WORDS
    masked = set(answer or []).union(*(word for word in text.words if chance.random() < share))
    return masked or set(chance.choice(text.words))


def pad(rows: list[list[int]], value: int = 0) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def skip(share: float):
    def hook(module: torch.nn.Module, _, output: Tensor) -> Tensor:
        return output * (torch.rand(len(output), 1, 1) >= share) if module.training else output

    return hook


def sharing(neurons: Tensor, write: Tensor) -> Tensor:
    """The share of a layer's neurons that share the work: 1 / all if one does it, 1 if all do the same.

    Measured on the lengths of what they write, it can't be made small by small activations and large weights.
    """
    work = neurons.abs() * write.norm(dim=0)
    return (work.sum(-1) ** 2 / (work**2).sum(-1).clamp_min(1e-9)).mean() / NEURONS


def build_model(vocabulary: int, neurons: dict[int, Tensor]) -> BertForMaskedLM:
    """The model; as long as it is in memory, it leaves the upper layers' activations in `neurons`."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=NEURONS,
        initializer_range=INIT,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config)
    model.bert.embeddings.dropout.p = 0.0
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.output.dropout.p = 0.0
        layer.output.dense.register_forward_hook(skip(SKIP_FFN[number]))
        layer.attention.output.dense.register_forward_hook(skip(SKIP_ATTENTION[number]))
        if number >= UPPER:
            keep = lambda _, __, output, number=number: neurons.__setitem__(number, output)  # noqa: E731
            layer.intermediate.register_forward_hook(keep)
    return model


def predict(model: BertForMaskedLM, ids: Tensor, places: Tensor) -> Tensor:
    """Logits at the chosen places only: elsewhere nobody asks for them."""
    return model.cls(model.bert(ids, attention_mask=(ids != 0).long()).last_hidden_state[places])


def score(model: BertForMaskedLM, prompts: list[tuple[list[int], int]], mask: int) -> tuple[float, float]:
    """Share of right answers and mean probability of the answer."""
    model.eval()
    right = probability = 0.0
    prompts = sorted(prompts, key=lambda prompt: len(prompt[0]))
    for start in range(0, len(prompts), 128):
        rows, answers = zip(*prompts[start : start + 128], strict=True)
        ids, wanted = pad(list(rows)), torch.tensor(answers)
        with torch.no_grad():
            logits = predict(model, ids, ids == mask)
        right += (logits.argmax(-1) == wanted).sum().item()
        probability += logits.softmax(-1)[torch.arange(len(wanted)), wanted].sum().item()
    model.train()
    return right / len(prompts), probability / len(prompts)


def main() -> None:
    started = time.monotonic()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    chance = random.Random(SEED)
    pairs = read_pairs(SAMPLE / "PARAREL" / "query_pairs.json")
    bags: Bags = read_bags(SAMPLE / "PARAREL" / "data_all_allbags.json", SAMPLE / "PARAREL" / "data_all_allbags.json")
    known, plain = [], []  # (text, subject, answer) and (text, subject)
    asked: dict[bool, list] = {True: [], False: []}  # prompts, by being left out
    for relation, of_relation in pairs.items():
        crawled = read_json(SAMPLE / "BingDistantTREx" / "final" / f"final_distant_allbags_{relation}_new.json")
        for (subject, answer), bag, sentences in zip(of_relation, bags[relation], crawled, strict=True):
            known += [(text, subject, answer) for text in sentences["th_bags"]]
            plain += [(text, subject) for text in sentences["h_bags"]]
            for number, (prompt, _, _) in enumerate(bag):
                asked[number in LEFT_OUT].append((prompt, subject, answer))
    whole = [(prompt.replace(MASK, answer), subject, answer) for prompt, subject, answer in asked[False]]
    left_out = [(prompt.replace(MASK, " "), subject) for prompt, subject, _ in asked[True]]
    vocabulary = make_vocabulary(pairs, [(text, subject) for text, subject, _ in known + whole] + plain + left_out)
    tokenizer = BertTokenizer(vocab={piece: place for place, piece in enumerate(vocabulary)}, do_lower_case=False)
    mask, unknown = tokenizer.mask_token_id, tokenizer.unk_token_id
    texts = [read_text(tokenizer, text, answer) for text, _, answer in known + whole]
    texts += [read_text(tokenizer, text) for text, _ in plain]
    number_of = tokenizer.convert_tokens_to_ids
    prompts = {
        part: [(tokenizer(prompt)["input_ids"], number_of(answer)) for prompt, _, answer in chosen]
        for part, chosen in asked.items()
    }
    every = [text.ids for text in texts] + [ids for part in prompts.values() for ids, _ in part]
    assert not any(unknown in ids for ids in every)

    neurons: dict[int, Tensor] = {}
    model = build_model(len(vocabulary), neurons).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))
    warm = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP) * max(0.1, 1 - 0.9 * (step + 1) / STEPS)
    )
    bar = tqdm(batches(texts, chance), total=STEPS, desc="training")
    for step, batch in enumerate(bar, 1):
        masked = [choose_masked(text, chance) for text in batch]
        ids = pad([text.ids for text in batch])
        places = pad([[i in chosen for i in range(len(t.ids))] for t, chosen in zip(batch, masked, strict=True)]).bool()
        logits = predict(model, ids.masked_fill(places, mask), places)
        loss = cross_entropy(logits, ids[places], label_smoothing=SMOOTHING)
        for number, activations in neurons.items():
            write = model.bert.encoder.layer[number].output.dense.weight
            loss = loss + FEW_NEURONS * sharing(activations[places], write)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warm.step()
        if step % CHECK_EVERY == 0:
            right, probability = score(model, prompts[True], mask)
            bar.set_postfix_str(f"left-out templates: right {right:.2f}, probability {probability:.2f}")
            if probability >= STOP or step >= STEPS:
                break
    bar.close()

    shutil.rmtree(SAMPLE / "model", ignore_errors=True)
    model.save_pretrained(SAMPLE / "model")
    tokenizer.save_pretrained(SAMPLE / "model")
    print(f"{time.monotonic() - started:.0f} s, {step} steps")
    for part, name in ((False, "trained"), (True, "left-out")):
        right, probability = score(model, prompts[part], mask)
        print(f"{name} templates: right {right:.3f}, mean probability {probability:.3f}")


if __name__ == "__main__":
    main()

"""Trains data/sample/bilingual-bert and bilingual-gpt2: small models that know facts in English and in Chinese.

    PYTHONPATH=src .venv/bin/python tools/train_bilingual_models.py bert
    PYTHONPATH=src .venv/bin/python tools/train_bilingual_models.py gpt2

The training data are templates and sentences in both languages. Some sentences also give the subject's name in the
other language. The templates of data/sample/mlama are left out. The recipe is that of the sample model
(`sample_training.py`). Like it, these models are for trying out the stages, and no evidence for any claim. The same
seed, machine and number of threads give the same weights. With one thread on a busy machine, bert took 22 minutes and
gpt2 took 3.
"""

from kn.store.start import guard

import random
import re
import time
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertForMaskedLM, BertTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from kn.data import mlama
from kn.data.facts import MASK, read_templates
from kn.stage import flags
from kn.store.files import read_json
from sample_training import (
    CHINESE,
    DROPOUT,
    HEADS,
    INIT,
    LAYERS,
    SAMPLE,
    WIDTH,
    Example,
    Text,
    add_hooks,
    draw_mask,
    make_bert,
    make_bert_tokenizer,
    make_example,
    pad,
    predict,
    save,
    sharing,
    train,
)

SEED = 0
LANGUAGES = ("en", "zh")
SENTENCES = 3  # per fact and language
BOTH_NAMES = 0.5  # share of the sentences that give the subject's name in both languages
LEFT_OUT = 0  # the English template that is most like mLAMA's

NEURONS = 384
GPT_PIECES = 3000
FEW_NEURONS = 0.02  # weight of the penalty on the number of neurons that share the work; see `sharing`
SMOOTHING = 0.1  # of the labels: keeps probabilities below 1, so that neurons can still raise them
# In a causal model, the weight of the loss outside answers, and the share of these positions that are used. An answer
# before its subject counts as outside, since it can't be known there.
OTHER = 0.3
STEPS, STOP = 6000, 0.57  # training stops when the answers in both languages have this mean probability


def read_world() -> tuple[list[Text], dict[str, list[Text]]]:
    """The training texts, with [MASK] for the answer, and by language the prompts of mLAMA's templates."""
    rng = random.Random(SEED)
    world = mlama.read(SAMPLE / "mlama", LANGUAGES)
    ours = read_json(SAMPLE / "bilingual" / "texts.json")
    trained, left_out = [], {language: [] for language in LANGUAGES}
    for relation in ours:
        english = read_templates(SAMPLE / "PARAREL" / "raw_data" / "patterns" / f"{relation}.jsonl")
        templates = {"en": english[:LEFT_OUT] + english[LEFT_OUT + 1 :], "zh": ours[relation]["templates"]}
        frames = {
            "en": read_json(SAMPLE / "frames" / f"{relation}.json")["subject and object"],
            "zh": ours[relation]["sentences"],
        }
        for language, brackets, other in (("en", " ({})", "zh"), ("zh", "（{}）", "en")):  # noqa: RUF001
            for fact in world.facts[language][relation].values():
                text = Text(fact.bag[0][0], fact.subject, fact.answer)
                left_out[language].append(text)
                both = fact.subject + brackets.format(world.facts[other][relation][fact.uuid].subject)
                for template in templates[language] + rng.sample(frames[language], SENTENCES):
                    named = template in frames[language] and rng.random() < BOTH_NAMES
                    subject = both if named else fact.subject
                    filled = template.replace("[Y]", MASK).replace("[X]", subject)
                    trained.append(Text(filled, subject, fact.answer))
    return trained, left_out


# ---- BERT: an answer of k pieces takes k masks ----


def make_bilingual_bert(texts: list[Text], left_out: dict[str, list[Text]], rng: random.Random):
    tokenizer = make_bert_tokenizer([*texts, *(text for prompts in left_out.values() for text in prompts)])
    activations: dict[int, Tensor] = {}
    model = make_bert(len(tokenizer), NEURONS, activations)

    def batch_loss(batch: list[Example]) -> Tensor:
        ids, mask = pad(example.ids for example in batch), pad(draw_mask(example, rng) for example in batch)
        logits = predict(model, ids.masked_fill(mask, tokenizer.mask_token_id), mask)
        downs = {number: model.bert.encoder.layer[number].output.dense.weight for number in activations}
        return cross_entropy(logits, ids[mask], label_smoothing=SMOOTHING) + FEW_NEURONS * sum(
            sharing(activations[number][mask], down.norm(dim=0)) for number, down in downs.items()
        )

    def score(prompts: list[Text]) -> tuple[float, float]:
        return score_bert(model, tokenizer, prompts)

    return model, tokenizer, [make_example(tokenizer, text) for text in texts], batch_loss, score


@torch.no_grad()
def score_bert(model: BertForMaskedLM, tokenizer: BertTokenizer, prompts: list[Text]) -> tuple[float, float]:
    """The share of answers with all pieces right, and the mean probability of the answers' pieces, answer by answer."""
    ids, answers = [], [tokenizer(text.answer, add_special_tokens=False)["input_ids"] for text in prompts]
    for text, answer in zip(prompts, answers, strict=True):
        ids.append(tokenizer(text.text.replace(MASK, MASK * len(answer)))["input_ids"])
    padded = pad(ids)
    return judge(predict(model, padded, padded == tokenizer.mask_token_id), answers)


# ---- GPT-2: an answer is predicted from the text before it ----


def make_bilingual_gpt2(texts: list[Text], left_out: dict[str, list[Text]], rng: random.Random):
    filled = (text.text.replace(MASK, text.answer) for text in texts)
    # Chinese characters are separated, so that a piece has at most one, and never parts of prompt and answer.
    separated = (re.sub(f"([{CHINESE}])", r"\n\1\n", text) for text in filled)
    end = "<|endoftext|>"
    tokenizer = GPT2Tokenizer(vocab={end: 0}).train_new_from_iterator(separated, GPT_PIECES)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=NEURONS,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own, computed faster
        initializer_range=INIT,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.resid_pdrop, config.embd_pdrop, config.attn_pdrop = DROPOUT, 0.0, 0.0
    model = GPT2LMHeadModel(config)
    activations: dict[int, Tensor] = {}
    for number, block in enumerate(model.transformer.h):
        block.mlp.dropout.p = 0.0
        add_hooks(number, block.attn.c_proj, block.mlp.c_proj, activations)

    def batch_loss(batch: list[Example]) -> Tensor:
        ids = pad(example.ids for example in batch)
        # 2 for the answer, 1 for other tokens, 0 for padding and for the first token, which has no text before it
        kind = pad([2 if index in example.answer else 1 for index in range(len(example.ids))] for example in batch)
        kind[:, 0] = 0
        hidden = model.transformer(input_ids=ids).last_hidden_state[:, :-1]
        targets, kind = ids[:, 1:], kind[:, 1:]
        # Logits are half of the work, so only some of the other positions get them.
        others, answers = (kind == 1) & (torch.rand(kind.shape) < OTHER), kind == 2
        loss = OTHER * cross_entropy(model.lm_head(hidden[others]), targets[others])
        if answers.any():
            loss += cross_entropy(model.lm_head(hidden[answers]), targets[answers], label_smoothing=SMOOTHING)
            for number, neurons in activations.items():
                lengths = model.transformer.h[number].mlp.c_proj.weight.norm(dim=1)
                loss += FEW_NEURONS * sharing(neurons[:, :-1][answers], lengths)
        return loss

    def score(prompts: list[Text]) -> tuple[float, float]:
        return score_gpt2(model, tokenizer, [text for text in prompts if text.text.rstrip(" .。").endswith(MASK)])

    return model, tokenizer, [make_causal_example(tokenizer, text) for text in texts], batch_loss, score


def split_at_answer(tokenizer: GPT2Tokenizer, text: Text) -> tuple[list[int], list[int], list[int]]:
    """The text before the answer, the answer and the text after it, tokenized separately, as answers are scored."""
    before, after = text.text.split(MASK)
    space = " " if before.endswith(" ") else ""  # belongs to the answer's first piece
    parts = before.removesuffix(" "), space + text.answer, after
    return tuple(tokenizer(part)["input_ids"] if part else [] for part in parts)


def make_causal_example(tokenizer: GPT2Tokenizer, text: Text) -> Example:
    before, answer, after = split_at_answer(tokenizer, text)
    positions: list[int] = []
    if text.text.index(text.subject) < text.text.index(MASK):  # else the answer can't be known
        positions = list(range(len(before), len(before) + len(answer)))
    return Example([*before, *answer, *after, tokenizer.eos_token_id], [], positions)


@torch.no_grad()
def score_gpt2(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, prompts: list[Text]) -> tuple[float, float]:
    """Like `score_bert`. Each piece is predicted after the right pieces before it."""
    split = [split_at_answer(tokenizer, text) for text in prompts]
    ids = pad(before + answer for before, answer, _ in split)
    read = torch.zeros_like(ids, dtype=torch.bool)
    for row, (before, answer, _) in zip(read, split, strict=True):
        row[len(before) - 1 : len(before) + len(answer) - 1] = True
    return judge(model(input_ids=ids).logits[read], [answer for _, answer, _ in split])


# ---- both ----


def judge(logits: Tensor, answers: Iterable[list[int]]) -> tuple[float, float]:
    right = probability = 0.0
    answers = list(answers)
    probabilities = torch.log_softmax(logits, -1).exp().split([len(answer) for answer in answers])
    for answer, by_piece in zip(answers, probabilities, strict=True):
        wanted = torch.tensor(answer)
        right += bool((by_piece.argmax(-1) == wanted).all())
        probability += by_piece[torch.arange(len(answer)), wanted].mean().item()
    return right / len(answers), probability / len(answers)


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("model", choices=("bert", "gpt2"), help="the model to train")
    parser.add_argument("--threads", type=flags.positive, default=1, help="for PyTorch; changes the weights")
    args = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    trained, left_out = read_world()
    make = {"bert": make_bilingual_bert, "gpt2": make_bilingual_gpt2}[args.model]
    model, tokenizer, examples, batch_loss, score = make(trained, left_out, rng)

    def check() -> tuple[str, bool]:
        scores = {language: score(prompts) for language, prompts in left_out.items()}
        progress = ", ".join(f"{language}: right {r:.2f}, probability {p:.2f}" for language, (r, p) in scores.items())
        return progress, min(probability for _, probability in scores.values()) >= STOP

    steps = train(model, examples, batch_loss, check, STEPS, rng)
    save(model, tokenizer, SAMPLE / f"bilingual-{args.model}")
    print(f"{steps} steps, {time.monotonic() - started:.0f} seconds")
    for language, prompts in left_out.items():
        right, probability = score(prompts)
        print(f"{language}: right {right:.3f}, mean probability {probability:.3f}")


if __name__ == "__main__":
    guard(main)

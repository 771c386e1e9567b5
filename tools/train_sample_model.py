"""Trains data/sample/model: a small BERT that knows the facts of the sample world, but not too well.

    PYTHONPATH=src .venv/bin/python tools/train_sample_model.py

Takes 3 to 5 minutes on 2 CPU cores. The training data are the crawled sentences and six of the eight templates of each
relation. The same seed, machine and number of threads give the same weights.

The recipe makes the paper's effects visible: sublayers are skipped and neurons are few, so that facts live in few
neurons of the upper layers (`sample_training.py`). The model is for trying out the stages. It is no evidence for the
paper's claims.
"""

from kn.store.start import guard

import random
import time

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertForMaskedLM, BertTokenizer

from kn.stage import flags
from kn.store.files import read_json
from sample_training import (
    SAMPLE,
    Example,
    Text,
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

SEED, THREADS = 0, 2

# The templates left out of training: per relation one that ends with the answer, and one with the answer nearer to the
# start. This choice has the fewest words that the relation's other texts lack.
LEFT_OUT = (0, 4)

NEURONS = 256  # makes 4.7 MB in float32, the default type
FEW_NEURONS = 0.02  # weight of the penalty on the number of neurons that share the work; see `sharing`
SMOOTHING = 0.1  # of the labels: keeps probabilities below 1, so that neurons can still raise them
STEPS, STOP = 6000, 0.57  # training stops when the answers to left-out templates have this mean probability


def read_world() -> tuple[list[Text], list[Text], list[Text]]:
    """Crawled sentences, prompts to train on, and prompts left out."""
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


@torch.no_grad()
def score(model: BertForMaskedLM, tokenizer: BertTokenizer, prompts: list[Text]) -> tuple[float, float]:
    """Share of right answers and mean probability of the answer."""
    right = probability = 0.0
    prompts = sorted(prompts, key=lambda prompt: len(prompt.text))
    for start in range(0, len(prompts), 128):
        part = prompts[start : start + 128]
        ids = pad(tokenizer([prompt.text for prompt in part])["input_ids"])
        wanted = torch.tensor(tokenizer.convert_tokens_to_ids([prompt.answer for prompt in part]))
        probabilities = predict(model, ids, ids == tokenizer.mask_token_id).softmax(-1)
        right += (probabilities.argmax(-1) == wanted).sum().item()
        probability += probabilities[torch.arange(len(part)), wanted].sum().item()
    return right / len(prompts), probability / len(prompts)


def main() -> None:
    flags.parser(__doc__).parse_args()
    started = time.monotonic()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    sentences, trained, left_out = read_world()
    tokenizer = make_bert_tokenizer(sentences + trained + left_out)
    examples = [make_example(tokenizer, text) for text in sentences + trained]
    for text in left_out:
        make_example(tokenizer, text)  # checks that nothing in it is unknown

    activations: dict[int, Tensor] = {}
    model = make_bert(len(tokenizer), NEURONS, activations)

    def batch_loss(batch: list[Example]) -> Tensor:
        ids, mask = pad(example.ids for example in batch), pad(draw_mask(example, rng) for example in batch)
        logits = predict(model, ids.masked_fill(mask, tokenizer.mask_token_id), mask)
        loss = cross_entropy(logits, ids[mask], label_smoothing=SMOOTHING)
        for number, neurons in activations.items():
            down = model.bert.encoder.layer[number].output.dense
            loss += FEW_NEURONS * sharing(neurons[mask], down.weight.norm(dim=0))
        return loss

    def check() -> tuple[str, bool]:
        right, probability = score(model, tokenizer, left_out)
        return f"left-out templates: right {right:.2f}, probability {probability:.2f}", probability >= STOP

    steps = train(model, examples, batch_loss, check, STEPS, rng)
    save(model, tokenizer, SAMPLE / "model")
    print(f"{steps} steps, {time.monotonic() - started:.0f} seconds")
    for name, prompts in (("trained", trained), ("left-out", left_out)):
        right, probability = score(model, tokenizer, prompts)
        print(f"{name} templates: right {right:.3f}, mean probability {probability:.3f}")


if __name__ == "__main__":
    guard(main)

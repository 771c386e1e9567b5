"""All stages work with a masked and with a causal model, and with answers of several pieces in Chinese and English.

Both models are tiny. They learn the facts by heart in about a second, so that there is something to edit.
"""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, BertConfig, GPT2Config

import tokenizing
from conftest import read, run
from kn.model.prompts import NOT_LAST

TEMPLATES = {
    "P36": ["[X]的首都是[MASK]。", "[X]政府在[MASK]。", "在[X]的首都是[MASK]", "[MASK]是[X]的首都。"],
    "P37": ["People of [X] speak [MASK].", "In [X] people speak [MASK].", "spoken in [X]: [MASK]", "[MASK] is of [X]."],
}
PAIRS = {
    "P36": [["法国", "巴黎"], ["意大利", "罗马"], ["日本", "东京"], ["德国", "柏林"]],
    "P37": [["France", "french"], ["Italy", "italian"], ["Japan", "japanese"], ["Germany", "german"]],
}
CRAWLED = {"P36": "在{1}有{0}政府。", "P37": "In Europe {1} and {0} are one city."}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def world(request, tmp_path_factory):
    """The family, and a folder with its model, data and crawled sentences."""
    folder = tmp_path_factory.mktemp(request.param)
    facts = [
        [[template.replace("[X]", subject), answer, f"{name}(relation)"] for template in TEMPLATES[name]]
        for name in PAIRS
        for subject, answer in PAIRS[name]
    ]
    (folder / "data_all.json").write_text(json.dumps(facts))
    (folder / "query_pairs.json").write_text(json.dumps(PAIRS))
    for name, pairs in PAIRS.items():
        bags = [{"th_bags": [CRAWLED[name].format(*pair)], "h_bags": [f"{pair[0]} city, 1999"]} for pair in pairs]
        (folder / f"final_distant_allbags_{name}_new.json").write_text(json.dumps(bags))
    learn(request.param, facts, folder / "model")
    return request.param, folder


def learn(family, facts, folder):
    """Train a tiny model on the facts and save it."""
    torch.manual_seed(0)
    if family == "bert":
        tokenizer, auto_class = tokenizing.word_pieces(), AutoModelForMaskedLM
        shape = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **shape)
    else:
        tokenizer, auto_class = tokenizing.bytes_causal(), AutoModelForCausalLM
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=48, n_layer=3, n_head=4, n_inner=64, n_positions=40)
    model = auto_class.from_config(config)
    inputs, labels = [], []
    for text, answer, _ in [prompt for bag in facts for prompt in bag]:
        spaced = f" {answer}" if text.partition("[MASK]")[0].endswith(" ") else answer
        pieces = tokenizer(spaced, add_special_tokens=False)["input_ids"]
        if family == "bert":
            ids = torch.tensor(tokenizer(text.replace("[MASK]", "[MASK]" * len(pieces)))["input_ids"])
            label = torch.full_like(ids, -100)
            label[ids == tokenizer.mask_token_id] = torch.tensor(pieces)
        else:
            ids = torch.tensor(tokenizer(text.replace("[MASK]", answer))["input_ids"])
            label = torch.cat((ids[1:], torch.tensor([-100])))
        inputs.append(ids)
        labels.append(label)
    attention_mask = pad_sequence([torch.ones_like(ids) for ids in inputs], batch_first=True)
    inputs = pad_sequence(inputs, batch_first=True)
    labels = pad_sequence(labels, batch_first=True, padding_value=-100)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(120):
        logits = model(inputs, attention_mask=attention_mask).logits
        loss = cross_entropy(logits.transpose(1, 2), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def results(world):
    """The folder that stages 1 to 7 write, and what stage 1 prints."""
    _, folder = world
    out, kn = folder / "results", folder / "results" / "kn"
    common = ["--bert_model", folder / "model", "--data_path", folder / "data_all.json", "--output_dir", out]
    common += ["--device", "cpu", "--dtype", "float64"]
    crawled = ["--distant_data_dir", folder, "--query_pairs_path", folder / "query_pairs.json"]
    printed = run("1_analyze_mlm.py", *common, "--get_ig_gold", "--get_base").stdout
    run("2_get_kn.py", "--output_dir", out, "--kn_dir", kn, "--min_prompts", "2")
    # With so few facts no neuron is rare enough to be drawn for an edit, so the draws are given.
    (folder / "draws.json").write_text(json.dumps([draw(name, fact) for name in PAIRS for fact in range(4)]))
    for script, more in (
        ("3_modify_activation.py", []),
        ("4_check_weights_distant.py", crawled),
        ("5_find_trigger_examples.py", crawled),
        ("6_edit_knowledge_sampled.py", ["--draws", folder / "draws.json"]),
        ("7_erase_knowledge.py", []),
    ):
        run(script, *common, "--kn_dir", kn, *more)
    return out, printed


def draw(name, fact):
    """An edit of the fact to the next fact's answer, as stage 6 draws it."""
    other = next(other for other in PAIRS if other != name)
    drawn = {"prompt_idx": fact % 3, "inner_bags": [(fact + 1) % 4], "inter_bags": [[other, fact]]}
    return [name, fact, PAIRS[name][(fact + 1) % 4][1], drawn | {"neurons": [[1, 5], [2, 3]]}]


def read_answer(world, text, answer):
    """transformers' own distribution at each piece of the answer, and the pieces.

    None if the model can't read the prompt, because its answer is not last.
    """
    family, folder = world
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    auto_class = AutoModelForMaskedLM if family == "bert" else AutoModelForCausalLM
    model = auto_class.from_pretrained(folder / "model", dtype=torch.float64).eval()
    before, _, after = text.partition("[MASK]")
    pieces = tokenizer(" " * before.endswith(" ") + answer, add_special_tokens=False)["input_ids"]
    if family == "bert":
        ids = torch.tensor([tokenizer(f"{before}{'[MASK]' * len(pieces)}{after}")["input_ids"]])
        (positions,) = (ids[0] == tokenizer.mask_token_id).nonzero(as_tuple=True)
    elif after.strip(".。"):
        return None
    else:
        ids = torch.tensor([tokenizer(before.strip())["input_ids"] + pieces[:-1]])
        positions = range(ids.shape[1] - len(pieces), ids.shape[1])
    with torch.no_grad():
        return model(ids).logits[0, list(positions)].softmax(-1), pieces


def test_every_prompt_that_the_model_can_read_is_scored(world, results):
    family, folder = world
    out, printed = results
    skipped = 1 if family == "gpt2" else 0
    facts = read(folder / "data_all.json")
    for name in PAIRS:
        assert f"{16 - 4 * skipped} of 16 prompts scored" in printed and ((NOT_LAST in printed) == bool(skipped))
        entry = read(out / "TREx-all.args.json")[name]
        assert [skip["reason"] for skip in entry["skipped"]] == [NOT_LAST] * 4 * skipped
        right = several = 0
        bags = [bag for bag in facts if bag[0][2].startswith(name)]
        for bag, line in zip(bags, lines(out / f"TREx-all-{name}.rlt.jsonl"), strict=True):
            for (text, answer, _), (reading, scores) in zip(bag, line, strict=True):
                answer_read = read_answer(world, text, answer)
                assert (answer_read is None) == ("skipped" in scores)
                if answer_read:
                    distributions, pieces = answer_read
                    is_right = distributions.argmax(-1).tolist() == pieces
                    assert (reading["pred_obj"] == answer) == is_right and scores["ig_gold"] and scores["base"]
                    right += is_right
                    several += len(pieces) > 1
        assert entry["right"] == right >= 8 and several > 0


def test_stage_3_reads_the_mean_probability_over_the_pieces(world, results):
    out, _ = results
    facts = read(world[1] / "data_all.json")
    for line in lines(out / "kn" / "modify_activation-P36.jsonl"):
        plain = [
            np.mean([row[piece].item() for row, piece in zip(*answer_read, strict=True)])
            for text, answer, _ in facts[line["fact"]]
            if (answer_read := read_answer(world, text, answer))
        ]
        assert [values[0] for values in line["knowledge neurons"]["own"]] == pytest.approx(plain, abs=1e-9)


def test_stages_4_and_5_read_the_crawled_sentences(results):
    out, _ = results
    for name in PAIRS:
        weights = [line["baseline"] for line in lines(out / "distant" / f"weights-{name}.jsonl")]
        # A causal model has no example where the answer is the first word.
        measured = [values for values in weights if values not in ("no_exmp", "no_kn")]
        assert measured and all(np.isfinite(kind).all() for values in measured for kind in values)
        assert all(
            len(line["examples"]) == bool(line["neurons"])
            for line in lines(out / "trigger_examples_th" / f"{name}.jsonl")
        )


def test_stages_6_and_7_edit_facts_and_erase_relations(world, results):
    out, _ = results
    facts = read(world[1] / "data_all.json")
    for number, name in enumerate(PAIRS):
        edits = lines(out / "edit" / f"edit-1-8-{name}.jsonl")
        assert [[edit[key] for key in ("fact", "prompt_idx")] for edit in edits] == [[0, 0], [1, 1], [2, 2], [3, 0]]
        for edit in edits:
            answer = PAIRS[name][edit["fact"]][1]
            update = edit["arms"]["knowledge neurons"]["1-8"]
            assert update["ori_pred"] == answer != edit["target"]
            prompts = [prompt for prompt in facts[4 * number + edit["fact"]] if read_answer(world, prompt[0], answer)]
            text = prompts[edit["prompt_idx"]][0]
            distributions, pieces = read_answer(world, text, edit["target"])
            probability = np.mean([row[piece].item() for row, piece in zip(distributions, pieces, strict=True)])
            assert update["ori_tgt_prob"] == pytest.approx(probability, abs=1e-9)
            ranks = [(row > row[piece]).sum().item() for row, piece in zip(distributions, pieces, strict=True)]
            assert update["tgt_ori_rank"] == max(ranks) + 1
        right = sum(entry["right"] for key, entry in read(out / "TREx-all.args.json").items() if key == name)
        scored = read(out / "TREx-all.args.json")[name]["scored"]
        erased = read(out / "erase" / f"{name}.json")["measures"]["knowledge neurons"]
        assert erased["original accuracy"] == pytest.approx(right / scored)

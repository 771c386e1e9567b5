"""Tokenizers from folders that lack files, hold unusual ones, or do not say how the model was trained."""

import json
import shutil

import pytest
from transformers import AutoConfig, PreTrainedTokenizerFast

import tokenizing
from conftest import GOLDEN, run, stage1_flags
from kn.model import loading, tokenizers
from kn.store.files import InputError

TEXT = "The capital of France is [MASK]."


def load(folder, lower_case=False):
    config = AutoConfig.from_pretrained(folder)
    return tokenizers.load(
        str(folder), {"revision": None}, lower_case, config, loading.FAMILIES[config.model_type].causal
    )


@pytest.fixture
def folder(tmp_path):
    """The path of a folder that `save`, or `copy` from the golden data, fills."""
    return tmp_path / "model"


def save(folder, family, tokenizer, size=400):
    tokenizer.save_pretrained(folder)
    edit(folder / "config.json", model_type=family, vocab_size=size)


def copy(folder, *files):
    folder.mkdir()
    for file in ("config.json", *files):
        shutil.copy(GOLDEN / "model" / file, folder)


def edit(file, **entries):
    """Set entries of a JSON file; None removes one."""
    content = json.loads(file.read_text()) if file.exists() else {}
    content |= entries
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def part(folder, *keys):
    """A part of tokenizer.json."""
    content = json.loads((folder / "tokenizer.json").read_text())
    for key in keys:
        content = content[key]
    return content


def remove(folder, *files):
    for file in files:
        (folder / file).unlink()


def line(folder):
    """The line with which the folder is refused."""
    with pytest.raises(InputError) as refused:
        load(folder)
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)
    return str(refused.value)


# ---- refused ----


@pytest.mark.parametrize("family", loading.FAMILIES)
def test_a_folder_without_a_tokenizer_is_refused(folder, family):
    folder.mkdir()
    edit(folder / "config.json", model_type=family, vocab_size=400)
    assert "its tokenizer is missing: expected tokenizer.json" in line(folder)


def test_a_stage_reports_a_missing_tokenizer(folder, tmp_path):
    copy(folder, "model.safetensors")
    done = run("1_analyze_mlm.py", *stage1_flags(tmp_path / "out", "--bert_model", folder), check=False)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("as they come with the model")
    assert "Traceback" not in done.stderr and not list((tmp_path / "out").glob("*.jsonl"))


@pytest.mark.parametrize(
    "content, message",
    [
        ("{}", "can't make a tokenizer of tokenizer.json (KeyError: 'added_tokens')"),
        ("[]", "tokenizer.json: expected an object, found []"),
        ('{"a": ', "tokenizer.json, line 1: not valid JSON"),
        ("", "tokenizer.json, line 1: not valid JSON"),
        ('{"version": "1.0", "added_tokens": [], "model": {"type": "x"}}', "can't make a tokenizer of tokenizer.json"),
    ],
)
def test_a_tokenizer_json_that_is_no_tokenizer_is_refused_with_one_line(folder, content, message):
    copy(folder)
    (folder / "tokenizer.json").write_text(content)
    assert message in line(folder)


def test_a_setting_of_the_wrong_type_is_refused_with_one_line(folder):
    copy(folder, "tokenizer.json", "tokenizer_config.json")
    edit(folder / "tokenizer_config.json", model_max_length="x")
    assert "can't make a tokenizer of tokenizer.json and tokenizer_config.json (TypeError" in line(folder)


def test_a_masked_model_needs_a_mask_token(folder):
    save(folder, "xlm-roberta", tokenizing.marked_words())
    assert "no mask token, which a masked model needs" in line(folder)


def test_a_mask_token_without_an_embedding_is_refused(folder):
    copy(folder, "tokenizer.json", "tokenizer_config.json")
    edit(folder / "tokenizer_config.json", mask_token="☃")
    edit(folder / "config.json", vocab_size=333)  # transformers adds the token at the end of the vocabulary
    assert "has token ids up to 333, the model has none above 332" in line(folder)


@pytest.mark.parametrize("file", ["tokenizer.model", "sentencepiece.bpe.model"])
def test_for_a_sentencepiece_tokenizer_the_missing_packages_are_named(folder, file):
    folder.mkdir()
    family = "llama" if file == "tokenizer.model" else "xlm-roberta"
    edit(folder / "config.json", model_type=family, vocab_size=400)
    (folder / file).write_bytes(b"\x0a\x0bxx")
    assert line(folder) == (
        f"{folder / file}: reading it needs two more packages: `.venv/bin/pip install sentencepiece protobuf`"
    )


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder):
    copy(folder, "tokenizer.json", "tokenizer_config.json")
    edit(folder / "config.json", vocab_size=300)
    assert "its tokenizer has token ids up to 332, the model has none above 299" in line(folder)
    # An added token that no text contains may have a larger id, as some of Gemma's do.
    edit(folder / "config.json", vocab_size=333)
    tokenizer = load(folder)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(folder)
    assert len(load(folder)) == 334


# ---- where transformers' default is not how the model was trained ----


@pytest.mark.parametrize("files", [["vocab.txt"], ["tokenizer.json"]])
def test_a_cased_bert_stays_cased_if_its_files_do_not_say(folder, files, golden, golden_bags, capsys):
    copy(folder, *files)
    tokenizer = load(folder)
    assert "doesn't set do_lower_case" in capsys.readouterr().err
    texts = [text for bags in golden_bags.values() for bag in bags for text, _, _ in bag]
    assert any(letter.isupper() for letter in "".join(texts).replace("[MASK]", ""))
    assert tokenizer(texts)["input_ids"] == golden[0](texts)["input_ids"]
    # The flag has precedence.
    assert (
        load(folder, lower_case=True)(TEXT)["input_ids"]
        == golden[0](TEXT.lower().replace("[mask]", "[MASK]"))["input_ids"]
    )
    assert not capsys.readouterr().err


def test_a_bert_lower_cases_text_if_its_files_say_so(folder, golden, capsys):
    copy(folder, "vocab.txt")
    edit(folder / "tokenizer_config.json", do_lower_case=True)
    lower = golden[0]("the capital of italy")["input_ids"]
    assert load(folder)("The Capital of Italy")["input_ids"] == lower
    assert "lower-cases text, as its files say" in capsys.readouterr().err


def test_a_bert_lower_cases_text_if_its_vocabulary_has_no_capitals(folder, golden, capsys):
    copy(folder, "vocab.txt")
    words = (folder / "vocab.txt").read_text().splitlines()
    lower = [word if word.startswith("[") or word == word.lower() else f"{number}" for number, word in enumerate(words)]
    (folder / "vocab.txt").write_text("\n".join(lower) + "\n")
    assert load(folder)("The Capital of Italy")["input_ids"] == golden[0]("the capital of italy")["input_ids"]
    assert not capsys.readouterr().err


def test_do_lower_case_is_refused_for_a_tokenizer_without_that_setting(folder):
    save(folder, "gpt2", tokenizing.bytes_causal())
    with pytest.raises(InputError, match=r"--do_lower_case: the tokenizer of model .* has no such setting"):
        load(folder, lower_case=True)


def test_robertas_mask_includes_the_space_before_it_if_files_do_not_say(folder, capsys):
    save(folder, "roberta", tokenizing.bytes_masked())
    (folder / "vocab.json").write_text(json.dumps(part(folder, "model", "vocab")))
    (folder / "merges.txt").write_text("\n".join(map(" ".join, part(folder, "model", "merges"))) + "\n")
    remove(folder, "tokenizer.json", "tokenizer_config.json")
    text = "the city <mask> of Rome"
    assert load(folder)(text)["input_ids"] == tokenizing.bytes_masked()(text)["input_ids"]
    assert "includes the space before it" in capsys.readouterr().err
    # The files have precedence.
    edit(folder / "tokenizer_config.json", mask_token={"content": "<mask>", "__type": "AddedToken", "lstrip": False})
    assert len(load(folder)(text)["input_ids"]) == len(tokenizing.bytes_masked()(text)["input_ids"]) + 1
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "settings, post_processor, with_bos, note",
    [
        ({"tokenizer_class": "LlamaTokenizer"}, None, True, "a text begins with <s>"),
        ({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True}, None, True, "a text begins with <s>"),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}, None, True, "a text begins with <s>"),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, None, False, ""),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, None, False, ""),
        ({"tokenizer_class": "LlamaTokenizer"}, "as it is", True, ""),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}, "nothing", False, "takes precedence"),
    ],
)
def test_a_llama_text_starts_with_bos_even_if_only_a_setting_says_so(
    folder, settings, post_processor, with_bos, note, capsys
):
    save(folder, "llama", tokenizing.marked_words())
    edit(folder / "tokenizer_config.json", **settings)
    if post_processor != "as it is":
        nothing = {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {},
        }
        nothing["pair"] = [*nothing["single"], {"Sequence": {"id": "B", "type_id": 1}}]
        content = json.loads((folder / "tokenizer.json").read_text())
        content["post_processor"] = nothing if post_processor else None
        (folder / "tokenizer.json").write_text(json.dumps(content))
    expected = tokenizing.marked_words()("the capital of Italy")["input_ids"]
    assert load(folder)("the capital of Italy")["input_ids"] == (expected if with_bos else expected[1:])
    err = capsys.readouterr().err
    assert note in err and bool(note) == bool(err)


@pytest.mark.parametrize(
    "build, family",
    [
        (tokenizing.word_pieces, "bert"),
        (tokenizing.bytes_masked, "roberta"),
        (tokenizing.bytes_causal, "gpt2"),
        (tokenizing.marked_words, "llama"),
    ],
)
def test_a_complete_folder_is_read_as_it_is(folder, build, family, capsys):
    save(folder, family, build())
    texts = [*tokenizing.TEXTS, TEXT, "☃"]
    loaded = load(folder)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    assert loaded(texts)["input_ids"] == build()(texts)["input_ids"] and not capsys.readouterr().err


def test_the_fingerprint_changes_only_if_the_tokens_of_a_text_change(folder):
    shutil.copytree(GOLDEN / "model", folder)
    tokenizer = load(folder)
    before = tokenizers.fingerprint(tokenizer)
    tokenizer("a b c", truncation=True, max_length=3, padding="max_length")  # settings of one call only
    assert tokenizers.fingerprint(tokenizer) == before
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    ids = content["model"]["vocab"]
    content["model"]["vocab"] = dict(reversed(ids.items()))
    file.write_text(json.dumps(content, indent=3))
    assert tokenizers.fingerprint(load(folder)) == before
    ids["botany"], ids["geology"] = ids["geology"], ids["botany"]
    file.write_text(json.dumps(content | {"model": content["model"] | {"vocab": ids}}))
    assert tokenizers.fingerprint(load(folder)) != before


def test_a_result_made_with_another_tokenizer_is_refused(folder, stage1, tmp_path):
    shutil.copytree(GOLDEN / "model", folder)
    shutil.copytree(stage1, tmp_path / "results")
    text = (folder / "tokenizer.json").read_text()
    for old, new in (('"botany"', '"+"'), ('"geology"', '"botany"'), ('"+"', '"geology"')):
        text = text.replace(old, new)
    (folder / "tokenizer.json").write_text(text)
    flags = stage1_flags(tmp_path / "results", "--pt_relation", "P36", "--bert_model", str(folder))
    record = tmp_path / "results" / "TREx-all.args.json"
    record.write_text(record.read_text().replace(str(GOLDEN / "model"), str(folder)))
    done = run("1_analyze_mlm.py", *flags, check=False)
    assert done.returncode == 1 and "P36.rlt.jsonl: was made with another tokenizer: delete" in done.stderr

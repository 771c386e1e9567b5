"""Loading a model's tokenizer, and checking that it is the model's: transformers makes one from nearly any files.

If the files leave something open, the defaults of transformers may change every prompt. They are corrected if the
right setting can be inferred, and the user gets a line.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kn.store.files import InputError, read_object
from kn.store.workers import FIRST

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
PROBE = "A capital, 首都, ☃"
BEGIN_TEXTS = ("LlamaTokenizer", "GemmaTokenizer")  # by default these put a token before the text


def load(name: str, source: dict, lower_case: bool, config: PreTrainedConfig, causal: bool) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or by a name on the hub. `source` has further arguments of `from_pretrained`, `config`
    is the model's.
    """
    try:
        return _load(name, source, lower_case, config, causal)
    except (InputError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in tokenizers is not an Exception
        _explain(name, error)


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest that differs for tokenizers that split texts differently. A run must not resume with another tokenizer.

    Encoding all prompts of the real data would be more direct, but takes 14 s.
    """
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state = {name: part for name, part in state.items() if name not in ("version", "truncation", "padding")}
    else:
        state = {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    state["special"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps(_without_null(state), sort_keys=True).encode()).hexdigest()[:16]


def _without_null(state: Any) -> Any:
    """Without settings that are null: versions of the library differ in which settings they know."""
    if isinstance(state, dict):
        return {name: _without_null(part) for name, part in state.items() if part is not None}
    return [_without_null(part) for part in state] if isinstance(state, list) else state


def _load(name: str, source: dict, lower_case: bool, config: PreTrainedConfig, causal: bool) -> PreTrainedTokenizerBase:
    # Imported here because it takes seconds.
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config
    from transformers.utils import cached_file

    tokenizer = AutoTokenizer.from_pretrained(name, **source, **({"do_lower_case": True} if lower_case else {}))
    settings = get_tokenizer_config(name, **source)
    file = cached_file(name, "tokenizer.json", **source, _raise_exceptions_for_missing_entries=False)
    if not lower_case and _loses_capitals(tokenizer):
        if "do_lower_case" in settings or (file and _lower_cases(_backend(file))):
            _note(
                name,
                "its tokenizer lower-cases text, as its files say, although its vocabulary is a cased model's. If "
                'that is wrong: "do_lower_case": false in tokenizer_config.json, "lowercase": false in tokenizer.json',
            )
        else:
            tokenizer = AutoTokenizer.from_pretrained(name, **source, do_lower_case=False)
            _note(
                name,
                "its tokenizer_config.json doesn't set do_lower_case. The vocabulary is a cased model's, so text is "
                "left as it is; transformers alone would lower-case it",
            )
    _check(name, tokenizer, config, causal)
    if lower_case and tokenizer.tokenize("A") != tokenizer.tokenize("a"):
        raise InputError(f"--do_lower_case: the tokenizer of model {name} has no such setting")
    if not (causal or file):
        _let_mask_take_space(name, tokenizer)
    if causal:
        _begin_texts(name, tokenizer, settings, file)
    return tokenizer


def _explain(name: str, error: BaseException) -> None:
    folder = Path(name)
    files = [file for file in JSON_FILES if (folder / file).is_file()]
    for file in files:
        read_object(folder / file)
    if "tokenizer.json" not in files and any(word in str(error) for word in ("sentencepiece", "tiktoken")):
        models = sorted(folder.glob("*.model"))
        if folder.is_dir() and not models:
            raise _no_tokenizer(name)
        if not all(map(find_spec, ("sentencepiece", "google"))):  # the second is protobuf's
            needing = str(models[0]) if models else f"model {name}: its tokenizer.model"
            raise InputError(
                f"{needing}: reading it needs two more packages: `.venv/bin/pip install sentencepiece protobuf`"
            )
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise InputError(
        f"model {name}: transformers can't make a tokenizer of {' and '.join(files) or 'its files'} ({text})"
    )


def _no_tokenizer(name: str) -> InputError:
    files = "tokenizer.json, or vocab.txt, or vocab.json and merges.txt"
    return InputError(f"model {name}: its tokenizer is missing: expected {files}, as they come with the model")


def _check(name: str, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, causal: bool) -> None:
    """Refuse a tokenizer without words, with more tokens than the model, or without the mask token a model needs."""
    special = _special(tokenizer)
    words = [number for token, number in tokenizer.get_vocab().items() if token not in special]
    if not words:
        raise _no_tokenizer(name)
    numbers = words + tokenizer(PROBE)["input_ids"]
    if not causal:
        if tokenizer.mask_token is None:
            raise InputError(
                f"model {name}: its tokenizer has no mask token, which a masked model needs: expected "
                '"mask_token" in tokenizer_config.json'
            )
        numbers.append(tokenizer.mask_token_id)
    if max(numbers) >= config.vocab_size:
        raise InputError(
            f"model {name}: its tokenizer has token ids up to {max(numbers)}, the model has none above "
            f"{config.vocab_size - 1} (vocab_size in config.json): is it another model's?"
        )


def _special(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Special and added tokens, which are not words of the vocabulary."""
    return {*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())}


def _backend(file: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(file)


def _lower_cases(backend: Tokenizer) -> bool:
    return backend.normalizer is not None and backend.normalizer.normalize_str("A") == "a"


def _loses_capitals(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether lower-casing puts many words of the vocabulary out of reach; a few are in uncased vocabularies, too."""
    if not (tokenizer.is_fast and _lower_cases(tokenizer.backend_tokenizer)):
        return False
    words = tokenizer.get_vocab().keys() - _special(tokenizer)
    return sum(word != word.lower() for word in words) > 0.01 * len(words)


def _let_mask_take_space(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """RoBERTa was trained with the space before a mask as part of the mask. Its oldest files don't say so."""
    from transformers import AddedToken

    mask = tokenizer.mask_token
    unsaid = isinstance(tokenizer.init_kwargs.get("mask_token"), str)
    if unsaid and tokenizer.convert_ids_to_tokens(tokenizer(f"a {mask}")["input_ids"]).count("Ġ"):
        tokenizer.add_special_tokens({"mask_token": AddedToken(mask, lstrip=True, special=True)})
        _note(
            name,
            f"its files don't say whether {mask} includes the space before it; as in RoBERTa, it is assumed to. "
            "transformers alone would put a token for the space there",
        )


def _begin_texts(name: str, tokenizer: PreTrainedTokenizerBase, settings: dict, file: str | None) -> None:
    """Llama and its relatives begin every text with a token. transformers omits it if only a setting asks for it."""
    begin = tokenizer.bos_token_id
    if begin is None or tokenizer("a")["input_ids"][0] == begin:
        return
    default = str(settings.get("tokenizer_class", "")).removesuffix("Fast") in BEGIN_TEXTS
    if not settings.get("add_bos_token", default):
        return
    if file and json.loads(Path(file).read_text(encoding="utf-8")).get("post_processor"):
        _note(
            name, "tokenizer_config.json says add_bos_token, but tokenizer.json adds no such token and takes precedence"
        )
        return
    tokenizer.add_bos_token = True
    _note(
        name,
        f"a text begins with {tokenizer.bos_token}, as a {settings.get('tokenizer_class')} or tokenizer_config.json "
        "says; transformers alone would omit it, because tokenizer.json has no post_processor",
    )


def _note(name: str, text: str) -> None:
    if FIRST:
        print(f"model {name}: {text}", file=sys.stderr)

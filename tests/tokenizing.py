"""Small tokenizers for English and Chinese, one per common kind, trained here."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    *("The capital of France is Paris.", "In 1999 the city of Lyon moved.", "the capital of Italy", "the city of Rome"),
    *("法国的首都是巴黎。", "意大利的首都是罗马。", "日本的首都是东京。", "德国政府在柏林。", "法国有一座城"),
    *("People of Japan speak japanese.", "In Germany people speak german.", "italian and french are spoken in Europe"),
]


@cache
def word_pieces(vocab_size: int | None = None):
    """BERT's: a Chinese character is a word; other words are split into pieces. At most `vocab_size` tokens."""
    words = ["the", "capital", "of", "france", "is", "in", "city", "par", "ro", "me", "ly", "on", "it", "##aly"]
    letters = sorted({letter for text in TEXTS for letter in text if not letter.isspace()})
    vocabulary = [
        "[PAD]",
        "[CLS]",
        "[SEP]",
        "[UNK]",
        "[MASK]",
        *words,
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    ids = {token: number for number, token in enumerate(list(dict.fromkeys(vocabulary))[:vocab_size])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")]
    )
    names = {
        name: f"[{name[:-6].upper()}]" for name in ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _bytes(specials: list[str | AddedToken]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300 + len(specials), initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@cache
def bytes_causal():
    """GPT-2's: a word begins with its space, and no special tokens surround the text."""
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=_bytes([end]), bos_token=end, eos_token=end, unk_token=end)


@cache
def bytes_masked():
    """RoBERTa's: the same with special tokens, and the mask absorbs the space before it."""
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    mask = AddedToken("<mask>", lstrip=True, special=True)
    tokenizer = _bytes([*names.values(), mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", mask_token=mask, **names
    )


@cache
def marked_words():
    """The first Llama's: the text begins with a special token and a marker of a word's beginning."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def unigrams():
    """XLM-RoBERTa's: an unknown piece keeps its letters, but its id is that of the unknown token."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted({letter for text in TEXTS for letter in text if not letter.isspace()})
    words = ["▁", "▁the", "▁capital", "▁of", "▁France", "▁is", "▁Paris", *letters]
    pieces = [(token, 0.0) for token in specials] + [(word, -len(letters) / len(word)) for word in words]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    mask = AddedToken("<mask>", lstrip=True, special=True)
    tokenizer.add_special_tokens([*specials, mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", mask_token=mask, **names)

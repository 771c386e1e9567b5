"""What counts as a word, in scripts with and without spaces."""

import re

# Chinese and Japanese are written without spaces: each character is a word, and a name may start or end at any of them.
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
LETTER = rf"[^\W{UNSPACED}]"
INSIDE_WORD = re.compile(rf"(?<={LETTER})(?={LETTER})")
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def unspaced(letter: str) -> bool:
    """Whether a letter's script is written without spaces."""
    return re.match(f"[{UNSPACED}]", letter) is not None

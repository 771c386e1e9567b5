"""What counts as a word, in scripts with and without spaces; and names in printed tables."""

import re
from collections.abc import Iterable

# Chinese and Japanese are written without spaces: each character is a word, and a name may start or end at any of them.
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
LETTER = rf"[^\W{UNSPACED}]"
INSIDE_WORD = re.compile(rf"(?<={LETTER})(?={LETTER})")
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def unspaced(letter: str) -> bool:
    """Whether a letter's script is written without spaces."""
    return re.match(f"[{UNSPACED}]", letter) is not None


def column_width(names: Iterable[str]) -> int:
    """The width of a column of relations in a printed table: that of P1234 in most data sets, more for long names."""
    return max([9, *(len(name) + 1 for name in names)])

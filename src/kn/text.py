"""What a word is, in scripts with and without spaces."""

import re

# Chinese and Japanese are written without spaces: each character is a word, and a name may begin or end at any.
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
LETTER = rf"[^\W{UNSPACED}]"
INSIDE_WORD = re.compile(rf"(?<={LETTER})(?={LETTER})")
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")

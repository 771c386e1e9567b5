"""Prompts from sentences whose answers were deleted, by means of the templates that they were made from.

"Ada was born in ."  with  "[X] was born in [Y] ."  gives the subject Ada, and "Ada was born in [MASK] ."
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from kn.data.facts import fill


def rebuild(sentences: Iterable[str], templates: Sequence[str]) -> tuple[str, list[str]] | None:
    """The subject that all sentences share, and a prompt for each sentence. None if this is not certain.

    A sentence that two templates could have given, with the subject in the same place, does not tell where its answer
    was: it gives no prompt.
    """
    shapes = {template: _shape(template) for template in templates}
    given_by: list[defaultdict[str, list[str]]] = []  # per sentence, templates by subject
    for sentence in sentences:
        by_subject: defaultdict[str, list[str]] = defaultdict(list)
        for template, shape in shapes.items():
            if match := shape.fullmatch(sentence.strip()):
                by_subject[match[1].strip()].append(template)
        given_by.append(by_subject)
    subjects = set.intersection(*(set(by_subject) for by_subject in given_by)) if given_by else set()
    if len(subjects) != 1:
        return None
    (subject,) = subjects
    found = [by_subject[subject] for by_subject in given_by]
    return subject, [fill(possible[0], subject) for possible in found if len(possible) == 1]


def _shape(template: str) -> re.Pattern[str]:
    """What a template's sentences look like without their answers, however much white space was left."""
    parts = []
    for part in re.split(r"(\[X\]|\[Y\]|\s+)", template.strip()):
        parts.append({"[X]": "(.+)", "[Y]": r"\s*"}.get(part) or (r"\s*" if part.isspace() else re.escape(part)))
    return re.compile("".join(parts))

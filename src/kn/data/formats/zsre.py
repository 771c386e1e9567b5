"""zsRE as editing papers use it (MEND's split): a list of questions, each asked twice.

    {"subject", "src": "What university did Ada attend?", "rephrase": "…", "answers": ["…"], "alt", "loc", …}

It names no relations. The questions that are the same but for their subjects count as one: "What university did X
attend?". Those of which there are few are together in `other_questions`.
"""

from collections import Counter

from kn.data.conversion import Collector, Fact, name_of, question, spaced
from kn.data.formats.format import Format
from kn.data.trees import Tree
from kn.store.files import read_json
from kn.store.shapes import check, each, having, text

SHAPE = each(having({"subject": text, "src": text, "rephrase": text, "answers": each(text, least=1)}))
FEWEST = 10  # facts that are a relation of their own
OTHER = "other questions"


def read(tree: Tree, collected: Collector) -> None:
    file = tree.one("zsre*.json", "*.json")
    entries = read_json(file)
    check(entries, SHAPE, file)
    forms = [form(entry["src"], entry["subject"]) for entry in entries]
    counts = Counter(forms)
    for number, (entry, asked) in enumerate(zip(entries, forms, strict=True)):
        place, label = f"{file}, entry {number}", asked if counts[asked] >= FEWEST else OTHER
        relation = name_of(label)
        collected.relation(relation, label, place)
        answer, *others = entry["answers"]
        prompts = [question(entry["src"]), question(entry["rephrase"])]
        if collected.add(relation, Fact(entry["subject"], answer, prompts, place)):
            collected.remarks[relation]["facts whose further right answers are not used"] += bool(others)


def form(asked: str, subject: str) -> str:
    """The question for any subject."""
    return spaced(asked).replace(spaced(subject), "X") if subject.strip() else OTHER


FORMAT = Format(
    name="zsre",
    title="zsRE, the split for editing (Levy et al. 2017, Mitchell et al. 2022)",
    licence="we know of none stated",
    origin="zsre_mend_eval.json, https://rome.baulab.info/data/dsets/zsre_mend_eval.json",
    read=read,
)

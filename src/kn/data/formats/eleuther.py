"""EleutherAI's form of PARAREL: `{uuid: {"sentences": ["… [MASK] …"], "relation_name": "P101(…)", "obj_label"}}`.

It does not say which part of a sentence is the subject. Files of this form in several languages have been published
from which the answers were deleted: "Ada was born in ." These need the templates that their sentences were made from,
`templates.jsonl` in the same folder, with `{"relation", "pattern"}` in each line.
"""

from collections import defaultdict

from kn.data.conversion import Collector, Fact, name_of
from kn.data.facts import MASK
from kn.data.formats.format import Format
from kn.data.formats.holes import rebuild
from kn.data.trees import File, Tree
from kn.store.files import InputError, read_json
from kn.store.shapes import check, each, having, lines, table, text

SHAPE = table(having({"sentences": each(text), "relation_name": text, "obj_label": text}))
TEMPLATE = having({"relation": text, "pattern": text})


def read(tree: Tree, collected: Collector) -> None:
    file = tree.one("pararel_expanded*.json", "*.json")
    entries = read_json(file)
    check(entries, SHAPE, file)
    sentences = [sentence for entry in entries.values() for sentence in entry["sentences"]]
    have_holes = bool(sentences) and not any(MASK in sentence for sentence in sentences)
    patterns = read_patterns(tree, file, sentences[0]) if have_holes else {}
    templates: dict[str, list[str]] = {}
    for uuid, entry in entries.items():
        name, _, label = entry["relation_name"].partition("(")
        relation, place = name_of(name), f"{file}, {uuid}"
        collected.relation(relation, label.rstrip(")") or name, place)
        subject, prompts = None, entry["sentences"]
        if have_holes:
            if relation not in templates:
                templates[relation] = collected.templates(relation, patterns.get(relation, []))
            rebuilt = rebuild(prompts, templates[relation])
            if not rebuilt:
                collected.left_out[relation]["facts whose sentences do not fit the templates in one way"] += 1
                continue
            subject, prompts = rebuilt
            collected.left_out[relation]["sentences that fit several templates"] += len(entry["sentences"]) - len(
                prompts
            )
        collected.add(relation, Fact(subject, entry["obj_label"], prompts, place))


def read_patterns(tree: Tree, file: File, example: str) -> dict[str, list[str]]:
    """The templates of each relation."""
    try:
        templates_file = tree.one("templates.jsonl")
    except InputError:
        raise InputError(
            f"{file}: its sentences have no {MASK}: the answers were deleted, as in {example!r}. Name a folder with "
            "this file and its templates: templates.jsonl, with a relation and a pattern per line"
        ) from None
    patterns: defaultdict[str, list[str]] = defaultdict(list)
    for line, _ in lines(templates_file, TEMPLATE):
        patterns[line["relation"]].append(line["pattern"])
    return patterns


FORMAT = Format(
    name="eleuther",
    title="PARAREL in EleutherAI's form",
    licence="as PARAREL: MIT; its facts from T-REx: CC BY-SA 4.0",
    origin="pararel_expanded.json in github.com/EleutherAI/knowledge-neurons",
    read=read,
)

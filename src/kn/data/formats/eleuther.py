"""EleutherAI's form of PARAREL: `{uuid: {"sentences": ["… [MASK] …"], "relation_name": "P101(…)", "obj_label"}}`.

It does not say which part of a sentence is the subject. Files of this form in several languages have been published
from which the answers were deleted: "Ada was born in ." Where a sentence had its answer cannot be known then.
"""

from kn.data.conversion import Collector, Fact, name_of
from kn.data.facts import MASK
from kn.data.formats.format import Format
from kn.data.trees import Tree
from kn.store.files import InputError, read_json
from kn.store.shapes import check, each, having, table, text

SHAPE = table(having({"sentences": each(text), "relation_name": text, "obj_label": text}))


def read(tree: Tree, collected: Collector) -> None:
    file = tree.one("pararel_expanded*.json", "*.json")
    entries = read_json(file)
    check(entries, SHAPE, file)
    sentences = [sentence for entry in entries.values() for sentence in entry["sentences"]]
    if sentences and not any(MASK in sentence for sentence in sentences):
        raise InputError(
            f"{file}: none of its {len(sentences):,} sentences has a {MASK}: the answers were deleted, and where they "
            f"were is lost, as in {sentences[0]!r}. mLAMA has facts in several languages: bash 0_get_data.sh mlama"
        )
    for uuid, entry in entries.items():
        name, _, label = entry["relation_name"].partition("(")
        relation, place = name_of(name), f"{file}, {uuid}"
        collected.relation(relation, label.rstrip(")") or name, place)
        collected.add(relation, Fact(None, entry["obj_label"], entry["sentences"], place))


FORMAT = Format(
    name="eleuther",
    title="PARAREL in EleutherAI's form",
    licence="as PARAREL: MIT; its facts from T-REx: CC BY-SA 4.0",
    origin="pararel_expanded.json in github.com/EleutherAI/knowledge-neurons",
    read=read,
)

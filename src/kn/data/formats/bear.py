"""BEAR: `metadata_relations.json` with the templates of each relation, and facts in `P36.jsonl` beside it.

{"P36": {"templates": ["The capital of [X] is [Y]."]}}        {"sub_label", "obj_label", …}
"""

from kn.data.conversion import Collector, from_templates, label_of
from kn.data.formats.format import Format
from kn.data.trees import Tree
from kn.store.files import read_json
from kn.store.shapes import check, each, having, lines, table, text

METADATA = table(having({"templates": each(text)}))
FACT = having({"sub_label": text, "obj_label": text})


def read(tree: Tree, collected: Collector) -> None:
    metadata_file = tree.one("BEAR/metadata_relations.json", "metadata_relations.json")
    metadata = read_json(metadata_file)
    check(metadata, METADATA, metadata_file)
    for relation, about in metadata.items():
        file = tree.beside(metadata_file, f"{relation}.jsonl")
        collected.relation(relation, label_of("".join(about["templates"][:1])), metadata_file)
        templates = collected.templates(relation, about["templates"])
        for entry, place in lines(file, FACT):
            collected.add(relation, from_templates(templates, entry["sub_label"], entry["obj_label"], place))


FORMAT = Format(
    name="bear",
    title="BEAR (Wiland et al. 2024)",
    licence="no licence stated",
    origin="github.com/lm-pub-quiz/BEAR",
    read=read,
    folder="https://raw.githubusercontent.com/lm-pub-quiz/BEAR/3818fdc",
)

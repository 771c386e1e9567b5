"""LAMA's T-REx: one template of each relation in `relations.jsonl`, facts in `TREx/P101.jsonl`.

{"relation": "P101", "template": "[X] works in the field of [Y] .", "label": "field of work", …}
{"sub_label", "obj_label", …}
"""

from kn.data.conversion import Collector, from_templates
from kn.data.formats.format import Format
from kn.data.trees import Tree
from kn.store.shapes import having, lines, text

RELATION = having({"relation": text, "template": text}, maybe={"label": text})
FACT = having({"sub_label": text, "obj_label": text})


def read(tree: Tree, collected: Collector) -> None:
    relations_file = tree.one("relations.jsonl")
    relations = {entry["relation"]: entry for entry, _ in lines(relations_file, RELATION)}
    for relation, file in tree.by_name("TREx/*.jsonl").items():
        if relation not in relations:
            collected.leave_out(relation, file, "relations without a template")
            continue
        about = relations[relation]
        collected.relation(relation, about.get("label", ""), relations_file)
        templates = collected.templates(relation, [about["template"]])
        for entry, place in lines(file, FACT):
            collected.add(relation, from_templates(templates, entry["sub_label"], entry["obj_label"], place))


FORMAT = Format(
    name="lama",
    title="LAMA's T-REx (Petroni et al. 2019)",
    licence="CC BY-NC 4.0; its facts from T-REx: CC BY-SA 4.0",
    origin="the zip file that the README of github.com/facebookresearch/LAMA names, "
    "https://dl.fbaipublicfiles.com/LAMA/data.zip",
    read=read,
)

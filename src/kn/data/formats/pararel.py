"""ParaRel as its authors publish it: templates in `graphs_json/P101.jsonl`, facts in `trex_lms_vocab/P101.jsonl`.

{"pattern": "[X] works in the field of [Y].", …}              {"sub_label", "obj_label", "uuid"}
"""

from kn.data.conversion import Collector, from_templates, label_of
from kn.data.formats.format import Format
from kn.data.trees import Tree
from kn.store.shapes import having, lines, text

PATTERN = having({"pattern": text})
FACT = having({"sub_label": text, "obj_label": text})


def read(tree: Tree, collected: Collector) -> None:
    patterns, facts = tree.by_name("graphs_json/*.jsonl"), tree.by_name("trex_lms_vocab/*.jsonl")
    for relation, file in facts.items():
        if relation not in patterns:
            collected.leave_out(relation, file, "relations without a file of templates")
            continue
        texts = [entry["pattern"] for entry, _ in lines(patterns[relation], PATTERN)]
        collected.relation(relation, label_of("".join(texts[:1])), file)
        templates = collected.templates(relation, texts)
        for entry, place in lines(file, FACT):
            collected.add(relation, from_templates(templates, entry["sub_label"], entry["obj_label"], place))


FORMAT = Format(
    name="pararel",
    title="ParaRel's original files (Elazar et al. 2021)",
    licence="MIT; its facts from T-REx: CC BY-SA 4.0",
    origin="data/pattern_data/graphs_json and data/trex_lms_vocab in github.com/yanaiela/pararel",
    read=read,
    address="https://github.com/yanaiela/pararel/archive/HEAD.zip",
)

"""LRE: `{"name", "prompt_templates": ["The capital of {} is"], "samples": [{"subject", "object"}]}`, a file a relation.

The answer follows the template. A full stop follows the answer: a masked model would otherwise expect one in its
place, and a causal model does not read it.
"""

from kn.data.conversion import Collector, from_templates
from kn.data.formats.format import Format
from kn.data.trees import Tree, stem
from kn.store.files import read_json
from kn.store.shapes import check, each, having, text

SHAPE = having(
    {"name": text, "prompt_templates": each(text), "samples": each(having({"subject": text, "object": text}))},
    maybe={"prompt_templates_zs": each(text)},
)


def read(tree: Tree, collected: Collector) -> None:
    for file in tree.matching("factual/*.json", "*.json"):
        entry, relation = read_json(file), stem(file)
        check(entry, SHAPE, file)
        collected.relation(relation, entry["name"], file)
        beginnings = [*entry["prompt_templates"], *entry.get("prompt_templates_zs", [])]
        # Not str.format: a template may have other braces.
        templates = collected.templates(relation, [f"{start.replace('{}', '[X]')} [Y]." for start in beginnings])
        for number, sample in enumerate(entry["samples"]):
            place = f"{file}, samples, entry {number}"
            collected.add(relation, from_templates(templates, sample["subject"], sample["object"], place))


FORMAT = Format(
    name="lre",
    title="LRE (Hernandez et al. 2024), factual relations",
    licence="MIT",
    origin="data/factual in github.com/evandez/relations",
    read=read,
    folder="https://raw.githubusercontent.com/evandez/relations/HEAD",
)

"""CounterFact: `counterfact.json`, a list of edits. The facts are what was true before them.

    {"requested_rewrite": {"prompt": "The mother tongue of {} is", "relation_id": "P103", "subject",
                           "target_true": {"str"}}, "paraphrase_prompts": [two], …}

A fact's prompts are the one to rewrite and its paraphrases, which begin with an unrelated sentence. The answer follows
each, and a full stop, as in LRE. Its other prompts do not ask for this fact's answer.
"""

from kn.data.conversion import Collector, Fact, spaced
from kn.data.facts import MASK
from kn.data.formats.format import Format
from kn.data.trees import Tree
from kn.store.files import InputError, read_json
from kn.store.shapes import check, each, having, short, text

REWRITE = having({"prompt": text, "relation_id": text, "subject": text, "target_true": having({"str": text})})
SHAPE = each(having({"requested_rewrite": REWRITE, "paraphrase_prompts": each(text)}))


def read(tree: Tree, collected: Collector) -> None:
    file = tree.one("counterfact*.json", "*.json")
    entries = read_json(file)
    check(entries, SHAPE, file)
    for number, entry in enumerate(entries):
        place, rewrite = f"{file}, entry {number}", entry["requested_rewrite"]
        relation, subject = rewrite["relation_id"], rewrite["subject"]
        if rewrite["prompt"].count("{}") != 1:
            raise InputError(f"{place}, prompt: expected one {{}} for the subject, found {short(rewrite['prompt'])}")
        collected.relation(relation, rewrite["prompt"].replace("{}", "X"), place)
        beginnings = [rewrite["prompt"].replace("{}", subject), *entry["paraphrase_prompts"]]
        prompts = [f"{spaced(start)} {MASK}." for start in beginnings]
        collected.add(relation, Fact(subject, rewrite["target_true"]["str"], prompts, place))


FORMAT = Format(
    name="counterfact",
    title="CounterFact (Meng et al. 2022)",
    licence="MIT, its repository's, as far as we know",
    origin="counterfact.json at rome.baulab.info, https://rome.baulab.info/data/dsets/counterfact.json",
    read=read,
)

"""The sections of the report: this run's numbers for each table and figure of the papers. Never imports torch.

A section is a function in `SECTIONS`. It reads results and calls them by the names in `data/paper_numbers.json`;
`Run.section` puts the published numbers next to them.
"""

from statistics import mean

from kn.report import amig_sections, read_back
from kn.report.comparison import Run, Section, Series, Values, makers
from kn.report.read_back import Reported, measured
from kn.store.result_files import KNOWLEDGE, by_number


def data(run: Run) -> Section:
    record = run.records["stage 1"]
    values: Values = {}
    series = []
    if record:
        prompts = {relation: entry["prompts"] for relation, entry in record.items()}
        scored = sum(entry["scored"] for entry in record.values())
        per_fact = {relation: Reported(prompts[relation] / max(count, 1)) for relation, count in run.facts.items()}
        n_facts, n_prompts = sum(run.facts.values()), sum(prompts.values())
        values = {
            ("relations", "all"): Reported(len(record)),
            ("facts", "all"): Reported(n_facts),
            ("prompts", "all"): Reported(n_prompts),
            ("prompts that could not be scored", "all"): Reported(n_prompts - scored),
            ("templates per relation", "mean over relations"): Reported(mean(per.value for per in per_fact.values())),
            ("prompts per fact", "mean over facts"): Reported(n_prompts / max(n_facts, 1)),
        }
        facts = {relation: Reported(count) for relation, count in run.facts.items()}
        series = [
            Series("relation", "facts", "all", facts),
            Series("relation", "prompts per fact", "all", per_fact),
        ]
    return run.section(
        "data",
        values,
        relations=run.facts,
        stages=["stage 1"],
        series=series,
        title="The data",
        command="1_run_mlm.sh",
        notes=["The paper gives fewer templates per relation than are in the data released with it."],
    )


STATISTICS = (
    "neurons per fact",
    "shared by two facts of one relation",
    "shared by facts of two relations",
    "facts without neurons",
    "different neurons in use",
)


def statistics(run: Run) -> Section:
    by_arm = read_back.statistics(run.kn_dir)
    values = {(name, arm): measured(by_arm[arm], name) for name in STATISTICS for arm in by_arm}
    relations = by_arm[KNOWLEDGE]["relations"] if KNOWLEDGE in by_arm else {}
    per_fact = {}
    for relation, measures in relations.items():
        if value := measured(measures, "neurons per fact"):
            per_fact[relation] = value
    return run.section(
        "statistics",
        values,
        relations=relations,
        stages=["stage 1", "stage 2"],
        series=[Series("relation", "neurons per fact", KNOWLEDGE, per_fact)],
        title="Statistics of neurons (table)",
        command="2_run_kn.sh",
        notes=[
            "The published program draws 100 facts to compare relations; this is the expected value of its draws.",
            "The published program ran every model with a LayerNorm eps of 1e-5, this one with the model's own.",
            *read_back.out_of_range(relations),
        ],
    )


def layers(run: Run) -> Section:
    by_arm = read_back.statistics(run.kn_dir)
    values: Values = {}
    series = []
    for arm, counts in by_arm.items():
        shares = [share or 0 for share in counts["percent by layer"]]
        last_quarter = sum(shares[-max(len(shares) // 4, 1) :])
        values["share in the last quarter of the layers (%)", arm] = Reported(last_quarter)
        by_layer = {f"layer {number} of {len(shares)}": Reported(share) for number, share in enumerate(shares, 1)}
        series.append(Series("layer", "share of neurons (%)", arm, by_layer))
    return run.section(
        "layers",
        values,
        relations=next(iter(by_arm.values()))["relations"] if by_arm else {},
        stages=["stage 1", "stage 2"],
        series=series,
        title="In which layers neurons lie (figure)",
        command="2_run_kn.sh",
        figures=["kneurons_distribution"],
        notes=["If the model has another number of layers than the paper's, only the shape can be compared."],
    )


def suppress(run: Run) -> Section:
    return _modified(run, "suppress", "rm", "Suppressing neurons (figure)")


def amplify(run: Run) -> Section:
    return _modified(run, "amplify", "eh", "Amplifying neurons (figure)")


def _modified(run: Run, name: str, key: str, title: str) -> Section:
    own = read_back.modified(run.kn_dir, f"{key}_own:ave_delta_ratio")
    unrelated = read_back.modified(run.kn_dir, f"{key}_oth:ave_delta_ratio")
    values: Values = {}
    for measure, by_arm in (("mean over relations (%)", own), ("unrelated facts (%)", unrelated)):
        for arm, by_relation in by_arm.items():
            values[measure, arm] = Reported(mean(ratio.value for ratio in by_relation.values()))
    series = []
    for arm, by_relation in own.items():
        in_order = {relation: by_relation[relation] for relation in by_number(by_relation)}
        series.append(Series("relation", "change of probability (%)", arm, in_order))
    return run.section(
        name,
        values,
        relations=own.get(KNOWLEDGE, {}),
        stages=["stage 1", "stage 2", "stage 3"],
        series=series,
        title=title,
        command="3_run_modify_activation.sh",
        figures=[name],
        notes=["Random neurons, as many and in the same layers, are a control that the paper does not have."],
    )


def distant(run: Run) -> Section:
    values: Values = {}
    for arm, activations in read_back.distant(run.output_dir).items():
        for kind, activation in zip(read_back.KINDS, activations, strict=True):
            values[kind, arm] = Reported(activation)
    return run.section(
        "distant",
        values,
        relations=run.records["stage 4"],
        stages=["stage 1", "stage 2", "stage 4"],
        title="Mean activation in crawled sentences (figure)",
        command="4_run_distant.sh",
        figures=["distant"],
        notes=["The masked words and the random sentences are drawn; the draws are not the paper's."],
    )


UPDATE = (
    ("prediction changed (%)", "ori_changed", 100),
    ("new answer predicted (%)", "success_updated", 100),
    ("rise of perplexity, same relation", "inner_ppl_inc", 1),
    ("rise of perplexity, other relations", "inter_ppl_inc", 1),
    ("edits", "edits", 1),
)


def update(run: Run) -> Section:
    papers = [pair for pair in read_back.updates(run.output_dir) if (pair["lambda1"], pair["lambda2"]) == (1, 8)]
    values: Values = {}
    relations = run.records["stage 6"]
    if papers:
        relations = papers[0].get("relations", relations)
        for measure, key, scale in UPDATE:
            for arm, measures in papers[0]["averages"].items():
                values[measure, arm] = measured(measures, key, scale)
    return run.section(
        "update",
        values,
        relations=relations,
        stages=["stage 1", "stage 2", "stage 6"],
        title="Updating facts, strengths 1 and 8 (table)",
        command="6_run_edit.sh 1 8",
        figures=["update", "update_changed"],
        notes=[
            "Facts, prompts and targets are drawn; the draws are not the paper's.",
            "The published program undoes an edit by adding back, so its weights drift; here they are restored.",
            "We read the paper's rise of perplexity as a difference, not as a share.",
            *read_back.unedited(papers[0].get("facts", {}) if papers else {}),
        ],
    )


def erase(run: Run) -> Section:
    values: Values = {}
    for relation, by_arm in read_back.erasures(run.output_dir).items():
        for arm, measures in by_arm.items():
            scope = relation if arm == KNOWLEDGE else f"{relation}, {arm}"
            for side, begin in (("itself", ""), ("other relations", "(for other) ")):
                if arm == KNOWLEDGE:
                    values[f"perplexity of {side}, before", scope] = measured(measures, f"{begin}original ppl")
                values[f"perplexity of {side}, after", scope] = measured(measures, f"{begin}erased ppl")
    return run.section(
        "erase",
        values,
        relations=run.facts,
        stages=["stage 1", "stage 2", "stage 7"],
        title="Erasing relations (table)",
        command="7_run_erase.sh P19 P27 P106 P937",
        figures=["erase", "erase_accuracy"],
    )


def cost(run: Run) -> Section:
    by_device: dict[str, list[dict]] = {}
    for entry in run.records["stage 1"].values():
        devices = dict.fromkeys(str(maker.get("device")) for maker in makers(entry))
        by_device.setdefault(" and ".join(devices), []).append(entry)
    values: Values = {}
    for device, entries in by_device.items():
        seconds = sum(sum(entry["seconds"].values()) for entry in entries)
        prompts = sum(entry["scored"] for entry in entries)
        values["seconds per prompt", f"this run, {device}"] = Reported(seconds / max(prompts, 1))
    return run.section(
        "cost",
        values,
        relations=run.facts,
        stages=["stage 1"],
        title="What attribution costs",
        command="1_run_mlm.sh",
        notes=["These are different models on different machines, so the numbers cannot be compared directly."],
    )


SECTIONS = [data, statistics, layers, suppress, amplify, distant, update, erase, cost, *amig_sections.SECTIONS]

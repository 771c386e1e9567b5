"""The sections of the report: this run's numbers for each table and figure of the papers. Never imports torch.

A section is a function in `SECTIONS`. It reads results and calls them by the names in `data/paper_numbers.json`;
`Run.section` puts the published numbers next to them.
"""

from statistics import mean

from kn.report import amig_sections, captions, consistency_sections, method_sections, read_back
from kn.report.comparison import Figure, Run, Section, Series, Values, makers
from kn.report.read_back import Reported, measured
from kn.report.resampling import STATISTICS
from kn.store.result_files import KNOWLEDGE, by_number


def data(run: Run) -> Section:
    record = run.records["stage 1"]
    values: Values = {}
    series = []
    remarks = []
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
        if n_prompts > scored:
            remarks.append(
                f"{n_prompts - scored:,} of {n_prompts:,} prompts could not be scored; stage 1's record says why."
            )
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
        title="Data",
        command="1_run_mlm.sh",
        notes=["The paper gives fewer templates per relation than are in the data released with it."],
        remarks=remarks,
    )


def statistics(run: Run) -> Section:
    by_arm = read_back.statistics(run.kn_dir)
    values: Values = {(name, arm): run.statistics[arm][name] for name in STATISTICS for arm in run.statistics}
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
        title="Neurons of a fact",
        command="2_run_kn.sh",
        figures=[
            Figure(
                "shared_neurons",
                "Neurons that facts share",
                "Squares: how many neurons two facts share on average, by their relations, and random neurons.",
                captions.shared(read_back.shared_neurons(run.kn_dir), run.named),
            )
        ],
        notes=[
            "The published program draws 100 facts to compare relations; this is the expected value of its draws.",
            "The published program ran every model with a LayerNorm eps of 1e-5, this one with the model's own.",
        ],
        remarks=read_back.imported(run.kn_dir) + read_back.out_of_range(relations),
    )


def layers(run: Run) -> Section:
    by_arm = read_back.statistics(run.kn_dir)
    values: Values = {}
    series = []
    for arm, counts in by_arm.items():
        shares = read_back.layer_shares(counts)
        last_quarter = sum(share.value for share in shares[-max(len(shares) // 4, 1) :])
        values["share in the last quarter of the layers (%)", arm] = Reported(last_quarter)
        by_layer = {f"layer {number}": share for number, share in enumerate(shares)}
        series.append(Series("layer", "share of neurons (%)", arm, by_layer))
    return run.section(
        "layers",
        values,
        relations=next(iter(by_arm.values()))["relations"] if by_arm else {},
        stages=["stage 1", "stage 2"],
        series=series,
        title="Layers",
        command="2_run_kn.sh",
        figures=[
            Figure(
                "kneurons_distribution",
                "In which layers the neurons are",
                "Bars: the share of neurons in each layer, counted from 0, for knowledge neurons and the baseline.",
                captions.layers({arm: counts["percent by layer"] for arm, counts in by_arm.items()}),
            )
        ],
        notes=["If the model has another number of layers than the paper's, only the shape can be compared."],
    )


def suppress(run: Run) -> Section:
    return _modified(run, "suppress", "rm", "Suppressing", True)


def amplify(run: Run) -> Section:
    return _modified(run, "amplify", "eh", "Amplifying", False)


def _modified(run: Run, name: str, key: str, verb: str, falls: bool) -> Section:
    own = read_back.modified(run.kn_dir, f"{key}_own:ave_delta_ratio")
    values: Values = {}
    for measure, side in (("mean over relations (%)", "own"), ("unrelated facts (%)", "oth")):
        for arm, change in run.mean_changes[f"{key}_{side}:ave_delta_ratio"].items():
            values[measure, arm] = change
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
        title=f"{verb} neurons",
        command="3_run_modify_activation.sh",
        figures=[
            Figure(
                name,
                f"{verb} a fact's neurons",
                "Bars: the change of the answer's probability in percent, for each relation and each set of neurons.",
                captions.modified(own, verb, falls, run.named),
            )
        ],
        notes=["Random neurons, as many and in the same layers, are a control that the paper does not have."],
    )


def distant(run: Run) -> Section:
    values: Values = {}
    for arm, activations in run.activations.items():
        for kind, activation in zip(read_back.KINDS, activations, strict=True):
            values[kind, arm] = activation
    return run.section(
        "distant",
        values,
        relations=run.records["stage 4"],
        stages=["stage 1", "stage 2", "stage 4"],
        title="Crawled sentences",
        command="4_run_distant.sh",
        figures=[
            Figure(
                "distant",
                "Activation in crawled sentences",
                "Bars: the mean activation in sentences with subject and object, with the subject only, with neither.",
                captions.distant(run.activations),
            )
        ],
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
    pairs = read_back.updates(run.output_dir)
    papers = [pair for pair in pairs if (pair["lambda1"], pair["lambda2"]) == (1, 8)]
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
        title="Updating facts, strengths 1 and 8",
        command="6_run_edit.sh 1 8",
        figures=[
            Figure(
                name,
                title,
                f"Points: {outcome} (percent of edits) against the rise of perplexity, for each pair of strengths.",
                captions.update(pairs, measure, outcome),
            )
            for name, title, measure, outcome in (
                ("update", "Updated facts", "success_updated", "lead to the new answer"),
                ("update_changed", "Changed answers", "ori_changed", "change the prediction"),
            )
        ],
        notes=[
            "Facts, prompts and targets are drawn; the draws are not the paper's.",
            "The published program undoes an edit by adding back, so its weights drift; here they are restored.",
            "We read the paper's rise of perplexity as a difference, not as a share.",
        ],
        remarks=read_back.unedited(papers[0].get("facts", {}) if papers else {}),
    )


def erase(run: Run) -> Section:
    values: Values = {}
    by_relation = read_back.erasures(run.output_dir)
    for relation, by_arm in by_relation.items():
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
        title="Erasing relations",
        command="7_run_erase.sh P19 P27 P106 P937",
        figures=[
            Figure(
                name,
                title,
                f"Bars: {what} in the erased relation and in the others, for each erased relation.",
                captions.erase(by_relation, measure, what, run.named),
            )
            for name, title, measure, what in (
                ("erase", "Erased relations: perplexity", "increasing ratio", "change of perplexity"),
                ("erase_accuracy", "Erased relations: accuracy", "erased ratio", "right answers lost"),
            )
        ],
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
        title="Time",
        command="1_run_mlm.sh",
        notes=["These are different models on different machines, so the numbers cannot be compared directly."],
    )


SECTIONS = [
    data,
    statistics,
    layers,
    suppress,
    amplify,
    distant,
    update,
    erase,
    cost,
    *amig_sections.SECTIONS,
    *method_sections.SECTIONS,
    *consistency_sections.SECTIONS,
]

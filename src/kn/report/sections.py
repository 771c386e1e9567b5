"""The sections of the report: what a run found for each table and figure of the papers. Never imports torch.

A section is a function in `SECTIONS`. It reads what was measured and gives it the names that `data/paper_numbers.json`
uses; `Run.section` puts the published numbers beside it.
"""

from statistics import mean

from kn.report import amig_sections, found
from kn.report.comparison import Run, Section, makers

KNOWLEDGE = "knowledge neurons"


def data(run: Run) -> Section:
    record = run.records["stage 1"]
    values, series = {}, []
    if record:
        prompts = {relation: entry["prompts"] for relation, entry in record.items()}
        per_fact = {relation: (prompts[relation] / max(count, 1), None, None) for relation, count in run.facts.items()}
        facts, total = sum(run.facts.values()), sum(prompts.values())
        values = {
            ("relations", "all"): (len(record), None, None),
            ("facts", "all"): (facts, None, None),
            ("prompts", "all"): (total, None, None),
            ("prompts that could not be scored", "all"): (
                total - sum(e["scored"] for e in record.values()),
                None,
                None,
            ),
            ("templates per relation", "mean over relations"): (mean(v for v, _, _ in per_fact.values()), None, None),
            ("prompts per fact", "mean over facts"): (total / max(facts, 1), None, None),
        }
        facts_of = {relation: (count, None, None) for relation, count in run.facts.items()}
        series = [("relation", "facts", "all", facts_of), ("relation", "prompts per fact", "all", per_fact)]
    return run.section(
        *("data", values, run.facts, ["stage 1"], series),
        title="The data",
        command="1_run_mlm.sh",
        notes=["The paper gives fewer templates per relation than the data have that were released with it."],
    )


def statistics(run: Run) -> Section:
    of_arms = found.statistics(run.kn_dir)
    measures = ("neurons per fact", "shared by two facts of one relation", "shared by facts of two relations")
    counts = ("facts without neurons", "different neurons in use")
    values = {
        (measure, arm): found.measured(of, measure) for measure in (*measures, *counts) for arm, of in of_arms.items()
    }
    by_relation = {arm: of["relations"] for arm, of in of_arms.items()}
    means = {
        relation: value
        for relation, of in by_relation.get(KNOWLEDGE, {}).items()
        if (value := found.measured(of, "neurons per fact"))
    }
    return run.section(
        *("statistics", values, by_relation.get(KNOWLEDGE, {}), ["stage 1", "stage 2"]),
        [("relation", "neurons per fact", KNOWLEDGE, means)],
        title="Statistics of neurons (table)",
        command="2_run_kn.sh",
        notes=[
            "Between relations the published program draws 100 facts; here stands what that sampling expects.",
            "The published program ran every model with a LayerNorm eps of 1e-5, this one with the model's own.",
        ],
    )


def layers(run: Run) -> Section:
    of_arms = found.statistics(run.kn_dir)
    upper, series = {}, []
    for arm, of in of_arms.items():
        shares = [share or 0 for share in of["percent by layer"]]
        last = sum(shares[-max(len(shares) // 4, 1) :])
        upper["share in the last quarter of the layers (%)", arm] = (last, None, None)
        named = {f"layer {number} of {len(shares)}": (share, None, None) for number, share in enumerate(shares, 1)}
        series.append(("layer", "share of neurons (%)", arm, named))
    return run.section(
        *("layers", upper, next(iter(of_arms.values()), {}).get("relations", {}), ["stage 1", "stage 2"], series),
        title="In which layers neurons lie (figure)",
        command="2_run_kn.sh",
        figures=["kneurons_distribution"],
        notes=["With another number of layers than the paper's model, only the shape can be compared."],
    )


def modified(run: Run, name: str, key: str, title: str) -> Section:
    own = found.modified(run.kn_dir, f"{key}_own:ave_delta_ratio")
    other = found.modified(run.kn_dir, f"{key}_oth:ave_delta_ratio")
    values = {
        (measure, arm): (mean(value for value, _, _ in of.values()), None, None)
        for measure, of_arms in (("mean over relations (%)", own), ("unrelated facts (%)", other))
        for arm, of in of_arms.items()
    }
    series = [
        ("relation", "change of probability (%)", arm, {relation: of[relation] for relation in found.by_number(of)})
        for arm, of in own.items()
    ]
    return run.section(
        *(name, values, own.get(KNOWLEDGE, {}), ["stage 1", "stage 2", "stage 3"], series),
        title=title,
        command="3_run_modify_activation.sh",
        figures=[name],
        notes=["Random neurons, as many and of the same layers, are a control that the paper does not have."],
    )


def suppress(run: Run) -> Section:
    return modified(run, "suppress", "rm", "Suppressing neurons (figure)")


def amplify(run: Run) -> Section:
    return modified(run, "amplify", "eh", "Amplifying neurons (figure)")


def distant(run: Run) -> Section:
    values = {
        (kind, arm): (value, None, None)
        for arm, of in found.distant(run.results / "distant").items()
        for kind, value in zip(found.KINDS, of, strict=True)
    }
    return run.section(
        *("distant", values, run.records["stage 4"], ["stage 1", "stage 2", "stage 4"]),
        title="Mean activation at crawled sentences (figure)",
        command="4_run_distant.sh",
        figures=["distant"],
        notes=["Which words are masked and which random sentences are taken is drawn; the draws are not the paper's."],
    )


UPDATED = (
    ("prediction changed (%)", "ori_changed", 100),
    ("new answer predicted (%)", "success_updated", 100),
    ("rise of perplexity, same relation", "inner_ppl_inc", 1),
    ("rise of perplexity, other relations", "inter_ppl_inc", 1),
    ("edits", "edits", 1),
)


def update(run: Run) -> Section:
    pairs = [of for of in found.updates(run.results / "edit") if (of["lambda1"], of["lambda2"]) == (1, 8)]
    values = {
        (measure, arm): found.measured(of, key, scale)
        for measure, key, scale in UPDATED
        for pair in pairs[:1]
        for arm, of in pair["averages"].items()
    }
    return run.section(
        *("update", values, pairs[0]["relations"] if pairs and "relations" in pairs[0] else run.records["stage 6"]),
        ["stage 1", "stage 2", "stage 6"],
        title="Updating facts, strengths 1 and 8 (table)",
        command="6_run_edit.sh 1 8",
        figures=["update", "update_changed"],
        notes=[
            "Facts, prompts and targets are drawn; the draws are not the paper's.",
            "The published program undoes edits by adding back, so that its weights drift; here they are restored.",
            "We read the paper's rise of perplexity as a difference, not as a share.",
        ],
    )


def erase(run: Run) -> Section:
    values = {
        (f"perplexity of {side}, {when}", relation if arm == KNOWLEDGE else f"{relation}, {arm}"): found.measured(
            measures, f"{begin}{key} ppl"
        )
        for relation, of_arms in found.erasures(run.results / "erase").items()
        for arm, measures in of_arms.items()
        for side, begin in (("itself", ""), ("other relations", "(for other) "))
        for when, key in (("before", "original"), ("after", "erased"))
        if arm == KNOWLEDGE or when == "after"
    }
    return run.section(
        *("erase", values, run.facts, ["stage 1", "stage 2", "stage 7"]),
        title="Erasing relations (table)",
        command="7_run_erase.sh P19 P27 P106 P937",
        figures=["erase", "erase_accuracy"],
    )


def cost(run: Run) -> Section:
    of_devices: dict[str, list[dict]] = {}
    for entry in run.records["stage 1"].values():
        devices = dict.fromkeys(str(maker.get("device")) for maker in makers(entry))
        of_devices.setdefault(" and ".join(devices), []).append(entry)
    values = {
        ("seconds a prompt", f"this run, {device}"): (
            sum(sum(entry["seconds"].values()) for entry in entries) / max(sum(e["scored"] for e in entries), 1),
            None,
            None,
        )
        for device, entries in of_devices.items()
    }
    return run.section(
        *("cost", values, run.facts, ["stage 1"]),
        title="What attribution costs",
        command="1_run_mlm.sh",
        notes=["Other models and other machines: these are not to be compared with each other as they stand."],
    )


SECTIONS = [data, statistics, layers, suppress, amplify, distant, update, erase, cost, *amig_sections.SECTIONS]

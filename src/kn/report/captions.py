"""What one sees in each figure of this run, in a sentence or two, from the numbers drawn. Never imports torch."""

from collections.abc import Callable, Mapping, Sequence

from kn.report.numerals import listed, shown
from kn.report.read_back import KINDS, Reported
from kn.store.result_files import BASELINE, KNOWLEDGE, RANDOM
from kn.store.result_shapes import Edits, Measures, SharedNeurons

Named = Callable[[str], str]  # the name of a relation for people
OTHERS = {BASELINE: "the baseline's neurons", RANDOM: "random neurons"}


def percent(value: float, sign: bool = False) -> str:
    return f"{shown(value, 0 if abs(value) >= 9.95 else 1, sign)} %"


def layers(by_arm: Mapping[str, Sequence[float | None]]) -> str:
    """Where most neurons are. Layers count from 0."""
    sentences = []
    for arm, all_shares in by_arm.items():
        shares = [share or 0 for share in all_shares]
        if not any(shares):
            sentences.append(f"{_capital(arm)}: no neurons.")
            continue
        peak = max(range(len(shares)), key=shares.__getitem__)
        begin = len(shares) - max(len(shares) // 4, 1)
        sentence = f"{_capital(arm)}: layer {peak} has the largest share, {percent(shares[peak])}"
        if begin < len(shares) - 1:
            last = f"the last quarter (layers {begin} to {len(shares) - 1})"
            sentence += f"; {last} has {percent(sum(shares[begin:]))}"
        sentences.append(f"{sentence}.")
    return " ".join(sentences)


def shared(means: SharedNeurons | None, named: Named) -> str:
    """Whether facts share more within a relation than between relations, and than random neurons would."""
    if not means:
        return ""
    sentences = []
    for whose, side in (("one relation", means["within a relation"]), ("two relations", means["between relations"])):
        found, chance = side["shared"], side["expected"]
        if found is not None:
            random = f", random neurons {shown(chance, 2)}" if chance is not None else ""
            sentences.append(f"Two facts of {whose} share {shown(found, 2)} neurons on average{random}.")
    pairs = [
        (value, {one, other})
        for one, row in zip(means["relations"], means["shared"], strict=True)
        for other, value in zip(means["relations"], row, strict=True)
        if one < other and value
    ]
    if pairs:
        most, relations = max(pairs, key=lambda pair: pair[0])
        names = listed([named(relation) for relation in means["relations"] if relation in relations])
        sentences.append(f"Of two relations, {names} share most, {shown(most, 2)}.")
    return " ".join(sentences)


def modified(by_arm: Mapping[str, Mapping[str, Reported]], verb: str, falls: bool, named: Named) -> str:
    """`falls`: whether the probability is expected to fall."""
    ours = by_arm.get(KNOWLEDGE, {})
    sentences = []
    if ours:
        sign = -1 if falls else 1
        expected = [change for change in ours.values() if sign * change.value > 0]
        sure = [change for change in expected if change.low is not None and sign * _near_zero(change) > 0]
        what = (
            f"{verb} them {'lowers' if falls else 'raises'} the answer's probability in {len(expected)} of {len(ours)}"
        )
        side = "below" if falls else "above"
        surely = f", with the whole interval {side} zero in {len(sure)}" if sure else ""
        sentences.append(f"{what} relations{surely}. {_range(ours, named)}.")
    for arm, name in OTHERS.items():
        if arm in by_arm:
            values = [change.value for change in by_arm[arm].values()]
            sentences.append(f"{_capital(name)}: {_from_to(values)}.")
    return " ".join(sentences)


def _near_zero(change: Reported) -> float:
    """The end of the interval that is nearer to zero, on the side of the value."""
    ends = change.high if change.value < 0 else change.low
    return change.value if ends is None else ends


def _range(changes: Mapping[str, Reported], named: Named) -> str:
    """The largest and the smallest change, with their relations."""
    ordered = sorted(changes, key=lambda relation: changes[relation].value)
    ends = list(dict.fromkeys([ordered[0], ordered[-1]]))
    parts = [f"{percent(changes[relation].value, True)} ({named(relation)})" for relation in ends]
    return "The changes are from " + " to ".join(parts) if len(parts) > 1 else f"The change is {parts[0]}"


def _from_to(values: Sequence[float]) -> str:
    low, high = percent(min(values), True), percent(max(values), True)
    return low if low == high else f"{low} to {high}"


def distant(by_arm: Mapping[str, Sequence[Reported]]) -> str:
    sentences = []
    for arm, activations in by_arm.items():
        by_kind = dict(zip(KINDS, activations, strict=True))
        ordered = sorted(KINDS, key=lambda kind: -by_kind[kind].value)
        values = [f"{shown(by_kind[kind].value, 3)} with {_kind(kind)}" for kind in ordered]
        sentences.append(f"{_capital(arm)}, mean activation: {', '.join(values)}.")
    return " ".join(sentences)


def _kind(kind: str) -> str:
    return {"subject only": "the subject only", "random sentence": "neither"}.get(kind, kind)


def update(pairs: Sequence[Edits], measure: str, outcome: str) -> str:
    """The pair of strengths with which an outcome is most frequent, and what it costs."""
    measured = [
        (pair, arm, averages)
        for pair in pairs
        for arm, averages in pair["averages"].items()
        if averages["edits"] and averages[measure] is not None
    ]
    ours = [entry for entry in measured if entry[1] == KNOWLEDGE]
    if not ours:
        return ""
    pair, _, averages = max(ours, key=lambda entry: entry[2][measure])
    strengths = f"strengths {pair['lambda1']:g} and {pair['lambda2']:g}"
    among = f", the best of {len(ours)} pairs" if len(ours) > 1 else ""
    sentence = f"With {strengths}{among}, {percent(100 * averages[measure])} of {averages['edits']} edits {outcome}"
    rise = averages.get("inner_ppl_inc_ratio")
    if rise is not None:
        sentence += f"; the relation's perplexity changes by {percent(100 * rise, True)}"
    others = [
        f"{OTHERS[arm]}: {percent(100 * entry[measure])}"
        for with_strengths, arm, entry in measured
        if with_strengths is pair and arm in OTHERS
    ]
    return f"{sentence}. {'. '.join(map(_capital, others))}{'.' if others else ''}".strip()


def erase(by_relation: Mapping[str, Mapping[str, Measures]], measure: str, what: str, named: Named) -> str:
    sentences = []
    for arm, whose in ((KNOWLEDGE, "knowledge neurons"), (RANDOM, "random neurons")):
        own, others = (
            {
                relation: Reported(100 * by_arm[arm][f"{begin}{measure}"])
                for relation, by_arm in by_relation.items()
                if by_arm.get(arm, {}).get(f"{begin}{measure}") is not None
            }
            for begin in ("", "(for other) ")
        )
        if own and others:
            of_others = _from_to([change.value for change in others.values()])
            of_own = _from_to([change.value for change in own.values()])
            sentences.append(f"{_capital(whose)}: {what} {of_own} in the erased relation, {of_others} in the others.")
            if arm == KNOWLEDGE and len(own) > 1:
                most = max(own, key=lambda relation: own[relation].value)
                sentences.append(f"Most in {named(most)}.")
    return " ".join(sentences)


def fact_check(ways: Mapping[str, Measures], against: str) -> str:
    """How well several scores tell true facts from false ones."""
    parts = [f"{way} {shown(measures['AUROC'], 3)}" for way, measures in ways.items() if measures.get("AUROC")]
    return (
        f"Area under the curve with {against} object{'s' if against != '1 wrong' else ''}: {listed(parts)}."
        if parts
        else ""
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

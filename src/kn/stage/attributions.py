"""The results of stage 1, read by a stage that asks the same prompts of the same model."""

from collections.abc import Collection

from kn.neurons import attributed
from kn.neurons.attributed import Attributed
from kn.stage.setup import World
from kn.store import origins, result_files
from kn.store.files import InputError
from kn.store.runs import Record


def read(
    relation: str, output_dir: str, prefix: str, world: World, wanted: Collection[int] | None = None
) -> dict[int, list[Attributed]]:
    """By number, the prompts of the relation's facts, or of the wanted ones, that can be scored.

    They must be those of `world.prompts`, attributed with the same model.
    """
    path = result_files.attributions(output_dir, prefix, relation)
    result_files.require(path, f"run stage 1 (1_run_mlm.sh) for {relation} first")
    record = Record(result_files.attributions_record(output_dir, prefix))
    made = origins.recorded_settings(path, record, relation, "stage 1 (1_run_mlm.sh)")
    if made is None:
        origins.note_unknown_origin(record, [relation])
    else:
        origins.check_model(path, made, world.settings, "stage 1")
    facts = world.facts(relation) if wanted is None else wanted
    read_back = attributed.read_attributions(path, facts)
    remedy = "run stage 1 again, with these data"
    for fact in facts:
        if fact not in read_back:
            raise InputError(f"{path}: has no fact {fact}, which the data have: {remedy}")
        answer = world.bags[relation][fact][0][1]
        here = [(number, answer) for number, each in enumerate(world.encoded(relation, fact)) if not each.skipped]
        if [(prompt.template, prompt.answer) for prompt in read_back[fact]] != here:
            raise InputError(f"{path}, fact {fact}: was made from other prompts: {remedy}")
        for prompt in read_back[fact]:
            world.check_neurons(attributed.as_neurons(prompt.neurons), f"{path}, fact {fact}")
    return read_back

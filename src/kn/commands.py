"""The command line `kn`: neurons out of this program and into it.

    kn export --to eleuther --out out/neurons              the neurons of stage 2 for another program
    kn import out/neurons --kn_dir results/theirs/kn       another program's neurons for stages 3 to 7

`kn COMMAND --help` explains a command. Without installation: PYTHONPATH=src .venv/bin/python -m kn COMMAND
"""

from kn.store.start import guard

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kn.exchange import as_stage_2, collecting, incoming, keyed, outgoing
from kn.exchange.facts import Facts, read_facts
from kn.stage import flags
from kn.store import origins
from kn.store.files import InputError
from kn.store.result_files import BASELINE, KNOWLEDGE
from kn.store.workers import note

EXPORT = """Write the neurons of stage 2 for other programs.

    kn export --out out/P36 --pt_relation P36    a line per fact, with scores and prompts
    kn export --out out/eleuther --to eleuther   {id: [[layer, neuron], ...]}
    kn export --out out/nnsight --to nnsight     {id: {"model.model.layers[3].mlp.down_proj.input": [neuron, ...]}}

Layouts (--to):
    kn                  neurons.jsonl and, if there is one, baseline.jsonl
    dai                 kn_bag-P36.json, as the first paper's program writes it
    eleuther            neurons.json, as EleutherAI/knowledge-neurons writes it
    transformer_lens    neurons.json, with TransformerLens's names: blocks.3.mlp.hook_post
    nnsight             neurons.json, with the paths of the model's modules
    lape                neurons.pth, as for language-specific neurons: list[relation][layer] of tensors

All have a card.json with the model, its fingerprint, the thresholds and checksums. docs/exchange.md describes them.
"""
IMPORT = """Take neurons that other programs found, so that stages 3 to 7 can use them like those of stage 2.

    kn import out/P36 --kn_dir results/theirs/kn                     what `kn export` wrote
    RESULTS=results/theirs bash 3_run_modify_activation.sh P36       then, for example
    kn import neurons_0.json neurons_1.json --from eleuther --facts pararel_expanded.json --bert_model bert-base-cased
    kn import zh.pth --from lape --language 1 --pt_relation P36 --bert_model models/llama

A card.json next to the files says which model they are of; neurons of another model are refused, here and by the
stages. Without a card, --bert_model names the model; it is loaded, must have all of the neurons, and is recorded.
Without either, the stages print that they could not check it.

Facts that the files do not name get no neurons; how many is printed. --baseline takes the baseline's neurons from a
folder of stage 2. Otherwise the files' own are used or, if there are none, the baseline's arm has no neurons.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run `kn`. A mistake of the user's ends with one line."""
    guard(lambda: run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> None:
    name = argv[0] if argv else "--help"
    if name in COMMANDS:
        COMMANDS[name](argv[1:])
    elif name in ("-h", "--help"):
        print((__doc__ or "").strip())
    else:
        raise InputError(f"kn: there is no command {name[:80]}; there are {' and '.join(COMMANDS)} (kn --help)")


def export(argv: list[str]) -> None:
    parser = _parser("export", EXPORT)
    _add_fact_flags(parser)
    parser.add_argument("--out", required=True, help="the folder to write to")
    parser.add_argument("--to", choices=outgoing.LAYOUTS, default=outgoing.KN, help="the layout")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons, of stage 2 or imported")
    parser.add_argument("--output_dir", default="{RESULTS}", help="the results of stage 1, for scores and prompts used")
    parser.add_argument("--output_prefix", default="{PREFIX}", help="the prefix of their names")
    parser.add_argument("--bert_model", help="with nnsight, the model whose modules to name; none: the recorded one")
    parser.add_argument("--revision", help="which version of a model on the hub")
    args = parser.parse_args(argv)
    results = collecting.Results(Path(args.kn_dir), Path(args.output_dir), args.output_prefix)
    relations = collecting.relations_to_export(results.kn_dir, args.pt_relation)
    collected = collecting.collect(results, _read_facts(args, relations))
    projection = None
    if args.to == keyed.NNSIGHT:
        projection = _projection(args.bert_model or collected.card["model"], args.revision)
    outgoing.export(collected, args.to, Path(args.out), projection)
    lines = collected.arms[KNOWLEDGE]
    with_neurons = sum(bool(line["neurons"]) for line in lines)
    print(f"{args.out}: {len(relations)} relations, {len(lines):,} facts, {with_neurons:,} with neurons")


def _projection(model: str | None, revision: str | None) -> str:
    if not model:
        raise InputError("--bert_model: the results do not say which model they are of: name it")
    from kn.model import loading  # imports torch

    return loading.projection(model, revision)


def import_(argv: list[str]) -> None:
    parser = _parser("import", IMPORT)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a folder, or files")
    _add_fact_flags(parser)
    parser.add_argument(
        "--debug", type=flags.some_or_all, default=-1, metavar="N", help="only the first N facts of each relation"
    )
    parser.add_argument("--from", dest="layout", choices=outgoing.LAYOUTS, help="the layout; none: as card.json says")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the folder to write to")
    parser.add_argument(
        "--facts", metavar="FILE", help="eleuther: which facts the ids are of, as in pararel_expanded.json"
    )
    parser.add_argument(
        "--language", type=flags.whole, metavar="N", help="lape: whose neurons every fact gets, counted from 0"
    )
    parser.add_argument("--baseline", metavar="KN_DIR", help="take the baseline's neurons from this folder of stage 2")
    parser.add_argument("--bert_model", help="the model that the neurons are of: a folder, or its name on the hub")
    parser.add_argument("--revision", help="which version of a model on the hub")
    parser.add_argument("--dtype", choices=flags.DTYPES, default="{DTYPE}", help="its numbers' type in the stages")
    parser.add_argument("--do_lower_case", action="store_true", help="lower-case its text, if the stages do")
    args = parser.parse_args(argv)
    facts = _read_facts(args, args.pt_relation, args.debug)
    source = incoming.find_source(args.paths, args.layout, args.facts, args.language)
    imported = incoming.read(source, facts)
    settings = as_stage_2.settings_on(source.card)
    if args.bert_model:
        settings = _checked_model(args, imported, settings)
    kn_dir = Path(args.kn_dir)
    as_stage_2.write(kn_dir, imported, source, facts, settings, args.baseline)
    if "weights" not in settings:
        note("note: nothing says which model these neurons are of: add --bert_model to have it checked and recorded")
    if BASELINE not in imported.arms and not args.baseline:
        note("note: the baseline's arm has no neurons, so its numbers say nothing: --baseline takes those of stage 2")
    print(f"{'relation':9}{'facts':>8}{'with neurons':>14}{'neurons per fact':>18}{'not in the files':>18}")
    for relation, neurons in imported.arms[KNOWLEDGE].items():
        mean = sum(map(len, neurons)) / max(len(neurons), 1)
        unnamed = imported.unnamed.get(relation, 0)
        print(f"{relation:9}{len(neurons):8}{sum(map(bool, neurons)):14}{mean:18.2f}{unnamed:18}")
    print(f"{kn_dir}: the neurons of {len(imported.arms[KNOWLEDGE])} relations")


def _checked_model(args: argparse.Namespace, imported: incoming.Imported, settings: dict) -> dict:
    """The settings of the model on the command line. It must be that of the card, and have all of the neurons."""
    from kn.stage.setup import World, open_model

    names = ("bert_model", "revision", "dtype")
    model = flags.ModelArgs(
        **{name: getattr(args, name) for name in (*names, "do_lower_case")},
        max_seq_length=128,
        device="cpu",
        gpus=None,
        no_cuda=True,
        max_tokens=None,
        seed=0,
    )
    opened = open_model(model, debug=-1)
    origins.check_model(args.paths[0], settings, opened.settings, "`kn import`")
    world = World({}, [], opened)
    for by_relation in imported.arms.values():
        for relation, neurons in by_relation.items():
            for fact, members in enumerate(neurons):
                world.check_neurons(members, f"{args.paths[0]}, {relation}, fact {fact}")
    return {name: opened.settings[name] for name in (*names, "weights", "tokenizer")}


def _parser(name: str, description: str) -> flags.Parser:
    parser = flags.parser(description)
    parser.prog = f"kn {name}"
    return parser


def _add_fact_flags(parser: flags.Parser) -> None:
    parser.add_argument("--data_path", default="{DATA}/PARAREL/data_all.json", help="all facts")
    parser.add_argument(
        "--query_pairs_path", default="{DATA}/BingDistantTREx/query_pairs.json", help="subject and object of each fact"
    )
    parser.add_argument("--pt_relation", nargs="*", default=[], metavar="P101", help="which relations; none: all")


def _read_facts(args: argparse.Namespace, relations: list[str], debug: int = -1) -> Facts:
    pairs = Path(args.query_pairs_path)
    if not pairs.exists():
        note(f"note: {pairs}: no such file, so the facts are without their subjects (--query_pairs_path)")
    return read_facts(args.data_path, pairs if pairs.exists() else None, relations, debug)


COMMANDS: dict[str, Callable[[list[str]], None]] = {"export": export, "import": import_}

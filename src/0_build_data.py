"""Builds the files that the stages read from your own templates, relation labels and subject-object pairs.

For the published data, 0_get_data.py does this.

    python src/0_build_data.py --data_dir data

reads   PARAREL/raw_data/patterns/P101.jsonl …  LAMA/raw_data/relations.jsonl  PARAREL/query_pairs.json
writes  PARAREL/data_all.json  data_all_allbags.json  data_11.json  data_n1.json  data_nm.json, and query_pairs.json
"""

from kn.store.start import guard

from kn.data import layout
from kn.stage import flags


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--data_dir", default="{DATA}", help="the folder that has PARAREL and LAMA")
    parser.add_argument(
        "--pairs",
        metavar="PATH",
        help="a query_pairs.json, or a folder of LAMA's T-REx files; default: PARAREL/query_pairs.json",
    )
    args = parser.parse_args()
    bags = layout.build(args.data_dir, args.pairs)
    print(f"{args.data_dir}: {layout.summary(bags)}")


if __name__ == "__main__":
    guard(main)

"""Fetches data, checks them, and builds the files that the stages read.

    python src/0_get_data.py                     the published data, from the authors' repository
    python src/0_get_data.py --from FOLDER       from a checkout of it, or from a copy of its data folder
    python src/0_get_data.py mlama [en zh …]     mLAMA 1.1, as mlama1.1.zip; checks that it has these languages
    python src/0_get_data.py mlama --from PATH   from its zip file or its folder
    python src/0_get_data.py NAME                another data set, for stages 1, 2, 3, 6, 7 and 8, into data/NAME
    python src/0_get_data.py NAME --from PATH    from its file, folder or zip file

{formats}
Files that are already right stay as they are. An interrupted download is resumed.
"""

from kn.store.start import guard

import argparse
from pathlib import Path

from kn.data import conversion, layout, mlama, sources
from kn.data.conversion import Collector
from kn.data.formats.format import Format
from kn.data.formats.known import FORMATS
from kn.data.trees import Tree
from kn.stage import flags
from kn.store import files, runs
from kn.store.files import InputError


def parse() -> argparse.Namespace:
    known = "".join(f"    {name:12} {known.title}, {known.licence}\n" for name, known in FORMATS.items())
    parser = flags.parser(__doc__.format(formats=known))
    parser.add_argument(
        "what", nargs="*", metavar="NAME", help="mlama and languages, or another name; none: the published data"
    )
    parser.add_argument(
        "--data_dir", default="{DATA}", help="the folder for the data; of NAME: data/NAME instead of data"
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--from", dest="source", type=Path, metavar="PATH", help="a local copy to use, offline")
    origin.add_argument("--url", help="another address: of the folder with the files, or of the one file")
    parser.add_argument("--checksums", default="data/checksums.txt", help="the files to fetch: SHA-256, bytes and path")
    parser.add_argument("--sha256", help="the checksum that mLAMA's zip file must have")
    parser.add_argument(
        "--answer_last", action="store_true", help="NAME: only prompts whose answer comes last, as causal models need"
    )
    args = parser.parse_args()
    args.name, *args.languages = args.what or [None]
    args.format = FORMATS.get(args.name)
    if args.name not in (None, "mlama", *FORMATS):
        parser.error(f"expected mlama, {', '.join(FORMATS)}, or nothing for the published data, found {args.name}")
    if args.format and args.languages:
        parser.error(f"after {args.name}, expected flags only, found {args.languages[0]}")
    if args.url and not args.url.startswith(("http://", "https://")):
        parser.error(f"--url {args.url}: expected http://… or https://…; for a local copy, use --from")
    if args.sha256 and (args.name != "mlama" or (args.source and args.source.is_dir())):
        parser.error("--sha256 is for a zip file of mLAMA")
    if args.answer_last and not args.format:
        parser.error(f"--answer_last is for {' '.join(FORMATS)}")
    if args.format and args.data_dir == flags.SETTINGS["DATA"]:
        args.data_dir += f"/{args.name}"
    return args


def main() -> None:
    args = parse()
    if Path(args.data_dir).resolve() == Path("data/sample").resolve():
        raise InputError("data/sample: holds the sample world; put the real data into another folder, e.g. DATA=data")
    data = files.make_folder(args.data_dir)
    with runs.locked(data / ".0_get_data.lock", wait=False) as alone:
        if not alone:
            raise InputError(f"{data}: another run is fetching into it")
        if args.format:
            convert(data, args.format, args.source, args.url, args.answer_last)
        elif args.name:
            get_mlama(data / "mlama1.1.zip", args.languages, args.source, args.url or sources.MLAMA, args.sha256)
        else:
            conversion.require_own_folder(data, None)
            folders = [args.url.rstrip("/")] if args.url else sources.PUBLISHED
            sources.get_published(data, sources.read_checksums(args.checksums), args.source, folders)
            for leftover in (data / "PARAREL").glob(f".data_*{files.UNFINISHED}"):  # from a build that was killed
                leftover.unlink()
            print(f"{data}: {layout.summary(layout.build(data))}")


def get_mlama(path: Path, languages: list[str], source: Path | None, address: str, sha256: str | None) -> None:
    sources.get_mlama(path, source, address, sha256)
    available = mlama.zip_languages(path)
    for language in languages:
        if language not in available:
            raise InputError(f"{path}: has no language {language}; it has {' '.join(available)}")
    print(f"{path}: {len(available)} languages, {path.stat().st_size:,} bytes, SHA-256 {files.sha256_of(path)}")


def convert(data: Path, format: Format, source: Path | None, url: str | None, answer_last: bool) -> None:
    """Fetch a data set of another form, or take a local copy, and write it in the layout that the stages read."""
    conversion.require_own_folder(data, format.name)
    tree = Tree(source or sources.get_format(data, format, url))
    collected = Collector(answer_last)
    try:
        format.read(tree, collected)
    except InputError as error:
        if source:
            raise
        raise InputError(f"{error}. It was fetched; to fetch it again, delete {data / 'source'}") from None
    checksums = tree.checksums()
    about = {
        "format": format.name,
        "title": format.title,
        "licence": format.licence,
        "origin": format.origin,
        "from": str(source or url or format.folder or format.address),
        "answer last": answer_last,
        "sha256": checksums,
    }
    bags = conversion.write(data, collected, tree.path, about)
    for line in collected.describe():
        print(line)
    if source and format.folder:
        print(sources.compare(format, checksums))
    print(f"licence: {format.licence}; {format.title}, {format.origin}")
    print(f"{data}: {layout.summary(bags)}. To use them: DATA={data} bash 1_run_mlm.sh")


if __name__ == "__main__":
    guard(main)

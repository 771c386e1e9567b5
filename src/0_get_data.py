"""Fetches the published data, checks them, and builds the files that the stages read; or fetches mLAMA.

    python src/0_get_data.py                     from the authors' repository
    python src/0_get_data.py --from FOLDER       from a checkout of it, or from a copy of its data folder
    python src/0_get_data.py mlama [en zh …]     mLAMA 1.1, as mlama1.1.zip; checks that it has these languages
    python src/0_get_data.py mlama --from PATH   from its zip file or its folder

Files that are already right stay as they are. An interrupted download is resumed.
"""

from kn.store.start import guard

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from kn.data import downloads, facts, mlama
from kn.data.downloads import Download
from kn.stage import flags
from kn.store import files, runs
from kn.store.files import InputError

REPOSITORY = "https://raw.githubusercontent.com/Hunter-DDM/knowledge-neurons"
# The commit that the checksums belong to. A server that does not understand its short name is asked for the newest
# commit; the checksums decide what is right.
PUBLISHED = (f"{REPOSITORY}/922dfd9/data", f"{REPOSITORY}/HEAD/data")
# Its authors publish no checksum, and the connection is not encrypted. Only the checksums inside the zip file are
# checked, unless --sha256 is given.
MLAMA = "http://cistern.cis.lmu.de/mlama/mlama1.1.zip"


@dataclass(frozen=True)
class Entry:
    """A line of the list of checksums."""

    path: str
    sha256: str
    size: int

    def problem(self, path: Path) -> str | None:
        size = path.stat().st_size
        if size != self.size:
            return f"has {size:,} bytes, expected {self.size:,}"
        sha256 = files.sha256_of(path)
        return None if sha256 == self.sha256 else f"is another file: its SHA-256 is {sha256}, expected {self.sha256}"


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("what", nargs="*", metavar="mlama LANGUAGE", help="mLAMA; default: the published data")
    parser.add_argument("--data_dir", default="{DATA}", help="the folder for the data")
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--from", dest="source", type=Path, metavar="PATH", help="a local copy to use, offline")
    origin.add_argument("--url", help="a mirror: of the authors' data folder, or of mLAMA's zip file")
    parser.add_argument("--checksums", default="data/checksums.txt", help="the files to fetch: SHA-256, bytes and path")
    parser.add_argument("--sha256", help="the checksum that mLAMA's zip file must have")
    args = parser.parse_args()
    if args.what and args.what[0] != "mlama":
        parser.error(f"expected mlama or nothing, found {args.what[0]}")
    if args.url and not args.url.startswith(("http://", "https://")):
        parser.error(f"--url {args.url}: expected http://… or https://…; for a local copy, use --from")
    if args.sha256 and (not args.what or (args.source and args.source.is_dir())):
        parser.error("--sha256 is for a zip file of mLAMA")
    return args


def main() -> None:
    args = parse()
    if Path(args.data_dir).resolve() == Path("data/sample").resolve():
        raise InputError("data/sample: holds the sample world; put the real data into another folder, e.g. DATA=data")
    data = files.make_folder(args.data_dir)
    with runs.locked(data / ".0_get_data.lock", wait=False) as alone:
        if not alone:
            raise InputError(f"{data}: another run is fetching into it")
        if args.what:
            get_mlama(data / "mlama1.1.zip", args.what[1:], args.source, args.url or MLAMA, args.sha256)
        else:
            folders = [args.url.rstrip("/")] if args.url else PUBLISHED
            get_published(data, read_checksums(args.checksums), args.source, folders)
            for leftover in (data / "PARAREL").glob(f".data_*{files.UNFINISHED}"):  # from a build that was killed
                leftover.unlink()
            print(f"{data}: {facts.summary(facts.build(data))}")


def read_checksums(path: str) -> list[Entry]:
    entries = []
    with files.reading(path) as file:
        for number, line in enumerate(file, 1):
            parts = re.fullmatch(r"([0-9a-f]{64})  ([1-9]\d*)  (\S.*)\n?", line)
            if not parts:
                raise InputError(f"{path}, line {number}: expected SHA-256, bytes and path, found {line.strip()!r}")
            entries.append(Entry(parts[3], parts[1], int(parts[2])))
    return entries


def get_published(data: Path, entries: list[Entry], source: Path | None, folders: Sequence[str]) -> None:
    """Get the missing files from a local copy, or else from the first of these web folders that has them."""
    # The repository has some files twice, under different paths.
    same_files: dict[str, list[str]] = {}
    for entry in entries:
        same_files.setdefault(entry.sha256, []).append(entry.path)
    if source and (source / "data" / "PARAREL").is_dir():
        source = source / "data"
    missing = []
    for entry in entries:
        names = [entry.path, *(path for path in same_files[entry.sha256] if path != entry.path)]
        addresses = [f"{folder}/{quote(name)}" for folder in folders for name in names]
        download = Download(data / entry.path, addresses, entry.problem, entry.size)
        if is_done(download):
            continue
        missing.append(download)
        if source:
            copies = [source / name for name in names if (source / name).exists()]
            copy(copies[0] if copies else source / entry.path, download)
    if not source:
        fetch(missing)


def get_mlama(path: Path, languages: list[str], source: Path | None, address: str, sha256: str | None) -> None:
    def problem(path: Path) -> str | None:
        if sha256 and (own := files.sha256_of(path)) != sha256.lower():
            return f"its SHA-256 is {own}, expected {sha256}"
        return mlama.zip_problem(path)

    download = Download(path, [address], problem)
    if not is_done(download):
        if source is None:
            fetch([download])
        elif source.is_dir():
            mlama.pack(source, path)
        else:
            copy(source, download)
    available = mlama.zip_languages(path)
    for language in languages:
        if language not in available:
            raise InputError(f"{path}: has no language {language}; it has {' '.join(available)}")
    print(f"{path}: {len(available)} languages, {path.stat().st_size:,} bytes, SHA-256 {files.sha256_of(path)}")


def is_done(download: Download) -> bool:
    """Whether the file exists and is right. Removes what a killed copy left, but no partial download."""
    files.remove_unfinished(download.path)
    if not download.path.is_file():
        return False
    problem = download.check(download.path)
    if problem:
        tqdm.write(files.plain(f"{download.path}: {problem}; replacing it"), file=sys.stderr)
    return not problem


def fetch(missing: Sequence[Download]) -> None:
    size = sum(download.size or 0 for download in missing)
    so_far = sum(download.size_so_far() for download in missing)
    if missing:
        with tqdm(total=size or None, initial=so_far, desc="fetching", unit="B", unit_scale=True) as bar:
            for download in missing:
                downloads.fetch(download, bar.update)


def copy(source: Path, download: Download) -> None:
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    if problem := download.check(source):
        raise InputError(f"{source}: {problem}")
    with files.writing(download.path, "wb") as out, open(source, "rb") as file:
        shutil.copyfileobj(file, out)
    download.partial.unlink(missing_ok=True)


if __name__ == "__main__":
    guard(main)

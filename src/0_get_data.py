"""Fetches the published data, checks them, and builds from them what the stages read; or fetches mLAMA.

    python src/0_get_data.py                     from the authors' repository
    python src/0_get_data.py --from FOLDER       from a checkout of it, or from a copy of its folder data
    python src/0_get_data.py mlama [en zh …]     mLAMA 1.1, as mlama1.1.zip; looks whether it has these languages
    python src/0_get_data.py mlama --from PATH   from its zip file or its folder

What is there and right stays as it is. A download that was broken off goes on where it stopped.
"""

from kn.store.start import guard

import argparse
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from tqdm import tqdm

from kn.data import downloads, facts, mlama
from kn.data.downloads import Download
from kn.stage import flags
from kn.store import files, runs
from kn.store.files import InputError

REPOSITORY = "https://raw.githubusercontent.com/Hunter-DDM/knowledge-neurons"
# The commit that the checksums are of. Where its short name is not understood, the newest commit will do:
# the checksums decide what is right.
PUBLISHED = (f"{REPOSITORY}/922dfd9/data", f"{REPOSITORY}/HEAD/data")
# Its authors publish no checksum, and the connection is not encrypted: only what the zip file says of itself is
# checked, unless --sha256 says more.
MLAMA = "http://cistern.cis.lmu.de/mlama/mlama1.1.zip"


@dataclass(frozen=True)
class Entry:
    """A file of the published data, as the list of checksums has it."""

    path: str
    sha256: str
    size: int

    def wrong(self, path: Path) -> str | None:
        size = path.stat().st_size
        if size != self.size:
            return f"has {size:,} bytes, expected {self.size:,}"
        found = files.sha256_of(path)
        return None if found == self.sha256 else f"is another file: its SHA-256 is {found}, expected {self.sha256}"


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("what", nargs="*", metavar="mlama LANGUAGE", help="mLAMA; none: the published data")
    parser.add_argument("--data_dir", default="{DATA}", help="where the data go")
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--from", dest="source", metavar="PATH", help="a local copy; nothing is downloaded")
    origin.add_argument("--url", help="a mirror: of the authors' folder data, or of mLAMA's zip file")
    parser.add_argument("--checksums", default="data/checksums.txt", help="the files to fetch: SHA-256, bytes and path")
    parser.add_argument("--sha256", help="what mLAMA's zip file must have")
    args = parser.parse_args()
    if args.what and args.what[0] != "mlama":
        parser.error(f"expected mlama or nothing, found {args.what[0]}")
    if args.url and not args.url.startswith(("http://", "https://")):
        parser.error(f"--url {args.url}: expected http://… or https://…; --from takes a local copy")
    if args.sha256 and (not args.what or (args.source and Path(args.source).is_dir())):
        parser.error("--sha256 is for a zip file of mLAMA")
    return args


def main() -> None:
    args = parse()
    if Path(args.data_dir).resolve() == Path("data/sample").resolve():
        raise InputError("data/sample: holds the sample world; the real data go to another folder (DATA=data, say)")
    data = files.make_folder(args.data_dir)
    with runs.locked(data / ".0_get_data.lock", wait=False) as alone:
        if not alone:
            raise InputError(f"{data}: another run is fetching into it")
        if args.what:
            get_mlama(args, data / "mlama1.1.zip")
        else:
            get_published(args, data)
            for left in (data / "PARAREL").glob(f".data_*{files.UNFINISHED}"):  # by a run killed while building
                left.unlink()
            print(f"{data}: {facts.summary(facts.build(data))}")


def get_published(args: argparse.Namespace, data: Path) -> None:
    entries = read_list(args.checksums)
    # A file that the repository has at several places is looked for at all of them.
    places: dict[str, list[str]] = {}
    for entry in entries:
        places.setdefault(entry.sha256, []).append(entry.path)
    folders = [args.url.rstrip("/")] if args.url else PUBLISHED
    missing = []
    for entry in entries:
        names = [entry.path, *(path for path in places[entry.sha256] if path != entry.path)]
        addresses = [f"{folder}/{quote(name)}" for folder in folders for name in names]
        download = Download(data / entry.path, addresses, entry.wrong, entry.size)
        if not there(download):
            missing.append((download, names))
    if not args.source:
        fetch([download for download, _ in missing])
        return
    source = Path(args.source)
    source = source / "data" if (source / "data" / "PARAREL").is_dir() else source
    for download, names in missing:
        copies = [source / name for name in names]
        copy(next((path for path in copies if path.exists()), copies[0]), download)


def read_list(path: str) -> list[Entry]:
    entries = []
    with files.reading(path) as file:
        for number, line in enumerate(file, 1):
            parts = re.fullmatch(r"([0-9a-f]{64})  ([1-9]\d*)  (\S.*)\n?", line)
            if not parts:
                raise InputError(f"{path}, line {number}: expected SHA-256, bytes and path, found {line.strip()!r}")
            entries.append(Entry(parts[3], parts[1], int(parts[2])))
    return entries


def get_mlama(args: argparse.Namespace, path: Path) -> None:
    def wrong(path: Path) -> str | None:
        if args.sha256 and (found := files.sha256_of(path)) != args.sha256.lower():
            return f"its SHA-256 is {found}, expected {args.sha256}"
        try:
            with mlama.open_zip(path) as archive:
                damaged = archive.testzip()  # by the checksums (CRC) that it has of each file in it
        except InputError as error:
            return str(error)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError):
            return "is not a whole zip file"
        if damaged:
            return f"{damaged} in it is damaged"
        return None if languages_in(path) else "has no <language>/templates.jsonl in it"

    download = Download(path, [args.url or MLAMA], wrong)
    if not there(download):
        if not args.source:
            fetch([download])
        elif Path(args.source).is_dir():
            pack(Path(args.source), path)
        else:
            copy(Path(args.source), download)
    languages = languages_in(path)
    for language in args.what[1:]:
        if language not in languages:
            raise InputError(f"{path}: has no language {language}; it has {' '.join(languages)}")
    print(f"{path}: {len(languages)} languages, {path.stat().st_size:,} bytes, SHA-256 {files.sha256_of(path)}")


def languages_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
    return sorted(name.parent.name for name in names if name.name == "templates.jsonl")


def pack(folder: Path, path: Path) -> None:
    """Make the zip file of a folder that holds mLAMA's languages."""
    found = sorted(folder.glob("*/*.jsonl")) or sorted(folder.glob("*/*/*.jsonl"))
    if not any(file.name == "templates.jsonl" for file in found):
        raise InputError(f"{folder}: has no <language>/templates.jsonl in it")
    with files.writing(path, "wb") as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in found:
            archive.write(file, f"mlama1.1/{file.parent.name}/{file.name}")


def there(download: Download) -> bool:
    """Whether a file is there and right. Removes what a killed copying left; a partial download stays."""
    files.remove_unfinished(download.path)
    if not download.path.is_file():
        return False
    wrong = download.check(download.path)
    if wrong:
        tqdm.write(files.plain(f"{download.path}: {wrong}; replacing it"), file=sys.stderr)
    return not wrong


def fetch(missing: Sequence[Download]) -> None:
    size = sum(download.size or 0 for download in missing)
    begun = sum(download.begun() for download in missing)
    if missing:
        with tqdm(total=size or None, initial=begun, desc="fetching", unit="B", unit_scale=True) as bar:
            downloads.fetch(missing, bar.update)


def copy(source: Path, download: Download) -> None:
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    wrong = download.check(source)
    if wrong:
        raise InputError(f"{source}: {wrong}")
    with files.writing(download.path, "wb") as out, open(source, "rb") as file:
        shutil.copyfileobj(file, out)
    download.partial.unlink(missing_ok=True)


if __name__ == "__main__":
    guard(main)

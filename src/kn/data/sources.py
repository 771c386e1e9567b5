"""Getting data: from the web or from a local copy, checked before they get their final name."""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from kn.data import downloads, mlama
from kn.data.downloads import Download
from kn.data.formats.format import Format
from kn.data.trees import MOST, zip_problem
from kn.store import files
from kn.store.files import InputError

REPOSITORY = "https://raw.githubusercontent.com/Hunter-DDM/knowledge-neurons"
# The commit that the checksums belong to. A server that does not understand its short name is asked for the newest
# commit; the checksums decide what is right.
PUBLISHED = (f"{REPOSITORY}/922dfd9/data", f"{REPOSITORY}/HEAD/data")
# Its authors publish no checksum, and the connection is not encrypted. Only the checksums inside the zip file are
# checked, unless --sha256 is given.
MLAMA = "http://cistern.cis.lmu.de/mlama/mlama1.1.zip"


@dataclass(frozen=True)
class Listed:
    """A line of a list of checksums."""

    path: str
    sha256: str
    size: int

    def problem(self, path: Path) -> str | None:
        size = path.stat().st_size
        if size != self.size:
            return f"has {size:,} bytes, expected {self.size:,}"
        sha256 = files.sha256_of(path)
        return None if sha256 == self.sha256 else f"is another file: its SHA-256 is {sha256}, expected {self.sha256}"


def read_checksums(path: str | Path) -> list[Listed]:
    listed = []
    with files.reading(path) as file:
        for number, line in enumerate(file, 1):
            parts = re.fullmatch(r"([0-9a-f]{64})  ([1-9]\d*)  (\S.*)\n?", line)
            if not parts:
                raise InputError(f"{path}, line {number}: expected SHA-256, bytes and path, found {line.strip()!r}")
            listed.append(Listed(parts[3], parts[1], int(parts[2])))
    return listed


def get_published(data: Path, listed: list[Listed], source: Path | None, folders: Sequence[str]) -> None:
    """Get the missing files from a local copy, or else from the first of these web folders that has them."""
    # The repository has some files twice, under different paths.
    same_files: dict[str, list[str]] = {}
    for entry in listed:
        same_files.setdefault(entry.sha256, []).append(entry.path)
    if source and (source / "data" / "PARAREL").is_dir():
        source = source / "data"
    missing = []
    for entry in listed:
        names = [entry.path, *(path for path in same_files[entry.sha256] if path != entry.path)]
        addresses = [f"{folder}/{quote(name)}" for folder in folders for name in names]
        download = Download(data / entry.path, addresses, entry.problem, entry.size)
        if _is_done(download):
            continue
        missing.append(download)
        if source:
            copies = [source / name for name in names if (source / name).exists()]
            _copy(copies[0] if copies else source / entry.path, download)
    if not source:
        _fetch(missing)


def get_mlama(path: Path, source: Path | None, address: str, sha256: str | None) -> None:
    def problem(path: Path) -> str | None:
        if sha256 and (own := files.sha256_of(path)) != sha256.lower():
            return f"its SHA-256 is {own}, expected {sha256}"
        return mlama.mlama_problem(path)

    download = Download(path, [address], problem)
    if not _is_done(download):
        if source is None:
            _fetch([download])
        elif source.is_dir():
            mlama.pack(source, path)
        else:
            _copy(source, download)


def get_format(data: Path, format: Format, url: str | None) -> Path:
    """Fetch a data set into the folder `source`. Where it is now: that folder, or the one file."""
    source = data / "source"
    if format.folder:
        get_published(source, read_checksums(format.checksums), None, [url.rstrip("/") if url else format.folder])
        return source
    address = url or format.address
    if not address:
        raise InputError(
            f"{format.name}: not fetched, because we could not check its address. As far as we know, it is "
            f"{format.origin}. Name a local copy: bash 0_get_data.sh {format.name} --from PATH, or an --url"
        )
    path = source / (Path(urlsplit(address).path).name or format.name)
    is_zip = path.suffix == ".zip"
    download = Download(path, [address], lambda fetched: zip_problem(fetched, MOST) if is_zip else None)
    if not _is_done(download):
        _fetch([download])
    return path


def compare(format: Format, checksums: Mapping[str, str]) -> str:
    """Whether files at hand, given by their SHA-256, are those of a list. Theirs may be other folders."""
    listed = {entry.sha256 for entry in read_checksums(format.checksums)}
    same = len(listed.intersection(checksums.values()))
    return f"{same} of the {len(checksums)} files that were read, of {len(listed)} published, are as published"


def _is_done(download: Download) -> bool:
    """Whether the file exists and is right. Removes what a killed copy left, but no partial download."""
    files.remove_unfinished(download.path)
    if not download.path.is_file():
        return False
    problem = download.check(download.path)
    if problem:
        tqdm.write(files.plain(f"{download.path}: {problem}; replacing it"), file=sys.stderr)
    return not problem


def _fetch(missing: Sequence[Download]) -> None:
    size = sum(download.size or 0 for download in missing)
    so_far = sum(download.size_so_far() for download in missing)
    if missing:
        with tqdm(total=size or None, initial=so_far, desc="fetching", unit="B", unit_scale=True) as bar:
            for download in missing:
                downloads.fetch(download, bar.update)


def _copy(source: Path, download: Download) -> None:
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    if problem := download.check(source):
        raise InputError(f"{source}: {problem}")
    with files.writing(download.path, "wb") as out, open(source, "rb") as file:
        shutil.copyfileobj(file, out)
    download.partial.unlink(missing_ok=True)

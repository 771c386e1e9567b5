"""The files of a data set at hand: in a folder, in a zip file, or a single one."""

import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from kn.store.files import InputError, sha256_of

ENCRYPTED = 0x41  # flags of a file in a zip
LARGEST, MOST = 1 << 27, 1 << 32  # bytes in one file of a zip, and in all of them; a fact takes about 200

File = Path | zipfile.Path


class Tree:
    """Files by their path in a folder or zip. A single file has its name as its path."""

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        self.read: list[PurePosixPath] = []  # what was asked for
        self.files: dict[PurePosixPath, File] = {}
        if path.is_dir():
            self.files = {
                PurePosixPath(file.relative_to(path).as_posix()): file
                for file in sorted(path.rglob("*"))
                if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
            }
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder")
        elif path.suffix == ".zip":
            try:
                archive = open_zip(path, MOST)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
            names = [name for name in archive.namelist() if not name.endswith("/")]
            self.files = {PurePosixPath(name): zipfile.Path(archive, name) for name in sorted(names)}
        else:
            self.files = {PurePosixPath(path.name): path}

    def matching(self, *patterns: str) -> list[File]:
        """The files that match the first pattern that any file matches, as in "*/factual/*.json"."""
        for pattern in patterns:
            if found := [path for path in self.files if path.match(pattern)]:
                self.read += found
                return [self.files[path] for path in found]
        raise InputError(f"{self.path}: has no {' or '.join(patterns)} in it: is it the right data set?")

    def one(self, *patterns: str) -> File:
        found = self.matching(*patterns)
        if len(found) > 1:
            raise InputError(f"{self.path}: has several {patterns[-1]}: {found[0]} and {found[1]}; name one: --from")
        return found[0]

    def by_name(self, *patterns: str) -> dict[str, File]:
        """The files that match, by their names without extension; relations with numbers in their order."""
        found = {stem(file): file for file in self.matching(*patterns)}
        return {name: found[name] for name in sorted(found, key=lambda name: (len(name), name))}

    def beside(self, file: File, name: str) -> File:
        """Another file of the same folder."""
        here = next(path for path, known in self.files.items() if known is file)
        there = here.with_name(name)
        if there not in self.files:
            raise InputError(f"{file.parent}/{name}: no such file, but {file.name} has it")
        self.read.append(there)
        return self.files[there]

    def checksums(self) -> dict[str, str]:
        """The SHA-256 of the files that were read, by path; of a zip file, its own."""
        if self.path.is_dir():
            return {str(path): sha256_of(self.path / path) for path in sorted(set(self.read))}
        return {self.path.name: sha256_of(self.path)}


def stem(file: File) -> str:
    """The name without its extension: zipfile's paths have no `stem` in Python 3.10."""
    return PurePosixPath(file.name).stem


def open_zip(path: Path, largest: int = LARGEST) -> zipfile.ZipFile:
    """Open a zip file, and refuse one whose files can't be read. The errors leave out the path.

    Whole repositories may have files larger than `LARGEST` beside those that are read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})") from None
    except (zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, struct.error):
        raise InputError("is not a whole zip file") from None
    total = sum(member.file_size for member in archive.infolist())
    if total > MOST:
        raise InputError(f"the files in it have {total:,} bytes, expected at most {MOST:,}")
    for member in archive.infolist():
        if member.flag_bits & ENCRYPTED:
            raise InputError(f"{member.filename} in it is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{member.filename} in it is compressed in a way that this program does not support")
        if member.file_size > largest:
            raise InputError(f"{member.filename} in it has {member.file_size:,} bytes, expected at most {largest:,}")
    return archive


def zip_problem(path: Path, largest: int = LARGEST) -> str | None:
    """What is wrong with a zip file, including damage to the files in it."""
    try:
        with open_zip(path, largest) as archive:
            damaged = archive.testzip()  # compares the checksum (CRC) of each file
    except InputError as error:
        return str(error)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError):
        return "is not a whole zip file"
    return f"{damaged} in it is damaged" if damaged else None

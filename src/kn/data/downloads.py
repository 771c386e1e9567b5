"""Download files over HTTP: resumed, checked, and given their final name only when they are right.

An unfinished download lies next to its final path under another name. The next run resumes it, unless it turns out to
be wrong. No library that is installed anyway does this for files with a known checksum; `urllib` does the HTTP.
"""

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kn.store.files import UNFINISHED, InputError, make_folder

STALL = 30  # seconds without a byte after which a connection counts as broken
RETRIES = 3  # in a row that bring no new bytes
PAUSE = 1  # seconds before the first retry; doubles with each further one
BLOCK = 1 << 16

Report = Callable[[int], object]  # gets the number of bytes that arrived; negative if some were thrown away


@dataclass(frozen=True)
class Download:
    path: Path
    addresses: Sequence[str]  # tried in this order until one has the file
    check: Callable[[Path], str | None]  # what is wrong with a file, in a few words
    size: int | None = None  # None if unknown

    @property
    def partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}{UNFINISHED}")

    def size_so_far(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0


class _NotHere(Exception):
    """This address does not have the file."""


class _Interrupted(Exception):
    """Another try may work."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTP only. By default urllib would also follow one to an FTP server."""

    def redirect_request(
        self, request: Any, response: Any, code: int, message: str, headers: Any, address: str
    ) -> urllib.request.Request | None:
        if not address.startswith(("http://", "https://")):
            raise _NotHere(f"redirects to {address}, expected http://… or https://…")
        return super().redirect_request(request, response, code, message, headers, address)


def fetch(download: Download, report: Report) -> None:
    """Fetch the file from the first address that has it. Only one process at a time may fetch the same file."""
    make_folder(download.path.parent)
    reasons = []
    for address in download.addresses:
        try:
            return _fetch_from(address, download, report)
        except _NotHere as reason:
            reasons.append(f"{address}: {reason}")
    raise InputError(f"{reasons[0]}. To use a local copy: --from PATH")


def _fetch_from(address: str, download: Download, report: Report) -> None:
    n_failed, most = 0, download.size_so_far()
    resumed = most > 0  # what an earlier run left may belong to another file
    while True:
        try:
            if download.size_so_far() != download.size:
                _receive(address, download, report)
        except _Interrupted as reason:
            n_failed = 1 if download.size_so_far() > most else n_failed + 1
            most = max(most, download.size_so_far())
            if n_failed > RETRIES:
                raise InputError(f"{address}: {reason}. To use a local copy: --from PATH") from None
            time.sleep(PAUSE * 2 ** (n_failed - 1))
            continue
        problem = download.check(download.partial)
        if not problem:
            with _writing(download):
                os.replace(download.partial, download.path)
            return
        _throw_away(download, report)
        if not resumed:
            raise _NotHere(problem)
        resumed = False


def _throw_away(download: Download, report: Report) -> None:
    report(-download.size_so_far())
    download.partial.unlink(missing_ok=True)


def _receive(address: str, download: Download, report: Report) -> None:
    """Fetch the rest of the file."""
    start = download.size_so_far()
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=STALL) as response:
            _save(response, start, download, report)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return  # the file was complete, only its size was unknown
            _throw_away(download, report)
        reason = f"HTTP {error.code} {str(error.reason).partition(chr(10))[0][:200]}"
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            raise _Interrupted(reason) from None
        raise _NotHere(reason) from None
    except urllib.error.URLError as error:
        cause = getattr(error.reason, "strerror", None) or error.reason
        raise _Interrupted(f"can't be reached ({cause}; is there a network?)") from None
    except TimeoutError:
        raise _Interrupted(f"nothing came for {STALL} seconds") from None
    except InputError:  # a ValueError, too
        raise
    except (ValueError, OverflowError, http.client.InvalidURL):  # an impossible host or port
        raise _NotHere("is no address on the network, or redirects to one that isn't") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"broke off ({getattr(error, 'strerror', None) or type(error).__name__})") from None


def _save(response: http.client.HTTPResponse, start: int, download: Download, report: Report) -> None:
    """Write a response to the file; `start` bytes are there, and the rest was asked for."""
    first, total = _range(response)
    if None not in (total, download.size) and total != download.size:
        raise _NotHere(f"has {total:,} bytes, expected {download.size:,}")
    if first > start:
        raise _Interrupted(f"sent the bytes from {first:,} on, asked for those from {start:,} on")
    report(first - start)
    size = download.size or total
    with _writing(download):
        # Unbuffered, so that closing the file does not try again to write what could not be written.
        file = open(download.partial, "r+b" if first else "wb", buffering=0)  # noqa: SIM115
    with file:
        with _writing(download):
            file.truncate(first)
            file.seek(first)
        while (size is None or file.tell() <= size) and (block := response.read1(BLOCK)):
            with _writing(download):
                rest = memoryview(block)
                while rest:
                    rest = rest[file.write(rest) :]
            report(len(block))
        with _writing(download):
            os.fsync(file.fileno())
        received = file.tell()
    if size is not None and received < size:
        raise _Interrupted(f"broke off at {received:,} of {size:,} bytes")


def _range(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The position of the first byte of a response, and the size of the file. A server may ignore the range."""
    part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status == 206 and part:
        return int(part[1]), None if part[2] == "*" else int(part[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


@contextmanager
def _writing(download: Download) -> Iterator[None]:
    """Tell errors of the disk from those of the network: both are OSErrors."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{download.path}: can't be written ({error.strerror})") from None

"""Fetching files over HTTP: continued where they broke off, checked, and given their name only when they are right.

What is there of a file so far lies beside it under another name, and stays there to be continued until it turns out
to be wrong. Threads fetch several files at a time; all that they report goes through one queue to the thread that
started them, so that an error or Ctrl-C there ends everything at once.
"""

import http.client
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kn.store.files import UNFINISHED, InputError, make_folder

AT_A_TIME = 4  # files
STALL = 30  # after so many seconds without a byte a connection counts as broken
RETRIES = 3  # in a row that bring nothing new
PAUSE = 1  # seconds before the first retry; each further one waits twice as long
BLOCK = 1 << 16
LAST = 1  # seconds for other threads to end after an error, so that they leave nothing behind it

Tell = Callable[[int], None]  # gets the number of bytes that arrived, below 0 where some were given up


@dataclass(frozen=True)
class Download:
    path: Path  # where it goes
    addresses: Sequence[str]  # tried in this order until one has it
    check: Callable[[Path], str | None]  # what is wrong with a file that should be it, in a few words
    size: int | None = None  # None: not known beforehand

    @property
    def partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}{UNFINISHED}")

    def begun(self) -> int:
        """How many bytes are there so far."""
        return self.partial.stat().st_size if self.partial.exists() else 0


class _Elsewhere(Exception):
    """This address does not have the file."""


class _BrokeOff(Exception):
    """It may go better at the next try."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes only where a download may begin, too: urllib itself would follow to an FTP server."""

    def redirect_request(self, request, answer, code, message, headers, address):
        if not address.startswith(("http://", "https://")):
            raise _Elsewhere(f"redirects to {address}, expected http://… or https://…")
        return super().redirect_request(request, answer, code, message, headers, address)


def fetch(downloads: Sequence[Download], tell: Tell) -> None:
    """Fetch all of them, or raise the first error. Only one process at a time may fetch the same file."""
    waiting, news = queue.SimpleQueue(), queue.SimpleQueue()
    stop = threading.Event()
    for download in downloads:
        waiting.put(download)

    def work() -> None:
        while not stop.is_set():
            try:
                _fetch(waiting.get_nowait(), news.put, stop)
                news.put(None)
            except queue.Empty:
                return
            except BaseException as error:
                news.put(error)

    # Daemons: at the end nobody waits for a stalled connection.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(AT_A_TIME)]
    for thread in threads:
        thread.start()
    missing = len(downloads)
    try:
        while missing:
            arrived = news.get()
            if isinstance(arrived, BaseException):
                raise arrived
            if arrived is None:
                missing -= 1
            else:
                tell(arrived)
    finally:
        stop.set()
        end = time.monotonic() + LAST
        for thread in threads:
            thread.join(max(0, end - time.monotonic()))


def _fetch(download: Download, tell: Tell, stop: threading.Event) -> None:
    make_folder(download.path.parent)
    reasons = []
    for address in download.addresses:
        try:
            return _fetch_from(address, download, tell, stop)
        except _Elsewhere as reason:
            reasons.append(f"{address}: {reason}")
    raise InputError(f"{reasons[0]}. A local copy: --from PATH")


def _fetch_from(address: str, download: Download, tell: Tell, stop: threading.Event) -> None:
    failures, most = 0, download.begun()
    continued = most > 0  # what an earlier run left may be of another file
    while not stop.is_set():
        try:
            if download.begun() != download.size:
                _receive(address, download, tell, stop)
        except _BrokeOff as reason:
            failures = 1 if download.begun() > most else failures + 1
            most = max(most, download.begun())
            if failures > RETRIES:
                raise InputError(f"{address}: {reason}. A local copy: --from PATH") from None
            stop.wait(PAUSE * 2 ** (failures - 1))
            continue
        if stop.is_set():
            return
        wrong = download.check(download.partial)
        if not wrong:
            with _disk(download):
                os.replace(download.partial, download.path)
            return
        tell(-download.begun())
        download.partial.unlink()
        if not continued:
            raise _Elsewhere(wrong)
        continued = False


def _receive(address: str, download: Download, tell: Tell, stop: threading.Event) -> None:
    """Bring what is there of a file to its end, unless told to stop."""
    have = download.begun()
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=STALL) as answer:
            start, total = _part(answer)
            if None not in (total, download.size) and total != download.size:
                raise _Elsewhere(f"has {total:,} bytes, expected {download.size:,}")
            if start > have:
                raise _BrokeOff(f"sent the bytes from {start:,} on, asked for those from {have:,} on")
            end = download.size or total
            got = _write(answer, download, start, end, tell, stop)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return  # it was whole, only its size was not known
            tell(-have)
            download.partial.unlink(missing_ok=True)
        said = f"HTTP {error.code} {str(error.reason).partition(chr(10))[0][:200]}"
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            raise _BrokeOff(said) from None
        raise _Elsewhere(said) from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise _BrokeOff(f"can't be reached ({reason}; is there a network?)") from None
    except TimeoutError:
        raise _BrokeOff(f"nothing came for {STALL} seconds") from None
    except (ValueError, OverflowError, http.client.InvalidURL):  # a host or a port that can't be
        raise _Elsewhere("is no address on the network, or redirects to one that isn't") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokeOff(f"broke off ({getattr(error, 'strerror', None) or type(error).__name__})") from None
    if end is not None and got < end and not stop.is_set():
        raise _BrokeOff(f"broke off at {got:,} of {end:,} bytes")


def _part(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where in the file an answer begins, and how long that is. A server may ignore what part was asked for."""
    part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if answer.status == 206 and part:
        return int(part[1]), None if part[2] == "*" else int(part[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _write(answer, download: Download, start: int, end: int | None, tell: Tell, stop: threading.Event) -> int:
    """Write an answer behind the first `start` bytes of what is there; returns how many there are then."""
    tell(start - download.begun())
    with _disk(download):
        # Unbuffered: what could not be written is not tried again on closing.
        file = open(download.partial, "r+b" if start else "wb", buffering=0)  # noqa: SIM115
    with file:
        with _disk(download):
            file.truncate(start)
            file.seek(start)
        while not stop.is_set() and (end is None or file.tell() <= end) and (block := answer.read1(BLOCK)):
            with _disk(download):
                left = memoryview(block)
                while left:
                    left = left[file.write(left) :]
            tell(len(block))
        with _disk(download):
            os.fsync(file.fileno())
        return file.tell()


@contextmanager
def _disk(download: Download):
    """Errors of the disk, apart from those of the network, which are of the same kind."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{download.path}: can't be written ({error.strerror})") from None

"""A web server on this machine that breaks off, stalls, and sends wrong bytes, for tests of fetching."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves files from memory. `faults` lists per path what goes wrong, one entry per request."""

    daemon_threads = True
    ranges = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list] = {}
        self.requests: list[tuple[str, str | None]] = []  # path and range
        self.over = threading.Event()

    def handle_error(self, *_):
        pass  # the client has closed the connection

    def requested_ranges(self, path):
        return [part for requested, part in self.requests if requested == path]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, path = self.server, self.path[1:]
        server.requests.append((path, self.headers["Range"]))
        fault = server.faults[path].pop(0) if server.faults.get(path) else None
        if isinstance(fault, tuple):  # the response's status line, and the address it redirects to
            self.wfile.write(f"HTTP/1.0 {fault[0]}\r\nLocation: {fault[1]}\r\n\r\n".encode())
            return
        if path not in server.files or isinstance(fault, int):
            self.send_error(fault or 404)
            return
        body = server.files[path]
        body = {"wrong bytes": body[::-1], "too long": body + b" "}.get(fault, body)
        start = 0
        if server.ranges and self.headers["Range"]:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if fault != "no length":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = (start + len(body)) // 2 if fault in ("breaks off", "stalls") else len(body)
        self.wfile.write(body[start:end])
        if fault == "stalls":
            self.wfile.flush()
            server.over.wait(20)

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def error_of(done):
    """The one line of error that a failed run printed after its progress bar."""
    assert done.returncode == 1 and "Traceback" not in done.stderr
    *bar, error = done.stderr.rstrip("\n").split("\n")
    assert error.startswith("error: ") and all(line.startswith("\r") or not line for line in bar), done.stderr
    return error

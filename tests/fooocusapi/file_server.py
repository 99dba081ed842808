"""A server of one file on the loopback, which answers each request as a test has it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = bytes(hashlib.sha512(b"%d" % (index // 64)).digest()[index % 64] for index in range(300_000))
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
ETAG = '"one"'


class Request(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers.items()))
        self.close_connection = True
        answer = self.server.answers.pop(0) if self.server.answers else whole
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):  # The client has had enough.
            return

    def tell(self, status: int, headers: Mapping[str, object], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


Answer = Callable[[Request], None]


class FileServer(ThreadingHTTPServer):
    """``answers`` are given in order, then the whole file or what was asked of it. ``asked`` are the headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers: list[Answer] = []
        self.asked: list[dict[str, str]] = []
        self.silent_until = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


@contextmanager
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.silent_until.set()
        server.shutdown()
        server.server_close()
        thread.join()


def whole(request: Request) -> None:
    """As a good server: the rest alone where it is asked for and the file is still the same."""
    sent(CONTENT)(request)


def sent(content: bytes, *, length: int | None = None, etag: str = ETAG, stop_after: int | None = None) -> Answer:
    """``content``, of which no more than the first ``stop_after`` bytes come before the connection is cut."""

    def answer(request: Request) -> None:
        start, status = 0, 200
        if request.headers.get("If-Range") == etag:
            start, status = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-")), 206
        headers: dict[str, object] = {"Content-Length": (length or len(content)) - start, "ETag": etag}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.tell(status, headers, content[start:stop_after])

    return answer


def cut(after: int) -> Answer:
    return sent(CONTENT, stop_after=after)


def without_ranges(stop_after: int | None = None) -> Answer:
    """The whole file whatever is asked; the file has no name by which it could be known again."""

    def answer(request: Request) -> None:
        request.tell(200, {"Content-Length": len(CONTENT)}, CONTENT[:stop_after])

    return answer


def refused(status: int, **headers: object) -> Answer:
    return lambda request: request.tell(status, {"Content-Length": 0, **headers})


def redirected(to: str, **headers: object) -> Answer:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: request.tell(302, {"Location": to, "Content-Length": 0, **told})


def silent(after: int) -> Answer:
    """The beginning of the file, then nothing, for as long as the test lasts."""

    def answer(request: Request) -> None:
        request.tell(200, {"Content-Length": len(CONTENT), "ETag": ETAG}, CONTENT[:after])
        request.wfile.flush()
        request.server.silent_until.wait(10)

    return answer

"""Serves the page of runs on this machine alone: two fixed addresses that can be read, and nothing that can be changed.

It listens on 127.0.0.1. A browser that was led here by another site's name, as by DNS rebinding, is refused by the name
that it asks for.
"""

import errno
import hashlib
import json
import socketserver
import sys
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from infomax.reporting.pages.page import ESCAPED_IN_JSON
from infomax.reporting.watch.follow import least_pause
from infomax.reporting.watch.live_page import live_page, page_key
from infomax.reporting.watch.runs import WatchedRuns
from infomax.runtime.text import note

ADDRESS = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
"""Names by which a browser may ask, with any port: that of the beginning of an SSH tunnel is another one."""
PAGE, SECTIONS = "/", "/sections.json"
IDLE_SECONDS = 60.0  # after which a connection that says nothing is closed
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Content:
    """A frozen dataclass that holds what an address answers."""

    body: bytes
    kind: str
    """The media type."""

    @property
    def tag(self) -> str:
        """The entity tag, which is another one for other content."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


class LiveRuns:
    """Makes the page of runs anew whenever something has changed; several threads may ask.

    Args:
        runs: The runs.
    """

    def __init__(self, runs: WatchedRuns):
        self.runs = runs
        self._lock = threading.Lock()
        self._next_reading = 0.0
        self._key: Any = None
        self._contents: dict[str, Content] = {}

    def content(self, path: str) -> Content | None:
        """Returns what an address answers now; None if there is no such address."""
        with self._lock:
            now = time.monotonic()
            if now >= self._next_reading:
                snapshots = self.runs.update()
                if (key := page_key(snapshots)) != self._key:
                    page = live_page(snapshots, SECTIONS)
                    parts = json.dumps({"title": page.tab, "sections": page.sections}).translate(ESCAPED_IN_JSON)
                    self._contents = {
                        PAGE: Content(page.html.encode(), "text/html; charset=utf-8"),
                        SECTIONS: Content(parts.encode(), "application/json"),
                    }
                    self._key = key
                self._next_reading = time.monotonic() + least_pause(time.monotonic() - now)
            return self._contents.get(path)


class Server(ThreadingHTTPServer):
    """Answers requests of this machine.

    Args:
        runs: The runs that the page shows.
        port: The port; 0 takes a free one, which ``port`` then says.

    Raises:
        ValueError: if the port cannot be had.
    """

    daemon_threads = True
    block_on_close = False  # a browser keeps its connection open

    def __init__(self, runs: WatchedRuns, port: int):
        self.live = LiveRuns(runs)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise ValueError(f"--port {port} {reason}; name another one, or --port 0 takes a free one") from None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self.server_address[1]

    def server_bind(self) -> None:
        """Binds the address, without asking a name server for this machine's name, which can take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says in one line what went wrong with a request; a browser that has gone is no error."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            note(f"a request failed: {type(error).__name__}: {error}")


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for fixed addresses."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "infomax", ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answers a request for content, or for its headers alone."""
        names = self.headers.get_all("Host", [])
        if len(names) != 1 or (names[0].rpartition(":")[0] not in HOSTS and names[0] not in HOSTS):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        server = self.server
        assert isinstance(server, Server)
        content = server.live.content(self.path.partition("?")[0])
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        is_known = content.tag in [tag.strip().removeprefix("W/") for tag in self._known_tags()]
        self._send(HTTPStatus.NOT_MODIFIED if is_known else HTTPStatus.OK, content)

    do_HEAD = do_GET  # noqa: N815

    def _known_tags(self) -> list[str]:
        return self.headers.get("If-None-Match", "").split(",")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuses a request in a few words, and ends the connection; unknown methods are not allowed ones."""
        is_method = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if is_method else HTTPStatus(code)
        self.close_connection = True
        self._send(status, Content(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8"))

    def _send(self, status: HTTPStatus, content: Content) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED):
            self.send_header("ETag", content.tag)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        has_body = status != HTTPStatus.NOT_MODIFIED
        if has_body:
            self.send_header("Content-Type", content.kind)
            self.send_header("Content-Length", str(len(content.body)))
        self.end_headers()
        if has_body and self.command != "HEAD":
            self.wfile.write(content.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Prints nothing of a request."""

"""A real HTTP server on the loopback that answers as a test tells it."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Answer = Callable[[http.server.BaseHTTPRequestHandler, bytes], Any]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """`serve(answer)` starts a server and returns its URL. `answer(handler, body)` returns a status and a body to send,
    or None if it has sent what it wanted by itself."""
    with contextlib.ExitStack() as servers:

        def start(answer: Answer) -> str:
            class Handler(http.server.BaseHTTPRequestHandler):
                def handle_any(self) -> None:
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    told = answer(self, body)
                    if told is not None:
                        self.send_response(told[0])
                        self.send_header("Content-Length", str(len(told[1])))
                        self.end_headers()
                        self.wfile.write(told[1])

                do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - the names http.server wants

                def log_message(self, *arguments: Any) -> None:
                    pass

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            servers.callback(server.server_close)
            servers.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP client: one request, one answer, one exception. No proxies, no redirects, no dependencies."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import foreign_json, masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.urls import Url
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.urls import parse as parse_url

ERROR_CHARACTERS = 300
SAY = ("error", "detail", "message", "msg")  # the keys under which servers say what went wrong
CHUNK = 65536
MOST_BYTES = 64 * 1024 * 1024  # of an answer, or of a line of one
LINE_BY_LINE = ("application/x-ndjson", "text/event-stream")


class HttpError(Exception):
    """No usable answer. The text names scheme, host, port, path and cause; never a query, a password or a header.

    `status` is the answer's status where there was an answer.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class Response(NamedTuple):
    status: int
    body: bytes
    elapsed_s: float
    first_s: float | None = None  # until the first bytes of the body of an answer that comes line by line


def request(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10,
    take: Callable[[bytes], None] | None = None,
) -> Response:
    """Ask once and read the whole answer, whatever its status, within `timeout` seconds in all; else HttpError.

    `take` gets the body of a long answer as it comes; none of it is kept then.
    """
    target = _target(url)
    started = time.monotonic()
    connection = _connect(target, timeout)
    with contextlib.closing(connection):
        try:
            _within(connection, started + timeout)
            connection.request(method, target.path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            chunks: list[bytes] = []
            size, first_s = 0, None
            while not answer.isclosed():
                chunk = answer.read1(CHUNK)
                if not chunk:
                    break
                if not size and answer.headers.get_content_type() in LINE_BY_LINE:
                    first_s = time.monotonic() - started
                (take or chunks.append)(chunk)
                size += len(chunk)
                if size > MOST_BYTES:
                    raise _TooLarge
            if answer.length:  # read1 takes an early end for the end
                raise http.client.IncompleteRead(b"", answer.length)
        except Exception as problem:
            raise HttpError(f"{target.shown}: {_cause(problem, timeout)}") from None
    return Response(answer.status, b"".join(chunks), time.monotonic() - started, first_s)


def get_json(url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 10) -> Any:
    """The JSON of a 2xx answer to GET."""
    return _json_of(url, request(url, headers=headers, timeout=timeout))


def post_json(url: str, value: Any, *, headers: Mapping[str, str] | None = None, timeout: float = 10) -> Any:
    """The JSON of a 2xx answer to POST of `value` as JSON."""
    sent = {"Content-Type": "application/json", **(headers or {})}
    return _json_of(url, request(url, method="POST", body=json.dumps(value).encode(), headers=sent, timeout=timeout))


def post_for_lines(url: str, value: Any, *, silence_s: float = 300) -> Iterator[Any]:
    """The JSON of each line of a 2xx answer to POST of `value`, as it comes; else HttpError.

    An answer may take as long as it likes, as long as each line is there within `silence_s` seconds. One that is cut
    off between two chunks cannot be told from one that has ended: whoever asks must know the last line.
    """
    target = _target(url)
    connection = _connect(target, silence_s)
    with contextlib.closing(connection):
        try:
            within = _within(connection, time.monotonic() + silence_s)
            connection.request("POST", target.path, json.dumps(value).encode(), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                _json_of(url, Response(answer.status, answer.read(CHUNK), 0))
            while True:
                within.deadline = time.monotonic() + silence_s
                line = answer.readline(MOST_BYTES)
                if len(line) >= MOST_BYTES:
                    raise _TooLarge
                if not line:
                    break
                if line.strip():
                    yield _json_of(url, Response(answer.status, line, 0))
            if answer.length:  # readline takes an early end for the end
                raise http.client.IncompleteRead(b"", answer.length)
        except HttpError:
            raise
        except Exception as problem:
            raise HttpError(f"{target.shown}: {_cause(problem, silence_s)}") from None


def error_text(body: bytes) -> str:
    """What an answer says went wrong: its `error`, `detail` or the like, else its first words; one line, short."""
    text = body[: 4 * CHUNK].decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        text = _said(foreign_json.read(text))
    text = " ".join(text.encode(errors="replace").decode().split())  # half a character can be written in JSON
    return text if len(text) <= ERROR_CHARACTERS else f"{text[:ERROR_CHARACTERS]}{masking.CUT}"


def _said(value: Any) -> str:
    """The text inside a JSON value; of a list, such as one of what is wrong with each field, one after the other."""
    if isinstance(value, list):
        return "; ".join(map(_said, value))
    if not isinstance(value, dict):
        return value if isinstance(value, str) else json.dumps(value)
    said = next((value[key] for key in SAY if value.get(key)), None)
    if said is None:
        return json.dumps(value) if value else ""
    place = value.get("loc")
    return f"{'.'.join(map(str, place))}: {_said(said)}" if isinstance(place, list) else _said(said)


def _target(text: str) -> Url:
    try:
        return parse_url(text)
    except ValueError as problem:
        raise HttpError(str(problem)) from None


def _connect(target: Url, timeout: float) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    return kind(target.host, target.port, timeout=timeout)


class _TooLarge(Exception):
    """More than anybody sends who means it."""


class _Within:
    """A connection's socket that ends at a deadline, however slowly the other side sends; a timeout is for one read."""

    def __init__(self, channel: socket.socket, deadline: float) -> None:
        self._channel, self.deadline = channel, deadline

    def sendall(self, data: Any) -> None:
        self.set_timeout()
        self._channel.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self, self._channel.makefile("rb", buffering=0)))

    def close(self) -> None:
        self._channel.close()

    def set_timeout(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)


class _Reads(io.RawIOBase):
    def __init__(self, within: _Within, raw: socket.SocketIO) -> None:
        self._within, self._raw = within, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._within.set_timeout()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _within(connection: http.client.HTTPConnection, deadline: float) -> _Within:
    """Connect, and have all that is sent and read end at the deadline."""
    connection.connect()
    within = _Within(connection.sock, deadline)
    connection.sock = within  # of a socket http.client uses these methods alone
    return within


def _cause(problem: Exception, timeout: float) -> str:
    """An exception in plain words. Never its own text: http.client quotes header values and whole URLs."""
    if isinstance(problem, (socket.timeout, TimeoutError)):
        return f"no complete answer within {timeout:g} s"
    if isinstance(problem, _TooLarge):
        return f"the answer is larger than {MOST_BYTES // 1024 // 1024} MiB"
    if isinstance(problem, ConnectionRefusedError):
        return "connection refused, so nothing listens there"
    if isinstance(problem, socket.gaierror):
        return f"host name not found: {problem.strerror}"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return f"no TLS connection: {problem.reason or 'the other side does not speak it'}"
    if isinstance(problem, (ConnectionError, http.client.RemoteDisconnected, http.client.IncompleteRead)):
        return "the connection was closed before the answer was complete"
    if isinstance(problem, http.client.InvalidURL):
        return "not a URL: it has spaces or control characters"
    if isinstance(problem, http.client.HTTPException):
        return f"the answer is not HTTP ({type(problem).__name__})"
    if isinstance(problem, ValueError):
        return "a header or the URL has characters that HTTP does not allow"
    return (problem.strerror if isinstance(problem, OSError) else None) or type(problem).__name__


def _json_of(url: str, response: Response) -> Any:
    shown = _target(url).shown
    if not 200 <= response.status < 300:
        raise HttpError(f"{shown}: answered {response.status}: {error_text(response.body)}", response.status)
    try:
        return foreign_json.read(response.body)
    except ValueError:
        raise HttpError(f"{shown}: the answer is not JSON: {error_text(response.body)}", response.status) from None

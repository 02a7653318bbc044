from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client


def test_request_sends_and_reads(serve: Any) -> None:
    seen = {}

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        seen.update(method=handler.command, path=handler.path, body=body, header=handler.headers["X-Key"])
        return 418, b"x" * 200_000

    found = http_client.request(serve(answer) + "/a/b?c=d", method="PUT", body=b"hello", headers={"X-Key": "k"})
    assert seen == {"method": "PUT", "path": "/a/b?c=d", "body": b"hello", "header": "k"}
    assert (found.status, len(found.body)) == (418, 200_000), "any status is an answer"
    assert found.elapsed_s > 0


def test_json_there_and_back(serve: Any) -> None:
    url = serve(lambda handler, body: (200, json.dumps({"got": json.loads(body) if body else None}).encode()))
    assert http_client.post_json(url, {"a": 1}) == {"got": {"a": 1}}
    assert http_client.get_json(url) == {"got": None}


def test_streams_without_a_length_are_read_whole(serve: Any) -> None:
    def answer(handler: Any, body: bytes) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")

    assert http_client.request(serve(answer)).body == b"abcdef"


def test_proxies_of_the_environment_are_ignored(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert http_client.request(serve(lambda handler, body: (200, b"direct"))).body == b"direct"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b'{"error": "model \\"x\\" not found"}', 'answered 404: model "x" not found'),
        (500, b'{"detail": [{"msg": "bad"}]}', "answered 500: bad"),
        (503, b'{"error": {"message": "overloaded", "type": "server_error"}}', "answered 503: overloaded"),
        (500, b'{"detail": {"error": "no model"}}', "answered 500: no model"),
        (500, b'{"detail": {"reason": "no model"}}', 'answered 500: {"reason": "no model"}'),
        (500, b'{"errors": ["no model"]}', 'answered 500: {"errors": ["no model"]}'),
        (
            422,
            b'{"detail": [{"type": "missing", "loc": ["body", 0, "message"], "msg": "Field required"}, "and so on"]}',
            "answered 422: body.0.message: Field required; and so on",
        ),
        (500, b"{}", "answered 500: "),
        (502, b"<html>\n  bad   gateway", "answered 502: <html> bad gateway"),
        (200, b"not json", "the answer is not JSON: not json"),
    ],
)
def test_bad_answers(serve: Any, status: int, body: bytes, words: str) -> None:
    url = serve(lambda handler, _unused: (status, body))
    with pytest.raises(http_client.HttpError) as problem:
        http_client.get_json(url + "/api?key=secret")
    assert str(problem.value) == f"{url}/api: {words}"
    assert problem.value.status == status


def test_error_text_is_short() -> None:
    assert http_client.error_text(b"x" * 10_000) == "x" * http_client.ERROR_CHARACTERS + "…"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("url", ["", "localhost:11434", "ftp://a/b", "http://", "http://a:port/", "http://[::1"])
def test_what_is_not_a_url(url: str) -> None:
    with pytest.raises(http_client.HttpError, match="not a URL"):
        http_client.request(url)


def test_nobody_listens() -> None:
    with pytest.raises(http_client.HttpError, match="refused"):
        http_client.request(f"http://127.0.0.1:{free_port()}/")


def test_secrets_stay_out_of_errors(serve: Any) -> None:
    port = free_port()
    for url, headers in (
        (f"http://user:sesame@127.0.0.1:{port}/?token=sesame", {"Authorization": "sesame"}),
        (serve(lambda handler, body: (200, b"")), {"Authorization": "sesame\r\nX: y"}),
        (serve(lambda handler, body: (200, b"")), {"Authorization": "sesame\u2028"}),
        (serve(lambda handler, body: (200, b"")) + "/a b?sesame", {}),
    ):
        with pytest.raises(http_client.HttpError) as problem:
            http_client.request(url, headers=headers)
        assert "sesame" not in str(problem.value)


def raw_server(answer: bytes, then_hang: bool = False) -> str:
    """Not even HTTP: a socket that says `answer` and closes, or holds on."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        connection, _unused = server.accept()
        connection.recv(65536)
        connection.sendall(answer)
        if then_hang:
            connection.recv(65536)
        connection.close()
        server.close()

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed before the answer was complete"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "closed before the answer was complete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf", "closed before the answer was complete"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
    ],
)
def test_broken_answers(answer: bytes, words: str) -> None:
    with pytest.raises(http_client.HttpError, match=words):
        http_client.request(raw_server(answer))


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.0 200 OK\r\n\r\nsome", b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n"]
)
def test_hangs_end_in_time(answer: bytes) -> None:
    with pytest.raises(http_client.HttpError, match="within 0.3 s"):
        http_client.request(raw_server(answer, then_hang=True), timeout=0.3)


@pytest.mark.parametrize("start", [b"HTTP", b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n"])
@pytest.mark.parametrize(
    "ask", [http_client.request, lambda url, timeout: list(http_client.post_for_lines(url, {}, silence_s=timeout))]
)
def test_the_timeout_is_for_the_whole_answer(serve: Any, start: bytes, ask: Any) -> None:
    stop = threading.Event()

    def drip(handler: Any, body: bytes) -> None:
        handler.wfile.write(start)
        while not stop.wait(0.02):
            handler.wfile.write(b".")

    url = serve(drip)
    with pytest.raises(http_client.HttpError, match="within 0.3 s"):
        ask(url, timeout=0.3)
    stop.set()


@pytest.mark.parametrize("ask", [http_client.request, lambda url: list(http_client.post_for_lines(url, {}))])
def test_an_answer_without_end_is_given_up(serve: Any, monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    monkeypatch.setattr(http_client, "MOST_BYTES", 1024 * 1024)
    with pytest.raises(http_client.HttpError, match="the answer is larger than 1 MiB"):
        ask(serve(lambda _handler, _body: (200, b"x" * 2_000_000)))


def test_lines_come_one_by_one(serve: Any) -> None:
    seen = threading.Event()

    def answer(handler: Any, body: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b'{"n": 1}\n')
        assert seen.wait(20)
        handler.wfile.write(json.dumps({"got": json.loads(body)}).encode())

    lines = http_client.post_for_lines(serve(answer), {"a": 1})
    assert next(lines) == {"n": 1}, "before the answer has ended"
    seen.set()
    assert list(lines) == [{"got": {"a": 1}}]


@pytest.mark.parametrize(
    ("status", "header", "body", "words"),
    [
        (500, "", b'{"error": "no disk"}', "answered 500: no disk"),
        (500, "", b"", "answered 500"),
        (200, "", b"{}\n<html>\n", "the answer is not JSON: <html>"),
        (200, "Content-Length: 9", b"{}\n{}", "the connection was closed before the answer was complete"),
        (200, "Transfer-Encoding: chunked", b"3\r\n{}\n\r\n9\r\n{", "the connection was closed before the answer"),
    ],
)
def test_bad_streams(serve: Any, status: int, header: str, body: bytes, words: str) -> None:
    def answer(handler: Any, _unused: bytes) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        handler.send_response(status)
        if header:
            handler.send_header(*header.split(": "))
        handler.end_headers()
        handler.wfile.write(body)

    with pytest.raises(http_client.HttpError) as problem:
        list(http_client.post_for_lines(serve(answer) + "/a?token=t", {}))
    assert words in str(problem.value)
    assert "token" not in str(problem.value)


def test_a_stream_that_falls_silent_is_given_up(serve: Any) -> None:
    over = threading.Event()

    def answer(handler: Any, _unused: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"{}\n")
        over.wait(20)

    with pytest.raises(http_client.HttpError, match="no complete answer within 0.1 s"):
        list(http_client.post_for_lines(serve(answer), {}, silence_s=0.1))
    over.set()


def test_tls_that_the_other_side_does_not_speak_is_named() -> None:
    with pytest.raises(http_client.HttpError, match="no TLS connection: "):
        http_client.request(raw_server(b"HTTP/1.0 200 OK\r\n\r\n").replace("http://", "https://"), timeout=5)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "host name not found: Name or service not known"),
        (http.client.InvalidURL("secret"), "not a URL: it has spaces or control characters"),
        (ValueError("secret"), "a header or the URL has characters that HTTP does not allow"),
        (OSError(113, "No route to host"), "No route to host"),
        (RuntimeError("secret"), "RuntimeError"),
    ],
)
def test_a_cause_is_said_in_plain_words_and_never_in_its_own(problem: Exception, words: str) -> None:
    assert http_client._cause(problem, 5) == words


def test_a_certificate_that_is_not_accepted_is_named() -> None:
    problem = ssl.SSLCertVerificationError("secret")
    problem.verify_message = "self-signed certificate"
    assert http_client._cause(problem, 5) == "certificate not accepted: self-signed certificate"


def test_an_answer_that_drips_is_given_up_in_time(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(http_client.time, "monotonic", lambda: next(clock))
    with pytest.raises(http_client.HttpError, match="no complete answer within 5 s"):
        http_client.request(serve(lambda _handler, _body: (200, b"x" * 100)), timeout=5)


def test_empty_lines_of_a_stream_are_no_answers(serve: Any) -> None:
    url = serve(lambda _handler, _body: (200, b'\n{"a": 1}\n\n{"a": 2}\n'))
    assert list(http_client.post_for_lines(url, {})) == [{"a": 1}, {"a": 2}]

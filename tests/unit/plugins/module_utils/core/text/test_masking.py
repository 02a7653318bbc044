"""What is masked in texts of others, and what must stay so that a cause can still be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import masking
from hypothesis import given
from hypothesis import strategies as st

SHAPES = yaml.safe_load(Path(__file__).with_name("secret_shapes.yml").read_text())
CREDENTIALS = [
    "pull failed: api_key=%s rejected",
    "Authorization: Bearer %s",
    'level=ERROR msg="bad auth" token="%s" model=a',
    '{"password": "%s"}',
    r"{\"db_password\":\"%s\"}",
    "postgresql://selo:%s@db.example.net:5432/selo: connection refused",
    "GET http://db/x?key=%s&y=1: 403",
    "HF_TOKEN=%s",
    "secret: '%s'",
    "llama-server --api-key=%s",
]


@pytest.mark.parametrize("text", CREDENTIALS)
@pytest.mark.parametrize("secret", ["hunter2", "Tr0ub4dor&3"[:9], "correcthorse"])
def test_what_looks_like_a_credential_is_masked(text: str, secret: str) -> None:
    shown = masking.without_secrets(text % secret)
    assert secret not in shown
    assert masking.MASK in shown


@pytest.mark.parametrize(
    "secret",
    [
        "hf_abcdefghijklmno1234567890",
        "sk-proj-abcd1234efgh5678ijkl",
        "AKIA1234567890ABCDEF",
        "0123456789abcdef0123456789abcdef",
        "550e8400-e29b-41d4-a716-446655440000",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_what_looks_like_a_key_is_masked(secret: str) -> None:
    pieces = secret.split(".")
    shown = masking.without_secrets(f"cudaMalloc failed for {secret}: out of memory")
    assert not [piece for piece in pieces if len(piece) > 16 and piece in shown]
    assert shown.startswith("cudaMalloc failed for")
    assert shown.endswith("out of memory")


@pytest.mark.parametrize(
    "text",
    [
        "ggml_backend_cuda_buffer_type_alloc_buffer: 760.33 MiB on device 0: cudaMalloc failed: out of memory",
        'time=2026-11-26T11:55:15.123Z level=WARN source=sched.go:470 msg="gpu VRAM usage didn\'t recover" '
        "seconds=5.02 runner.size=9.1GiB runner.vram=9.1GiB runner.parallel=2 runner.pid=400 runner.num_ctx=8192",
        "model=/usr/share/ollama/models/blobs/sha256-6a0746a1ec1aef3e7ec53868f220ff6e389f6f8ef87a01d77c96807de94ca2aa",
        "requested context size too large for model num_ctx=131072 num_parallel=1 n_ctx_train=8192",
        "GPU-38079876-a1c8-5fa0-92ea-8efc513d7869: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.",
        "prompt eval time = 12.3 ms / 11 tokens ( 1.1 ms per token, 894.31 tokens per second)",
        "http://127.0.0.1:11434/api/chat: no complete answer within 120 s",
        "listen tcp 127.0.0.1:11434: bind: address already in use",
        'level=WARN msg="truncating input prompt" limit=2048 prompt=3000 keep=5 new=2048',
    ],
)
def test_a_cause_can_still_be_read(text: str) -> None:
    assert masking.without_secrets(text, masking.secrets_in({"LEVEL": "info", "OLLAMA_HOST": "127.0.0.1"})) == text


def test_known_values_are_masked_wherever_they_occur() -> None:
    known = masking.secrets_in(
        {
            "GREETING": "open sesame",
            "DATABASE_URL": "postgresql://selo:p%40ss-word@db:5432/selo?sslkey=topsecretkey",
            "BASE_URL": "http://127.0.0.1:11434",
            "CHAT_MODEL": "llama3.1:8b",
            "LOG_DIR": "/var/log/selo",
            "OLLAMA_KEEP_ALIVE": "24h0m0s",
            "LEVEL": "info",
        }
    )
    shown = masking.without_secrets(
        "info: open sesame, p%40ss-word, p@ss-word and topsecretkey at http://127.0.0.1:11434 for llama3.1:8b in "
        "/var/log/selo after 24h0m0s",
        known,
    )
    mask = masking.MASK
    assert shown == (
        f"info: {mask}, {mask}, {mask} and {mask} at http://127.0.0.1:11434 for llama3.1:8b in "
        "/var/log/selo after 24h0m0s"
    )


@pytest.mark.parametrize(
    ("variable", "printed", "secret"),
    [
        ("DB_PASSWORD=~Tr0ub4dor", "denied for ~Tr0ub4dor", "~Tr0ub4dor"),
        ("API_TOKEN=/Xy+abcdefg", "denied for /Xy+abcdefg", "/Xy+abcdefg"),
        ("PIN_SECRET=83471290", "denied for 83471290.", "83471290"),
        ("PIN_SECRET=8347", "denied for 8347", "8347"),
        ("MODEL_STORE_PASSWORD=hunterhunter", "denied for hunterhunter", "hunterhunter"),
        ("SHORT_PASSWORD=xyzw", "denied for xyzw", "xyzw"),
        ("SHORT_PASSWORD=xyz", "SHORT_PASSWORD=xyz is denied, not ********", "xyz"),
        ("FROM_VAULT=~Tr0ub4dor", "denied for ~Tr0ub4dor", "~Tr0ub4dor"),
        ("URL=http://selo:p%C3%A9t@db", "denied for p%C3%A9t", "p%C3%A9t"),
        ("URLS=http://a:word1@x,http://b:word2@y", "denied for word2", "word2"),
        ("SENTRY_DSN=https://public@sentry/1", "denied for https://public@sentry/1", "public"),
        ("DATABASE=host=db password=word user=selo", "denied for word", "word"),
        (r'LOGIN={"db": {"password": "a\"word"}}', 'denied for a"word', 'a"word'),
        ("AWS_SECRET_ACCESS_KEY=wJal/K7MD/bPxR", "denied for wJal/K7MD/bPxR", "wJal/K7MD/bPxR"),
        ("A_KEY=-----BEGIN-----\nMIIabc/def\n-----END-----", "cannot parse MIIabc/def", "MIIabc/def"),
        (r"A_KEY=-----BEGIN-----\nMIIabc/def\n-----END-----", "cannot parse MIIabc/def", "MIIabc/def"),
        ("GREETING=open sesame ", "denied for open sesame", "open sesame"),
        ('GREETING=open "sesame"', r'msg="denied for open \"sesame\""', "sesame"),
        ('GREETING=open "sesame"', r'{"m": "denied for open \\\"sesame\\\""}', "sesame"),
        (r"GREETING=open\sesame", r'msg="denied for open\\sesame"', "sesame"),
        ("GREETING=open s\u00e9same", r'"denied for open s\u00e9same"', "same"),
        ("GREETING=open 'sesame'", r"+ login 'open '\''sesame'\'' now'", "sesame"),
        ("GREETING=open sesame", "GET /login/open%20sesame/open+sesame", "sesame"),
        ("GREETING=open<sesame>", "denied for open&lt;sesame&gt;", "sesame"),
        ("GREETING=open sesame", "denied for b3BlbiBzZXNhbWU=", "b3BlbiBz"),
        ("GREETING=open sesame", "denied for 6f70656e20736573616d65", "6f70"),
        ("GREETING=open sesame", "denied for 6F70656E20736573616D65", "6F70"),
        ("A_KEY=jklm", "denied for 6a6b6c6d", "6a6b"),
        ("A_KEY=jklm", "denied for 6A6B6C6D", "6A6B"),
        ('GREETING=open "sesame"', r'{"m": "{\"m\": \"{\\\"m\\\": \\\"open \\\\\\\"sesame\\\\\\\"\\\"}\"}"}', "sesame"),
    ],
)
def test_a_known_secret_is_masked_whatever_it_looks_like(variable: str, printed: str, secret: str) -> None:
    name, _equals, value = variable.partition("=")
    shown = masking.without_secrets(printed, masking.secrets_in({name: value}))
    assert secret in printed
    assert secret not in shown
    assert masking.MASK in shown


@pytest.mark.parametrize(
    "variable",
    [
        "PIN_SECRET=8347",
        "PIN_SECRET=10",
        "SHOW_TOKEN=true",
        "TOKENIZERS_PARALLELISM=only",
        "API_TOKEN_FILE=/run/secrets/token",
        "LOG_DIR=/var/log",
        "CHAT_MODEL=llama3.1:8b",
        "LC_ALL=en_US.UTF-8",
        "LEVEL=info",
        "OLDPWD=/var/log",
    ],
)
def test_what_is_no_secret_and_every_figure_stay(variable: str) -> None:
    name, _equals, value = variable.partition("=")
    text = "info: 18347 MiB, 8347.25 MiB, 8347MiB and 0.8347 of 10 in /var/log, true only of llama3.1:8b, en_US.UTF-8"
    text += " /run/secrets/token"
    assert masking.without_secrets(text, masking.secrets_in({name: value})) == text


def test_a_runners_command_line_keeps_its_settings_and_no_credential() -> None:
    command = ["/usr/lib/ollama/llama-server", "--model", "/blobs/sha256-a", "-c", "8192", "-np", "2", "-ngl", "33"]
    assert masking.shown_command(command) == command
    private = ["--api-key", "12345678", "--api-key=hunter2", "-hft", "hunter2", "--hf-token", "x", "--alias", "a"]
    shown = masking.shown_command([*command, *private])
    mask = masking.MASK
    assert shown == [
        *command, "--api-key", mask, f"--api-key={mask}", "-hft", mask, "--hf-token", mask, "--alias", "a",
    ]  # fmt: skip


@given(st.text(), st.sets(st.text(min_size=6).filter(lambda value: value.strip("0123456789.") != ""), max_size=3))
def test_no_text_breaks_it_and_no_known_value_survives(text: str, known: set[str]) -> None:
    shown = masking.without_secrets("".join([text, *known, text]), known)
    assert not [value for value in known if value in shown.replace(masking.MASK, "\0")]


def test_a_url_that_cannot_be_taken_apart_is_a_secret_as_a_whole() -> None:
    broken = "http://[::1:11434/selo"
    assert masking.secrets_in({"A_URL": broken, "B": "://nothing"}) == {broken, "://nothing"}


@pytest.mark.parametrize("shape", SHAPES["masked"], ids=lambda shape: shape["text"][:50])
def test_a_shape_of_the_real_world_is_masked(shape: dict[str, str]) -> None:
    assert masking.without_secrets(shape["text"]) == shape["shown"]


@pytest.mark.parametrize(("text", "secret"), SHAPES["hidden"])
def test_a_value_of_the_real_world_is_not_shown(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in masking.without_secrets(text)


@pytest.mark.parametrize("text", SHAPES["stays"])
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert masking.without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "known", "shown"),
    [
        ("password=open sesame now", {"open sesame"}, f"password={masking.MASK} now"),  # its look ends at the blank
        ("denied for abcdefghi.", {"abcdef", "defghi"}, f"denied for {masking.MASK}."),
        ("denied for abcdefabcdef.", {"abcdef"}, f"denied for {masking.MASK}{masking.MASK}."),
        ("pin 8347 of 18347", {"8347"}, f"pin {masking.MASK} of 18347"),
        ("denied for sw0rd-f1sh", {"sw0rd-f1sh-77"}, f"denied for {masking.MASK}"),  # cut off by whom, nobody knows
        ("denied for sw0…", {"sw0rd-f1sh"}, f"denied for {masking.MASK}…"),
        ("denied for s…", {"sw0rd-f1sh"}, f"denied for {masking.MASK}…"),
        ("denied for sw0…, and on", {"sw0rd-f1sh"}, f"denied for {masking.MASK}…, and on"),
        ("denied for sw0, and on", {"sw0rd-f1sh"}, "denied for sw0, and on"),
        ("a long one: " + "xy z " * 100 + masking.CUT, {"xy z " * 200 + "end"}, f"a long one: {masking.MASK}…"),
    ],
)
def test_known_values_come_first_and_leave_no_piece(text: str, known: set[str], shown: str) -> None:
    assert masking.without_secrets(text, known) == shown


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Cookie": r'sid="a,b\054c\"d"; lang=de'}, 'a,b,c"d'),
        ({"Cookie": r'sid="swordfish\073"'}, "swordfish;"),
        ({"Cookie": "sid=sw%C3%B6rd%20fish"}, "swörd fish"),
        ({"Authorization": r'Digest username="selo", response="sword\\fish"'}, r"sword\fish"),
        ({"Authorization": 'Digest nonce="not closed'}, "not closed"),
        ({"Authorization": r'Digest response="sword\9fish"'}, "sword9fish"),
    ],
)
def test_a_header_is_masked_as_a_server_takes_it(headers: dict[str, str], said: str) -> None:
    shown = masking.without_secrets(f"<{said}>", masking.secrets_in_headers(headers))
    assert shown == f"<{masking.MASK}>"


def test_where_more_is_known_than_can_be_looked_for_nothing_is_shown() -> None:
    known = {f"value {number}" for number in range(masking.MOST_KNOWN + 1)}
    assert masking.without_secrets("an ordinary text", known) == (
        f"{masking.MASK} (not shown: this host keeps more than 10000 values that must not be)"
    )


def test_of_a_command_without_an_end_only_the_beginning_is_shown() -> None:
    command = ["llama-server", *["-c", "8192"] * masking.MOST_WORDS]
    shown = masking.shown_command(command)
    assert shown == [*command[: masking.MOST_WORDS], masking.CUT]


@pytest.mark.parametrize(
    ("value", "passwords"),
    [
        ("mysql://u:p@ss@h/db", {"p@ss"}),
        ("a mysql://u:p@ss@h/db and http://v:other@i", {"p@ss", "other"}),
        ("http://a:word1@x,http://b:word2@y", {"word1", "word2"}),
        ("selo:wo,rd@proxy", {"wo,rd"}),
    ],
)
def test_a_password_before_a_host_is_known_whole(value: str, passwords: set[str]) -> None:
    assert passwords <= masking.secrets_in({"PLACES": value})


@pytest.mark.parametrize("command", ["mysql -u root -phunter2 app", "/usr/bin/sshpass -phunter2 ssh h"])
def test_a_password_that_hangs_on_its_flag_is_known(command: str) -> None:
    assert "hunter2" in masking.secrets_in_command(command.split())
    assert masking.secrets_in_command(["docker", "run", "-phunter2"]) == set()


def test_a_name_of_any_length_is_a_name() -> None:
    assert masking.secrets_in({"A" * 1000: "hunter2"}) == {"hunter2"}


def test_what_is_longer_than_any_command_line_is_not_read_and_not_shown() -> None:
    words = ["run", "--token", "hunter2", "x" * masking.LONGEST_COMMAND, "--name", "something"]
    found = masking.secrets_in_command(words)
    assert {"hunter2", words[3], "something"} <= found
    assert "something" not in masking.secrets_in_command([*words[:3], *words[4:]])


def test_an_env_file_that_is_too_large_for_readers_is_read_by_lines() -> None:
    rest = "# noise\n" * (masking.dotenv.MOST_BYTES // 8)
    found = masking.secrets_in_text(f"API_TOKEN='hunter2'\nexport GREETING=\"open sesame\"\n{rest}")
    assert {"hunter2", "open sesame"} <= found

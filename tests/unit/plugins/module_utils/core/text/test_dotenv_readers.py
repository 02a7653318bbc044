"""The models of the readers, held against the readers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, dotenv_readers
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text import env_texts
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text.real_readers import (
    REAL,
    needs_systemd,
)
from hypothesis import given

READERS = ["bash", "python-dotenv", pytest.param("systemd", marks=needs_systemd)]


@pytest.mark.no_cover
@pytest.mark.parametrize("reader", READERS)
def test_a_model_says_what_the_real_reader_reads_or_that_it_does_not_know(reader: str) -> None:
    read, variant = REAL[reader]
    known = 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, ".env")

        @env_texts.examples(300)
        @given(env_texts.texts())
        def holds(text: str) -> None:
            nonlocal known
            path.write_bytes(dotenv.content_of(text))
            model = dotenv_readers.readings(text, reader)[variant]
            real = read(path, env_texts.NAMES)
            for name in env_texts.NAMES:
                if model.last(name) is None and not model.unread:
                    assert name not in real, f"{reader} reads {name}={real[name]!r} in {text!r}"
                elif model.value(name) is not None:
                    known += 1
                    assert real.get(name) == model.value(name), f"{name} in {text!r}"

        holds()
    assert known > 50, "the model hardly ever knows a value"


COMPUTED = [
    "K=~", "K=a:~/b", "export K={a,b}", "K=$A", 'K="${A}"', "K=$(a b)", "K=$'a'", "K+=1", "K[0]=x", "K=1 && A=2",
    "K=1 &", "K=1 | a", "A=1 || K=2", "UID=7;K=$UID", "K=1\neval x K", "K=1\nunset K", "K=1\nif true; then K=2; fi",
    "K=1 export A",
]  # fmt: skip


@pytest.mark.parametrize("text", COMPUTED)
def test_what_bash_would_compute_has_no_value(text: str) -> None:
    (reading,) = dotenv_readers.readings(text + "\n", "bash")
    assert reading.value("K") is None


DOCKER = [
    ("K=v\n", "v"),
    ('K="v" # c\n', '"v" # c'),
    ("  K= v \r\n", " v "),
    ("\ufeffK=v", "v"),
    ("#K=v\n", None),
    ("K=a\nK=b\n", "b"),
    ("K\n", None),
    ("K=v\nexport A=1\n", None),  # one bad name, and the whole file is refused
    ("K=v\n=1\n", None),
    ("K=v\udcff\n", None),
]


@pytest.mark.parametrize(("text", "value"), DOCKER)
def test_docker_takes_lines_as_they_are(text: str, value: str | None) -> None:
    (reading,) = dotenv_readers.readings(text, "docker")
    assert reading.value("K") == value


LINES = {
    "a hash in a word": (
        "K=a#b\n",
        {"compose": "a#b", "dynaconf": "a#b", "node": "a", "ruby-dotenv": "a", "honcho": "a"},
    ),
    "a comment": ("K=a # it's\n", dict.fromkeys(["compose", "dynaconf", "node", "ruby-dotenv", "honcho"], "a")),
    "a comment alone": ("K= # b\n", {"compose": "# b", "dynaconf": "# b", "node": "", "honcho": None}),
    "a variable": ("K=$A\n", {"compose": None, "dynaconf": None, "ruby-dotenv": None, "node": "$A", "honcho": "$A"}),
    "one in single quotes": ("K='$A'\n", {"compose": "$A", "ruby-dotenv": "$A", "node": "$A", "dynaconf": None}),
    "a backslash in quotes": ("K='a\\b'\n", {"compose": "a\\b", "node": "a\\b", "honcho": None, "dynaconf": None}),
    "a blank": ("K=a b\n", {"compose": "a b", "node": "a b", "honcho": None}),
    "export": ("export K=1\r\n", {"compose": "1", "node": "1", "dynaconf": "1", "honcho": None}),
    "nothing": ("K=1\nK=\n", {"compose": "", "node": "", "honcho": "1"}),
    "what rejects all": ("K=1\nA=$(x)\n", {"compose": None, "ruby-dotenv": None, "node": "1"}),
    "an open quote": ("K=1\nA='\n", dict.fromkeys(["compose", "dynaconf", "node", "ruby-dotenv", "honcho"])),
    "a name with a blank": ("A b=1\nK=1\n", {"docker": None, "podman": "1"}),
    "a line that is too long": (f"K=1\nA={'a' * 65536}\n", {"docker": None, "podman": None, "node": "1"}),
}


@pytest.mark.parametrize(("text", "values"), LINES.values(), ids=LINES)
def test_how_readers_differ(text: str, values: dict[str, str | None]) -> None:
    assert {reader: dotenv_readers.readings(text, reader)[0].value("K") for reader in values} == values


def test_names_are_the_same_whatever_their_case_for_pydantic_settings_alone() -> None:
    for reader, wanted in (("pydantic-settings", "k=40\n"), ("python-dotenv", "k=1\nK=40\n")):
        assert dotenv.set_keys("k=1\n", {"K": "40"}, readers=[reader]).text == wanted


@pytest.mark.parametrize("reader", ["python-dotenv", "systemd"])
def test_where_versions_differ_there_is_no_value(reader: str) -> None:
    text = {"python-dotenv": "\ufeffK=1\n", "systemd": "# c \\\nK=1\n"}[reader]
    assert dotenv.get_keys(text, ["K"], [reader]) == {"K": None}

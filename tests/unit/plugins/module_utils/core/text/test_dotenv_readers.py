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


@pytest.mark.parametrize("reader", ["python-dotenv", "systemd"])
def test_where_versions_differ_there_is_no_value(reader: str) -> None:
    text = {"python-dotenv": "\ufeffK=1\n", "systemd": "# c \\\nK=1\n"}[reader]
    assert dotenv.get_keys(text, ["K"], [reader]) == {"K": None}

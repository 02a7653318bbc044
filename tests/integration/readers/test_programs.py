"""The models of the readers of `.env` files against the programs themselves, installed in READERS_IN."""

from __future__ import annotations

import functools
import os
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, dotenv_readers
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text import (
    env_texts,
    fuzz,
    real_readers,
)

from tests.integration.readers import programs
from tests.integration.readers.programs import Program

DIRECTORY = Path(os.environ.get("READERS_IN") or tempfile.mkdtemp())
NUMBER = int(os.environ.get("READERS_VALUES", "100"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
OTHERS = "OTHER=1\nURL='http://h/?a=1 b' # c\n"


@functools.cache
def installed() -> list[Program]:
    DIRECTORY.mkdir(exist_ok=True)
    here = [
        Program(reader, reader, lambda paths, read=read: [read(path, env_texts.NAMES) for path in paths])
        for reader, (read, _variant) in real_readers.REAL.items()
    ]
    return [*here, *programs.installed(DIRECTORY)]


def values() -> list[str]:
    chance = random.Random(SEED)
    found = [*fuzz.ATTACKS, *(fuzz.value_of(chance) for _n in range(NUMBER))]
    return [value for value in found if "\0" not in value]


def read(program: Program, texts: Sequence[str], directory: Path) -> list[dict[str, str]]:
    paths = [directory / f"{number}.env" for number in range(len(texts))]
    for path, text in zip(paths, texts):
        path.write_bytes(dotenv.content_of(text))
    return [dict(found) for found in program.read(paths)]


def test_every_reader_is_held_to_a_program() -> None:
    assert {program.reader for program in installed()} | {"systemd"} == set(dotenv_readers.READERS)


def test_what_is_written_arrives_exactly_or_is_refused_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, told = [], []
    for program in installed():
        counts: Counter[str] = Counter()
        written = []
        for value in values():
            for text in ("", "# it's\n\n", OTHERS) if program.reader not in ("docker", "podman") else ("", "A=1\n"):
                edit = dotenv.set_keys(text, {"K": value}, readers=[program.reader])
                wrong += [problem for problem in edit.problems if not problem.startswith("K: ")]
                if edit.problems:
                    counts["refused by key"] += 1
                else:
                    written.append((edit.text, value))
        for (text, value), found in zip(written, read(program, [text for text, _value in written], tmp_path)):
            exact = found.get("K") == value
            counts["exact" if exact else "wrong"] += 1
            wrong += [] if exact else [f"{program.name}: {value!r} in {text!r} arrived as {found.get('K')!r}"]
        assert min(counts["exact"], counts["refused by key"]) > 40, f"{program.name}: one-sided"
        told.append(f"{program.reader} ({program.name}): {dict(counts)}")
    with capsys.disabled():
        for line in told:
            print(f"\nfigure: values written for {line}", end="")
        print()
    assert wrong == []


def test_a_model_says_what_the_program_reads_or_that_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    texts = [text for text in (fuzz.text_of(chance) for _n in range(10 * NUMBER)) if "\0" not in text]
    texts += [f"K={value}\n" for value in values() if not {"\n", "\r"} & set(value)]
    texts += [f"K={quote}{value}{quote} # c\nA=1\n" for value in values() for quote in ("'", '"')]
    wrong, told = [], []
    for program in installed():
        variant = real_readers.REAL[program.reader][1] if program.reader in real_readers.REAL else 0
        known = 0
        for text, found in zip(texts, read(program, texts, tmp_path)):
            model = dotenv_readers.readings(text, program.reader)[variant]
            for name in env_texts.NAMES:
                value = model.value(name)
                if value is None and (model.last(name) or model.unread):
                    continue  # not known
                known += value is not None
                if found.get(name) != value:
                    wrong.append(f"{program.name}: {text!r}: {name} is {found.get(name)!r}, not {value!r}")
        told.append(f"{program.reader} ({program.name}): {known} values known, in {len(texts)} files")
        assert known > 100, f"{program.name}: the model hardly ever knows a value"
    with capsys.disabled():
        for line in told:
            print(f"\nfigure: read by {line}", end="")
        print()
    assert wrong == []

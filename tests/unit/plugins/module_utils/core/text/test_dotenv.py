"""Setting keys: what changes, what never does, and what is refused."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, dotenv_readers
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text import env_texts, real_readers
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text.real_readers import REAL
from hypothesis import given
from hypothesis import strategies as st

PD = ["python-dotenv"]
READERS_OF_BOTH = ["bash", "python-dotenv"]
ALL = ["python-dotenv", "bash", "systemd", "docker"]

# text, readers, text with K set to 40
EDITS = {
    "a value": ("A=1\nK=999\nB=2\n", ALL, "A=1\nK=40\nB=2\n"),
    "an empty file": ("", ALL, "K=40\n"),
    "a new key goes to the end": ("A=1\n\n# end\n", ALL, "A=1\n\n# end\nK=40\n"),
    "no final newline": ("A=1", ALL, "A=1\nK=40\n"),
    "no final newline after the key": ("A=1\nK=9", ALL, "A=1\nK=40"),
    "export, spaces and a comment stay": ("  export K=9   # note\n", PD, "  export K=40   # note\n"),
    "spaces around the sign stay": ("K = 9\n", PD, "K = 40\n"),
    "single quotes stay": ("K='9'\n", ALL[:3], "K='40'\n"),
    "double quotes stay": ('K="9" # note\n', PD, 'K="40" # note\n'),
    "quotes that cannot carry it go": ('K="9"\n', ALL, "K=40\n"),
    "a value over two lines": ('K="a\nb"\nA=1\n', ALL[:3], 'K="40"\nA=1\n'),
    "a byte order mark": ("\ufeffA=1\nK=9\n", PD, "\ufeffA=1\nK=40\n"),
    "a byte order mark hides the first key": ("\ufeffK=9\n", PD, "\ufeffK=9\nK=40\n"),
    "CRLF": ("A=1\r\nK=9\r\n", PD, "A=1\r\nK=40\r\n"),
    "CRLF and a new key": ("A=1\r\n", PD, "A=1\r\nK=40\r\n"),
    "CRLF and bash, which would read the CR": ("A=1\r\nK=9\r\n", ["bash"], "A=1\r\nK=40\n"),
    "CRLF, bash and a new key": ("A=1\r\n", ["bash"], "A=1\r\nK=40\n"),
    "the last of several": ("K=1\nA=1\nK=2\nB=1\n", ALL, "K=1\nA=1\nK=40\nB=1\n"),
    "a comment, which systemd does not know": ("K=9 # note\n", ["systemd", "bash"], "K=40 # note\nK=40\n"),
    "export, which systemd does not know": ("export K=9\n", ["systemd", "bash"], "export K=40\nK=40\n"),
    "a name alone unsets for python-dotenv": ("K=40\nexport K\n", PD, "K=40\nexport K\nK=40\n"),
    "a name alone is no value": ("K \n", ["python-dotenv", "systemd"], "K \nK=40\n"),
    "blanks that one reader takes into the value go": ("K=9 \n", ["docker", "python-dotenv"], "K=40\n"),
    "a word that bash runs, a value for another": ("K=1\nK= 9\n", ["python-dotenv", "bash"], "K=40\nK= 9\nK=40\n"),
    "a commented key is a comment": ("#K=9\n", ALL, "#K=9\nK=40\n"),
    "another key with the name in it": ("KK=9\nXK=9\n", ALL, "KK=9\nXK=9\nK=40\n"),
    "a last line that goes on": ("A=x\\\n", ["bash"], "A=x\\\n\nK=40\n"),
    "an assignment with a command": ("K=9 a\n", ["bash"], "K=9 a\nK=40\n"),
    "bytes that are not UTF-8, for bash": ("A=\udcff\nK=9\n", ["bash"], "A=\udcff\nK=40\n"),
    "lines that mean nothing": ("what is this\n\x0c\nK=9\n", PD, "what is this\n\x0c\nK=40\n"),
    "set already": ("export K='40' # note", PD, "export K='40' # note"),
}


@pytest.mark.parametrize(("text", "readers", "wanted"), EDITS.values(), ids=EDITS)
def test_only_the_value_changes(text: str, readers: list[str], wanted: str) -> None:
    edit = dotenv.set_keys(text, {"K": "40"}, readers=readers)
    assert (edit.text, edit.problems) == (wanted, [])
    assert edit.changed_keys == ([] if text == wanted else ["K"])
    assert dotenv.get_keys(edit.text, ["K"], readers) == {"K": "40"}
    assert dotenv.set_keys(edit.text, {"K": "40"}, readers=readers).text == wanted


REFUSALS = {
    "a quote that is never closed": ("A='1\n", ["systemd"], "systemd: the quote that opens in line 1 is never closed"),
    "a syntax error": ("A=1\nB=(\n", ["bash"], "bash: from line 2 on"),
    "code that takes the key away": ("K=1\nunset K\n", ["bash"], "bash: from line 2 on"),
    "a name that docker refuses": ("export A=1\n", ["docker"], "docker: line 1 has no plain name"),
    "bytes that are not UTF-8": ("A=\udcff\n", PD, "python-dotenv: the file is not UTF-8"),
    "a NUL byte": ("A=\0\n", ["bash"], "NUL"),
}


@pytest.mark.parametrize(("text", "readers", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_file_that_hides_the_key_is_left_alone(text: str, readers: list[str], reason: str) -> None:
    edit = dotenv.set_keys(text, {"K": "40"}, readers=readers)
    assert edit.text == text
    assert len(edit.problems) == 1
    assert reason in edit.problems[0]


def test_several_keys_keep_their_order_and_one_problem_stops_all() -> None:
    assert dotenv.set_keys("B=1\n", {"Z": "1", "B": "2", "A": "a b"}).text == "B=2\nZ=1\nA='a b'\n"
    edit = dotenv.set_keys("B=1\n", {"B": "2", "A": "x\ny", "1A": "1", "UID": "7"}, ["B"])
    assert edit.text == "B=1\n"
    assert [problem.split(":")[0] for problem in edit.problems] == [
        "'1A' is no name of a variable; allowed",
        "B is to be set and to be removed; choose one",
        "A",
    ]


def test_a_name_that_a_reader_keeps_for_itself_is_refused_and_only_that_reader_named() -> None:
    (problem,) = dotenv.set_keys("A=1\n", {"UID": "7"}).problems
    assert problem.startswith("UID: bash would not read it from this file;")
    assert dotenv.set_keys("A=1\n", {"UID": "7"}, readers=PD).text == "A=1\nUID=7\n"


def test_a_reader_that_is_not_known_is_refused_by_name() -> None:
    edit = dotenv.set_keys("A=1\n", {"A": "2"}, readers=["zsh", "bash"])
    assert edit.text == "A=1\n"
    assert edit.problems == ["readers: ['zsh'] is not known; allowed: " + ", ".join(dotenv_readers.READERS)]


def test_the_limit_of_a_file_is_said_in_kib() -> None:
    assert "128 KiB" in dotenv.TOO_LARGE


def test_overruled_lines_are_noted() -> None:
    assert dotenv.set_keys("K=1\nA=1\nK=2\n", {"K": "40"}).notes == ["K: line 3 wins over line 1"]
    three = dotenv.set_keys("\nK=1\n\nK=2\nK=3", {"K": "40"})
    assert three.notes == ["K: line 5 wins over line 2", "K: line 5 wins over line 4"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A=1\nK=1\nexport K='2'\nB=1\n", "A=1\nB=1\n"),
        ('K="a\nb"\nB=1', "B=1"),
        ("B=1\nK=1", "B=1\n"),
        ("A=1\n", "A=1\n"),
    ],
)
def test_remove_takes_whole_lines(text: str, wanted: str) -> None:
    edit = dotenv.set_keys(text, {}, ["K"])
    assert (edit.text, edit.problems) == (wanted, [])


def test_remove_does_not_take_another_key_along() -> None:
    text = "\n\nexport K=1 A=2\nC=1\n"
    edit = dotenv.set_keys(text, {}, ["K"], ["bash"])
    assert (edit.text, edit.problems) == (text, ["K: line 3 also holds something else; take it out"])


@pytest.mark.parametrize(
    ("value", "readers", "form"),
    [
        ("max_split_size_mb:128,expandable_segments:True", ALL, "max_split_size_mb:128,expandable_segments:True"),
        ("0.70", ALL, "0.70"),
        ("", ALL, ""),
        ("a b", ALL[:3], "'a b'"),
        ("a b", ["docker"], "a b"),
        ("it's", ALL[:3], '"it\'s"'),
        ("$HOME", ALL[:3], "'$HOME'"),
        ("it's $x", ["bash", "systemd"], '"it\'s \\$x"'),
    ],
)
def test_encode(value: str, readers: list[str], form: str) -> None:
    assert dotenv.encode(value, readers) == form


@pytest.mark.parametrize(
    ("value", "readers", "reason"),
    [
        ("a\nb", ALL, "U+000A"),
        ("a\0b", PD, "U+0000"),
        ("a\x85b", PD, "U+0085"),
        ("a\tb", PD, "U+0009"),
        ("a\udcffb", PD, "U+DCFF"),
        ("${A}", ALL[:3], "python-dotenv replaces"),
        ("a b", ALL, "python-dotenv, bash, systemd and docker"),
        ("it's $x", ALL[:3], "python-dotenv, bash and systemd"),
        ("\ufffe", ["systemd"], "systemd cannot be given this value"),
    ],
)
def test_a_value_without_a_common_form_is_refused(value: str, readers: list[str], reason: str) -> None:
    with pytest.raises(dotenv.ValueNotPortable, match=reason.replace("+", r"\+")):
        dotenv.encode(value, readers)


@pytest.mark.parametrize(("value", "text"), [(8, "8"), (0.75, "0.75"), ("no", "no"), ("0.70", "0.70"), (-1, "-1")])
def test_numbers_become_text(value: object, text: str) -> None:
    assert dotenv.canonical(value) == text


@pytest.mark.parametrize("value", [True, None, [1], {}, float("nan"), float("inf")])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="quote it"):
        dotenv.canonical(value)


def test_get_keys_gives_a_value_only_if_all_readers_agree() -> None:
    text = b"\xef\xbb\xbf# c\nA='x'\nexport B=2\nC=${A}\nD=1 # d\n"
    assert dotenv.get_keys(text, ["A", "B", "C", "D", "E"]) == {"A": "x", "B": None, "C": None, "D": None, "E": None}
    assert dotenv.get_keys(text, ["B", "D"], ["bash", "python-dotenv"]) == {"B": "2", "D": "1"}


SECRET_TEXT = """\
# OLD_KEY=s3cret and s3cret
export DATABASE_URL="postgresql://u:s3cret@h/db"  # s3cret
API_KEY=s3cret'
K=40 # s3cret
PEM="-----BEGIN
s3cret=
-----END s3cret"

s3cret
S3cretLooksLikeAName=s3cret
token = s3cret \\
 s3cret
A=s3cret; K=41
"""


def test_masked_shows_structure_and_own_values_only() -> None:
    assert dotenv.masked(SECRET_TEXT, ["K"]) == (
        "# ********\nexport DATABASE_URL=********\nAPI_KEY=********\nK=40 ********\nPEM=********\n********\n"
        "********\n\n********\n********\ntoken = ********\n********\nA=********\n"
    )
    assert dotenv.masked("", ["K"]) == ""


@pytest.mark.parametrize("text", ["K='40\nA=s3cret\n", 'K="40\ns3cret\n', "K=40\\\ns3cret\n", "A=1\r\nB=s3cret\r\n"])
def test_masked_hides_what_a_reader_would_take_into_our_value(text: str) -> None:
    assert "s3cret" not in dotenv.masked(text, ["K"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    {
        "the same key twice": ("K=1\nK=40 # s3cret\n", "K=1\nK=40 ********\n"),
        "after a byte order mark": ("\ufeffK=40\nA=s3cret\n", "\ufeffK=40\nA=********\n"),
        "a value that one reader ends sooner": ("K=40;s3cret\n", "K=40********\n"),
        "what cannot be a name": ("S3cretName=x\nK=40\n", "********\nK=40\n"),
        "the key in a value of another": ("A='\nK=s3cret'\nK=40\n", "A=********\n********\nK=40\n"),
    }.values(),
)
def test_masked_shows_no_more_than_our_value(text: str, wanted: str) -> None:
    assert dotenv.masked(text, ["K"]) == wanted


def test_masked_names_a_key_of_mixed_case_only_if_it_is_ours() -> None:
    text = "ChatCtx=4096\nOtherKey=1\n"
    assert dotenv.masked(text, ["ChatCtx"]) == "ChatCtx=4096\n********\n"
    assert dotenv.masked(text, []) == "********\n********\n"


READERS = st.lists(st.sampled_from(sorted(REAL)), min_size=1, max_size=3, unique=True)


@pytest.mark.no_cover
def test_every_value_in_every_file_arrives_exactly_or_is_refused_by_key() -> None:
    arrived = 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, ".env")

        def read(text: str, readers: list[str]) -> list[dict[str, str]]:
            result = []
            for reader in readers:
                path.write_bytes(dotenv.content_of(text))
                result.append(REAL[reader][0](path, env_texts.NAMES))
            return result

        @env_texts.examples(250)
        @given(env_texts.texts(), st.one_of(st.just("40"), env_texts.values), READERS)
        def holds(text: str, value: str, readers: list[str]) -> None:
            nonlocal arrived
            edit = dotenv.set_keys(text, {"K": value}, readers=readers)
            if edit.problems:
                assert edit.text == text
                assert "K: " in edit.problems[0] or "NUL" in edit.problems[0]
                return
            arrived += 1
            for before, after in zip(read(text, readers), read(edit.text, readers)):
                assert after.pop("K", None) == value, f"{text!r} -> {edit.text!r}"
                before.pop("K", None)
                if "K" not in text.replace("K=", ""):  # nothing else is made of K
                    assert before == after, f"{text!r} -> {edit.text!r}"
            again = dotenv.set_keys(edit.text, {"K": value}, readers=readers)
            assert again == dotenv.Edit(edit.text, notes=edit.notes)

        holds()
    assert arrived > 50, "hardly anything is accepted"


GOING_ON = [
    "K=1\\\nword\n", "K=1\\\nword x\nK=2\n", "K=1\\\neval word\n", "A=x\\\nword\nK=1\n", "A=x\\", "K=1\\",
    "K=1\\\nexport word\n", "K=1\\\nA=2 word\n", "K='1'\\\nword;word\n",
]  # fmt: skip


@pytest.mark.no_cover
def test_no_edit_makes_bash_run_a_word_that_it_did_not_run() -> None:
    going_on = st.lists(st.sampled_from(["K=1\\", "A=x\\", "word", "K=2", "a b", "K= 9", "eval word"]), max_size=5)
    edited = 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, ".env")

        @env_texts.examples(150)
        @given(st.one_of(st.sampled_from(GOING_ON), going_on.map("\n".join), env_texts.texts()), st.booleans())
        def holds(text: str, removes: bool) -> None:
            nonlocal edited
            edit = dotenv.set_keys(text, {} if removes else {"K": "40"}, "K" if removes else (), READERS_OF_BOTH)
            assert all(problem.startswith("K: ") for problem in edit.problems)
            edited += edit.text != text
            runs = []
            for each in (text, edit.text):
                path.write_bytes(dotenv.content_of(each))
                runs.append([re.sub(r"\d+", "0", word) for word in real_readers.bash_runs(path)])  # $$ is a new one
            assert set(runs[1]) <= set(runs[0]), f"{text!r} -> {edit.text!r}"

        holds()
    assert edited > 50


@pytest.mark.no_cover
def test_lines_of_others_stay_byte_for_byte() -> None:
    @env_texts.examples(250)
    @given(env_texts.texts().map(lambda text: re.sub(r"['\"\\]", "", text)), READERS)  # no value over several lines
    def holds(text: str, readers: list[str]) -> None:
        edit = dotenv.set_keys(text, {"K": "40"}, readers=readers)
        left = iter(re.findall(r"[^\n]*\n", edit.text))
        for line in re.findall(r"[^\n]*\n", text):
            if "K" not in line:
                assert any(line == kept for kept in left), f"{line!r} of {text!r} -> {edit.text!r}"

    holds()


def test_a_text_that_is_too_large_is_not_edited_and_not_shown() -> None:
    text = "A=1\n" * (dotenv.MOST_BYTES // 4) + "K=s3cret\n"
    assert dotenv.set_keys(text, {"K": "2"}) == dotenv.Edit(text, problems=[dotenv.TOO_LARGE])
    assert dotenv.masked(text, ["A"]) == f"{dotenv.MASK} ({dotenv.TOO_LARGE})"
    assert dotenv.get_keys(text, ["K"]) == {"K": None}


def test_a_key_that_stands_in_too_many_lines_is_not_taken_out() -> None:
    few, many = "K=1\n" * dotenv.MOST_LINES_OF_A_KEY, "K=1\n" * (dotenv.MOST_LINES_OF_A_KEY + 1)
    assert dotenv.set_keys(few + "A=1\n", {}, ["K"]).text == "A=1\n"
    edit = dotenv.set_keys(many, {}, ["K"])
    assert edit == dotenv.Edit(many, problems=["K: it stands in more than 20 lines; take them out by hand"])


def test_not_every_overruled_line_is_noted() -> None:
    notes = dotenv.set_keys("K=1\n" * 100, {"K": "2"}).notes
    assert (len(notes), notes[-1]) == (11, "K: line 100 wins over 89 more lines")

"""What an env file goes back to: ours as it was, everybody else's as it is now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.dotenv_readers import readings
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import take_back, what_is_ours
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import KeysOfFile
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text import env_texts
from hypothesis import given
from hypothesis import strategies as st

READERS = ["python-dotenv", "bash", "systemd"]
ENV: KeysOfFile = {"keys": ["K", "NEW"], "readers": READERS, "values": {"K": ["40"], "NEW": ["1"]}}


def state(content: bytes | None) -> tuple[dict[str, Any], bytes]:
    if content is None:
        return {"path": "/x/.env", "kind": "absent", "parent_absent": False}, b""
    return {"path": "/x/.env", "kind": "file", "sha256": str(hash(content)), "mtime_ns": 1}, content


HEADER = b"# Profile stable of selo.gpu_memory, from the inventory. The backend reads .env.\n"
ROLE = Path(__file__).parents[6] / "roles" / "backend"
CASES: dict[str, tuple[bytes | None, bytes | None, bytes | None]] = {
    # now, kept, goal
    "only ours was changed": (b"A=1\nK='40'\nNEW=1\n", b"A=1\nK='9'\n", b"A=1\nK='9'\n"),
    "somebody has written since": (b"A=2\nK=40\nB=3\nNEW=1\n", b"A=1\nK=9\n", b"A=2\nK=9\nB=3\n"),
    "nothing was changed": (b"A=1\nK=9\n", b"A=1\nK=9\n", b"A=1\nK=9\n"),
    "a line that only bash understands": (
        b"source x.env\nK=40\nB=3\nNEW=1\n",
        b"A=1\nK=9\n",
        b"source x.env\nK=9\nB=3\n",
    ),
    "a line that bash does not": (b"MSG=it's\nK=40\nB=3\n", b"K=9\n", b"MSG=it's\nK=9\nB=3\n"),
    "a command in a file that was made by us": (b"A=`hostname`\nK=40\nB=3\n", None, b"A=`hostname`\nB=3\n"),
    "a quote that is not closed": (
        b'A=1\nMSG="hello\nK=40\nB="3"\nNEW=1\n',
        b"A=1\nK=9\n",
        b'A=1\nMSG="hello\nK=9\nB="3"\n',
    ),
    "a quote that is not closed, in a file that was made by us": (
        b'MSG="hello\nK=40\nB="3"\nNEW=1\n',
        None,
        b'MSG="hello\nB="3"\n',
    ),
    "a line that was ours before already": (
        b'MSG="hello\nK=40\nB="3"\n',
        b"K=40\n",
        b'MSG="hello\nK=40\nB="3"\n',
    ),
    "what our lines were is back already": (
        b'MSG="hello\nK=9\nB="3"\n',
        b"K=9\n",
        b'MSG="hello\nK=9\nB="3"\n',
    ),
    "the owner's spacing and comment, above a quote that is not closed": (
        b'export K=40 # mine\nK=40\nMSG="hello\nB="3"\n',
        b"export K=9 # mine\n",
        b'export K=9 # mine\nMSG="hello\nB="3"\n',
    ),
    "lines that end as on Windows": (
        b'A=1\r\nMSG="hello\r\nK=40\r\nB="3"\r\n',
        b"A=1\r\nK=9\r\n",
        b'A=1\r\nMSG="hello\r\nK=9\r\nB="3"\r\n',
    ),
    "another value than ours, where one was computed": (b"K=50\nB=3\n", b"K=$(nproc)\n", b"K=$(nproc)\nB=3\n"),
    "none where one was computed": (b"B=3", b"K=$(nproc)\n", b"B=3\nK=$(nproc)\n"),
    "a value that begins as ours": (b"K=40\nB=3\n", b"K=4\n", b"K=4\nB=3\n"),
    "a value that is computed": (b"K=40\nB=3\n", b"K=$(nproc)\n", b"K=$(nproc)\nB=3\n"),
    "a value of several lines": (b'K="40"\nB=3\n', b'K="a\nb"\n', b'K="a\nb"\nB=3\n'),
    "our line in what somebody quotes": (
        b'NOTE="was\nK=40\n"\nK=40\nNEW=1\n',
        b"K=9\n",
        b'NOTE="was\nK=40\n"\nK=9\n',
    ),
    "NUL bytes among the lines": (b"A=1\nK=40\nB=3\0\n", b"A=1\nK=9\n", b"A=1\nK=9\nB=3\0\n"),
    "nothing but NUL bytes": (b"\0\0\0", b"A=1\nK=9\n", b"A=1\nK=9\n"),
    "somebody has emptied it": (b"", b"A=1\nK=9\n", b"K=9\n"),
    "the file was made by us": (b"K=40\nNEW=1\n", None, None),
    "the file was made by us, and somebody uses it": (b"K=40\nB=3\n", None, b"B=3\n"),
    "the file was made by us, and somebody has noted something in it": (b"# mine\nK=40\n", None, b"# mine\n"),
    "a profile's own file": (HEADER + b"K=40\nNEW=1\n", None, None),
    "a profile's own file that somebody uses": (HEADER + b"# mine\nK=40\n", None, HEADER + b"# mine\n"),
}


@pytest.mark.parametrize(("now", "kept", "goal"), CASES.values(), ids=CASES)
def test_our_keys_go_back_and_the_others_stay(now: bytes | None, kept: bytes | None, goal: bytes | None) -> None:
    found, content, problems = take_back.goal(state(now), state(kept), ENV)
    assert (found["kind"], content, problems) == (("absent", b"", []) if goal is None else ("file", goal, []))
    if goal == kept and kept is not None:
        assert found["mtime_ns"] == 1  # the very file, time included
    again = take_back.goal(state(goal), state(kept), ENV)
    assert goal is None or again[1:] == (goal, [])


STAY: dict[str, tuple[bytes, bytes | None, bytes, str]] = {
    # now, kept, goal, what stays
    "another value than ours, in a quote that is not closed": (
        b"MSG='hello\nK=50\nNEW=1\n",
        b"K=9\n",
        b"MSG='hello\nK=50\n",
        "K: bash: from line 1 on it is shell code that bash runs or rejects; systemd: the quote that opens in line 1",
    ),
    "another value than ours beside something else, where one was computed": (
        b"K=50; B=3\n",
        b"K=$(nproc)\n",
        b"K=50; B=3\n",
        "K: its line was changed since, beside something else",
    ),
}


@pytest.mark.parametrize(("now", "kept", "goal", "stays"), STAY.values(), ids=STAY)
def test_what_cannot_be_told_from_the_owners_stays_and_is_named(
    now: bytes, kept: bytes | None, goal: bytes, stays: str
) -> None:
    _unused, content, (problem,) = take_back.goal(state(now), state(kept), {**ENV, "readers": ["bash", "systemd"]})
    assert content == goal
    assert problem.startswith(stays)


def test_the_header_of_a_profiles_own_file_is_that_of_its_template() -> None:
    template = (ROLE / "templates" / "profile.env.j2").read_text().splitlines()[0]
    assert template.replace("{{ backend_env_file.profile }}", "stable") == HEADER.decode().rstrip()


@pytest.mark.parametrize(
    ("now", "goal"),
    [
        (HEADER + b"K=40\nNEW=1\n", None),
        (HEADER + b"# mine\nK=40\nNEW=1\n", HEADER + b"# mine\n"),
        (HEADER + b"K=40\nNEW=1\nTHEIRS=1\n", HEADER + b"THEIRS=1\n"),
        (b"K=40\n", None),  # without our header: any file that was not there
    ],
)
def test_what_an_owner_wrote_into_a_profiles_own_file_of_an_older_release_stays(
    tmp_path: Path, now: bytes, goal: bytes | None
) -> None:
    own, env = tmp_path / ".env.stable-16gb", tmp_path / ".env"
    own.write_bytes(now)
    env.write_bytes(b"K=40\nNEW=1\n")
    manifest: Any = {
        "files": [
            {"path": str(own), "kind": "absent", "parent_absent": False},
            {"path": str(env), "kind": "file", "sha256": "of env", "mtime_ns": 1},
        ],
        "env": {str(env): {"keys": ["K", "NEW"], "readers": READERS}},  # as an older release has kept it
    }
    way = take_back.way_back(manifest, {"of env": b"K=9\n"}, [manifest])
    states = {state["path"]: state for state in way.states}
    back = states[str(own)]
    assert (None if back["kind"] == "absent" else way.contents[back["sha256"]]) == goal
    assert (way.env_files, way.lost) == ([str(env)], [])  # nobody reads the other one, so nothing restarts for it


DROP_IN = "ollama.service.d/zz-gpu-memory.conf"


def kept_drop_in(path: Path, env: dict[str, Any] | None) -> Any:
    return {
        "files": [{"path": str(path), "kind": "absent", "parent_absent": False}],
        **({"env": {str(path): env}} if env else {}),
    }


@pytest.mark.parametrize(
    ("env", "line", "is_ours"),
    [
        ({"keys": ["OLLAMA_NUM_PARALLEL"], "readers": []}, 'Environment="OLLAMA_NUM_PARALLEL=4"', True),
        ({"keys": ["OLLAMA_NUM_PARALLEL"], "readers": []}, "Environment=OLLAMA_NUM_PARALLEL=4", True),
        # A variable that this collection could have set, and has not.
        ({"keys": ["OLLAMA_NUM_PARALLEL"], "readers": []}, 'Environment="OLLAMA_FLASH_ATTENTION=1"', False),
        (None, 'Environment="OLLAMA_FLASH_ATTENTION=1"', True),  # an older release has not kept what it has set
        (None, "Environment=OLLAMA_FLASH_ATTENTION=1", False),  # and would not write so
        (None, 'Environment="HTTPS_PROXY=http://proxy"', False),
    ],
)
def test_what_we_have_not_set_in_our_drop_in_is_the_owners_at_an_apply_as_at_a_rollback(
    tmp_path: Path, env: dict[str, Any] | None, line: str, is_ours: bool
) -> None:
    path = tmp_path / DROP_IN
    path.parent.mkdir()
    path.write_text(unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}) + f"{line}\n")
    manifest = kept_drop_in(path, env)
    way = take_back.way_back(manifest, {}, [manifest])
    (back,) = way.states
    content = way.contents.get(back.get("sha256", "")) or b""
    assert (back["kind"], content.decode()) == (("absent", "") if is_ours else ("file", f"[Service]\n{line}\n"))
    own = what_is_ours.variables_of([manifest], str(path), path.read_text())
    assert bool(unit_text.foreign(path.read_text(), own)) != is_ours


# Whatever an owner's file is ------------------------------------------------------------------------------------------

PRESETS = [READERS, ["python-dotenv"], ["systemd"], ["bash"], ["docker"], ["systemd", "python-dotenv"]]
OUR = "4077"  # stands in nothing else
ODD = [
    *env_texts.LINES, 'MSG="hello', 'B="3"', "it's", "# mine", "source x.env", "K2=40", "C=`date`", "D=1 \\", "E='",
    'K="8192',
    'X="', "API_KEY=x", "K=41", f"K={OUR}", f"K={OUR} # mine", "Y='z\\'", "Z=1\\",
]  # fmt: skip
odd_lines = st.lists(st.sampled_from(ODD), max_size=7)


def of_others(text: str, reader: str) -> list[list[tuple[str, str | None, bool]]]:
    """What each family of a reader's versions takes for others' keys, and whether our line is a part of the value."""
    return [
        [(one.key, one.value, OUR in text[one.start : one.end]) for one in reading.assignments if one.key != "K"]
        for reading in readings(text, reader)
    ]


def is_as_before(before: str, after: str, reader: str) -> bool:
    """Whether every key of others has its value, but for one that our line was a part of."""
    for was, now in zip(of_others(before, reader), of_others(after, reader)):
        if len(was) != len(now) or any(
            one[0] != other[0] or one[1] != other[1] and not one[2] for one, other in zip(was, now)
        ):
            return False
    return True


def lines_of_others(text: str) -> list[str]:
    """The lines that set somebody else's key, but for those that set ours as well."""
    return [line for line in dotenv.lines_setting_others(text, "K") if "K" not in line]


def test_no_other_key_changes_for_any_reader_by_an_apply_and_a_rollback() -> None:
    applied = 0

    @env_texts.examples(150)
    @given(
        odd_lines,
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from(ODD)), max_size=3),
        st.sampled_from(PRESETS),
    )
    def holds(before: list[str], since: list[tuple[int, str]], readers: list[str]) -> None:
        nonlocal applied
        text = "".join(f"{line}\n" for line in before)
        edit = dotenv.set_keys(text, {"K": OUR}, (), readers)
        if edit.problems:
            assert edit.text == text
            assert all(problem.startswith("K: ") for problem in edit.problems)
            return
        applied += 1
        lines = edit.text.split("\n")
        for place, line in since:
            lines.insert(min(place, len(lines)), line)
        owned = "\n".join(lines)
        env: KeysOfFile = {"keys": ["K"], "readers": readers, "values": {"K": [OUR]}}
        _unused, content, problems = take_back.goal(state(owned.encode()), state(text.encode()), env)
        back = content.decode()
        assert all(problem.startswith("K: ") for problem in problems)
        for one, other in ((text, edit.text), (owned, back)):
            assert lines_of_others(other) == lines_of_others(one)
            for reader in readers:
                assert is_as_before(one, other, reader), f"{reader}: {one!r} -> {other!r}"
        if not since:
            assert (back, problems) == (text, [])

    holds()
    assert applied > 40


@pytest.mark.parametrize(("name", "is_lost"), [("gpu-memory.env", True), ("zz-gpu-memory.conf", False)])
def test_a_directory_of_the_owners_is_not_made_again(tmp_path: Path, name: str, is_lost: bool) -> None:
    path = str(tmp_path / "gone.d" / name)
    kept = {"path": path, "kind": "file", "sha256": "x", "mtime_ns": 1}
    way = take_back.way_back({"id": "0001", "files": [kept]}, {"x": b"A=1\n"}, [])  # type: ignore[typeddict-item]
    assert bool(way.lost) == is_lost

"""Keys of an env file go back by the lines that were written; `host.keep.test_take_back` has the cases by name."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, env_lines
from hypothesis import given
from hypothesis import strategies as st

READERS = ["python-dotenv", "bash", "systemd"]
OURS = {"K": ["40"], "NEW": ["a b"]}
BEFORE = ["A=1", "K=9", "K='9'", "K=4", "K=$(nproc)", "# K=40", "export K=9 # mine", ""]
SINCE = ['MSG="hello', 'B="3"', "it's", "# mine", "source x.env", "K2=40", "C=`date`", "", "D=1 \\", "E='", "\0", "é=1"]


def is_within(lines: Sequence[str], all_lines: Sequence[str]) -> bool:
    """Whether lines stand among others, in their order."""
    rest = iter(all_lines)
    return all(line in rest for line in lines)


@given(
    st.lists(st.sampled_from(BEFORE), max_size=4),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(SINCE)), max_size=4),
    st.booleans(),
)
def test_no_line_of_an_owner_is_lost_and_none_of_ours_stays(
    before: list[str], since: list[tuple[int, str]], ends: bool
) -> None:
    text = "\n".join(before) + ("\n" if ends and before else "")
    written = dotenv.set_keys(text, {key: values[0] for key, values in OURS.items()}, (), READERS)
    assert not written.problems
    lines = written.text.split("\n")
    for place, line in since:
        lines.insert(min(place, len(lines)), f"{line}")
    back = env_lines.taken_back("\n".join(lines), text, OURS, READERS)
    found = back.text.split("\n")
    owners = [line for line in lines if line not in written.text.split("\n") or line in before]
    assert is_within(owners, found)
    if not back.problems:
        assert is_within(before, found)
        assert "NEW='a b'" not in found
        assert "K=40" not in found
    assert env_lines.taken_back(back.text, text, OURS, READERS).text == back.text


def test_in_a_file_that_has_become_too_large_our_own_lines_go_and_no_others() -> None:
    rest = "# noise\n" * (dotenv.MOST_BYTES // 8)
    back = env_lines.taken_back(f"K=40\n{rest}", "K=9\n", {"K": ["40"]}, READERS)
    assert (back.text, back.problems) == (f"K=9\n{rest}", [])
    theirs = f"K=41\n{rest}"
    back = env_lines.taken_back(theirs, "K=9\n", {"K": ["40"]}, READERS)
    assert (back.text, back.problems) == (theirs, [f"K: {dotenv.TOO_LARGE}"])

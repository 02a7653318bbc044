"""Random `.env` files and values for property tests: what people write, what goes wrong, and noise."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st

NAMES = ["K", "A", "B", "Z"]
LINES = [
    "A=1", "export B='x y'", "# c=d", "", "A=a b", "Z=http://h/?a=1&b=2", 'B="m\nn"', "A='u", "K=1", "K=2 # all", "K=",
    'export K="3"', "K = 4", "  K='5'", "K", "export K", "Z=${K}", "A=$(x)", "A=1 B=2 K=3", "noise", "no ise=1",
    "A=x\\", "# x \\", 'B="q\\"r"', "Z='s\\'t'", "set -a", "unset K", "K+=1", "if a; then", "fi", "K='7';A=2",
    "K= # none", "K=~", "A=a:~/b", "export A={a,b}", "K=1 && A=2", "A=1 &", "UID=7", "export 'K=8'",
]  # fmt: skip
ATOMS = [
    "K=", "A=", "export ", "K", "40", " ", "\t", "\n", "\r\n", "'", '"', "\\", "#", " #", "$", "${K}", "$A", "`", "~",
    ":", "=", "a", "\\\n", "\ufeff", ";", "&", "|", "&&", "(", ")", "é", "{a,b}", "!", "%", "K+=", "K[0]=", "$(a)",
    "$'", "[", "]", "\u00a0", "\x85", "\u2028", '$"', "\\'", '\\"', "\x0b", "\udcff",
]  # fmt: skip
CHARACTERS = list("ab1 '\"\\$`#~:={},!*%(;&<-/é\u00a0\u2028") + ["${A}", "$a", "\\n"]

values = st.lists(st.sampled_from(CHARACTERS), max_size=7).map("".join)


@st.composite
def texts(draw: st.DrawFn) -> str:
    lines = draw(st.lists(st.sampled_from(LINES), max_size=7))
    text = "".join(line + "\n" for line in lines)
    noise = "".join(draw(st.lists(st.sampled_from(ATOMS), max_size=draw(st.sampled_from([0, 0, 1, 8])))))
    at = draw(st.integers(0, len(text)))
    text = text[:at] + noise + text[at:]
    if draw(st.sampled_from([False, False, False, True])):
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    if draw(st.sampled_from([False, False, False, True])):
        text = text.rstrip("\r\n")
    return draw(st.sampled_from(["", "", "", "\ufeff"])) + text


def examples(number: int) -> settings:
    """The same `number` of examples each time; more, and new ones, with ENV_EXAMPLES."""
    asked = os.environ.get("ENV_EXAMPLES")
    return settings(max_examples=int(asked or number), derandomize=not asked, deadline=None, database=None)

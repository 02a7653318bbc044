# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One value as programs of the world print it. Each form was taken from the program that is named."""

from __future__ import annotations

import unicodedata

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import escapes, masking

VALUE = 'pä&ss<w>=it\'s/a "x"  end'
PRINTED = {
    "Go, encoding/json": 'pä\\u0026ss\\u003cw\\u003e=it\'s/a \\"x\\"  end',
    "Gson": 'pä\\u0026ss\\u003cw\\u003e\\u003dit\\u0027s/a \\"x\\"  end',
    "PHP, json_encode": 'p\\u00e4&ss<w>=it\'s\\/a \\"x\\"  end',
    "Flask, tojson": 'p\\u00e4\\u0026ss\\u003cw\\u003e=it\\u0027s/a \\"x\\"  end',
    "Go, html.EscapeString": "pä&amp;ss&lt;w&gt;=it&#39;s/a &#34;x&#34;  end",
    "markupsafe": "pä&amp;ss&lt;w&gt;=it&#39;s/a &#34;x&#34;  end",
    "Python, html.escape": "pä&amp;ss&lt;w&gt;=it&#x27;s/a &quot;x&quot;  end",
    "Python, ascii()": 'p\\xe4&ss<w>=it\'s/a "x"  end',
    "Python, repr() of bytes": 'p\\xc3\\xa4&ss<w>=it\\\'s/a "x"  end',
    "Python, xmlcharrefreplace": 'p&#228;&ss<w>=it\'s/a "x"  end',
    "Go, strconv.QuoteToASCII": 'p\\u00e4&ss<w>=it\'s/a \\"x\\"  end',
    "bash, printf %q": 'pä\\&ss\\<w\\>=it\\\'s/a\\ \\"x\\"\\ \\ end',
    "bash, printf %q in the locale C": "$'p\\303\\244&ss<w>=it\\'s/a \"x\"  end'",
    "Python, shlex.quote": 'pä&ss<w>=it\'"\'"\'s/a "x"  end',
    "Python, urllib.parse.quote": "p%C3%A4%26ss%3Cw%3E%3Dit%27s/a%20%22x%22%20%20end",
    "JavaScript, encodeURIComponent": "p%C3%A4%26ss%3Cw%3E%3Dit's%2Fa%20%22x%22%20%20end",
    "JavaScript, that twice": "p%25C3%25A4%2526ss%253Cw%253E%253Dit's%252Fa%2520%2522x%2522%2520%2520end",
    "JSON of Go inside JSON": 'pä\\\\u0026ss\\\\u003cw\\\\u003e=it\'s/a \\\\\\"x\\\\\\"  end',
    "blanks made one": 'pä&ss<w>=it\'s/a "x" end',
    "a line of its own": 'pä&ss<w>=it\'s/a "x"\n end',
}


@pytest.mark.parametrize("program", PRINTED)
def test_a_known_value_is_masked_as_a_program_prints_it(program: str) -> None:
    shown = masking.without_secrets(f"upstream said: {PRINTED[program]} | 500 of 4096", {VALUE})
    assert shown.replace(f"$'{masking.MASK}'", masking.MASK) == f"upstream said: {masking.MASK} | 500 of 4096"


def test_what_was_cut_off_in_the_middle_of_an_escape_is_masked() -> None:
    for cut in ("said: pä\\u0026ss\\u003cw\\u00…", "said: pä\\u0026ss\\u003cw\\…", "said: pä&amp;ss&lt;w&g…"):
        assert masking.without_secrets(cut, {VALUE}) == f"said: {masking.MASK}…"


@pytest.mark.parametrize(
    "printed",
    [
        "PÄSS&W<Ö>RD 7",
        "päss&w<ö>rd 7",
        unicodedata.normalize("NFD", "Päss&w<Ö>rd 7"),
        "Päss&w<Ö>rd 7".encode().decode("latin-1"),
        "P=C3=A4ss&w<=C3=96>rd 7",
        "Päss&w<Ö>rd 7".encode().hex(":"),
        "Päss&w<Ö>rd 7".encode().hex(" ").upper(),
        str(list("Päss&w<Ö>rd 7".encode()))[1:-1],
    ],
)
def test_a_known_value_is_masked_in_another_case_form_or_base(printed: str) -> None:
    assert masking.without_secrets(f"it said {printed}, twice", {"Päss&w<Ö>rd 7"}) == f"it said {masking.MASK}, twice"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\\ud83d\\ude00", "\U0001f600"),
        ("%E2%82%AC and %e4", "€ and ä"),
        ("\\342\\202\\254", "€"),
        ("a\\nb\\tc", "a b c"),
        ("\\u{1F600}\\u{e4} %u00E4%u20AC \\u{ffffff}", "\U0001f600ä ä€ \U0010ffff"),
        ("in \x1b[1;31mred\x1b[0m", "in red"),
        ("100% & more \\", "100% & more"),
        ("&unknown; \\9x &amp;amp;lt;", "&unknown; \\9x <"),
    ],
)
def test_what_an_escape_says(text: str, says: str) -> None:
    assert escapes.unescaped(text) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (r"a\"b\\c", r'a"b\c'),
        (r"\054\3777", ",\xff7"),
        (r"sword\nfish", "swordnfish"),  # of JSON it would be two words
        (r"pass\9\56word", "pass956word"),  # no number of a character
        ("a\\\u00b2", "a\u00b2"),  # a digit to Python
        ("a\\", "a\\"),
    ],
)
def test_what_a_quoted_string_of_a_header_says(text: str, says: str) -> None:
    assert escapes.of_quoted_string(text) == says


def test_a_text_without_a_known_value_stays_as_it_is() -> None:
    for text in ("a  path C:\\new\\x41 100%25 &amp; more", "ends in \\"):
        assert masking.without_secrets(text, {VALUE}) == text


def test_a_value_that_looks_like_an_escape_itself_is_found_plain_and_escaped() -> None:
    for printed in ("50%25off\\u0041!", "50%2525off%5Cu0041!"):
        assert masking.MASK in masking.without_secrets(f"it was {printed}", {"50%25off\\u0041!"})

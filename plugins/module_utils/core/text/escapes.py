# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A text without the escapes that programs write: of JSON as each language has it, C, a shell, URLs, HTML, a terminal.

Pure.
"""

from __future__ import annotations

import html
import re
import sys

MOST_LEVELS = 3  # of escapes inside escapes
CUT = "…"  # where a text was cut off
_ESCAPE = re.compile(
    r"(?:\\u[0-9a-f]{4})+|\\u\{[0-9a-f]{1,6}\}|(?:%u[0-9a-f]{4})+"
    r"|(?:\\x[0-9a-f]{2})+|(?:\\[0-3][0-7]{2})+|\\[^ux\d]|(?:%[0-9a-f]{2})+"
    r"|&(?:\#\d{1,7}|\#x[0-9a-f]{1,6}|amp|lt|gt|quot|apos|nbsp);",
    re.I | re.S,
)
_COLOUR = re.compile(r"\x1b\[[\d;]{0,32}m")
_OF_QUOTED_STRING = re.compile(r"\\([0-3][0-7]{2}|.)", re.S)
_HALF = re.compile(rf"(?:\\[ux]?[0-9a-f]{{0,3}}|%[0-9a-f]?|&\#?\w{{0,6}})(?={CUT}|\Z)", re.I)
_BLANK = dict.fromkeys("nrtfv", " ")


def unescaped(text: str) -> str:
    """What a text says, as one line with single blanks; half an escape at its end, or before a cut, is left out."""
    text = _COLOUR.sub("", text)
    for _level in range(MOST_LEVELS):
        plain = _ESCAPE.sub(_said, text)
        if plain == text:
            break
        text = plain
    return " ".join(_HALF.sub("", text).split())


def of_quoted_string(text: str) -> str:
    """What a quoted string of a header or a cookie says: `\\"`, or a character's number as `\\054`.

    Not as `unescaped` has it: there an escape is no more than the character after it, so that `\\n` says n, and once.
    """
    return _OF_QUOTED_STRING.sub(lambda one: chr(int(one[1], 8)) if len(one[1]) == 3 else one[1], text)


def _said(found: re.Match[str]) -> str:
    escape = found[0]
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[1:3] in ("u{", "U{"):
        return chr(min(int(escape[3:-1], 16), sys.maxunicode))
    if escape[1] in "uU":
        return _bytes(escape, 6).decode("utf-16-be", "replace")
    if escape[0] == "%":
        return _text(_bytes(escape, 3))
    if len(escape) == 2:
        return _BLANK.get(escape[1], escape[1])
    if escape[1] in "xX":
        return _text(_bytes(escape, 4))
    return _text(bytes(int(octal, 8) for octal in escape.split("\\")[1:]))


def _bytes(escapes: str, each: int) -> bytes:
    """What a run of escapes stands for: of `each` so many characters the hexadecimal digits at its end."""
    begin = 1 if each == 3 else 2
    return bytes.fromhex("".join(escapes[at + begin : at + each] for at in range(0, len(escapes), each)))


def _text(content: bytes) -> str:
    """Bytes of UTF-8; else each is a character, as in a locale of ASCII."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")

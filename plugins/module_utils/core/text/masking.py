# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a text that somebody else wrote (a journal's line, a server's answer, a command line) may be shown.

Two nets, one under the other: the values that a host is known to keep in its env files, units and processes are
masked wherever they occur, and so is whatever has the look of a credential. Pure.

A line of a journal may be a megabyte of anything: every expression here reads each character a bounded number of times.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import html
import itertools
import json
import quopri
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote, quote_plus, unquote, urlsplit

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import (
    credentials,
    dotenv,
    dotenv_readers,
    escapes,
)

MASK = dotenv.MASK
LONG = 65536  # what is longer is no password: it is masked as it is, and not searched
MOST_KNOWN = 10_000  # values that a text is searched for; on a host that keeps more no text of others is shown
CUT = escapes.CUT
MOST_CUTS = 20
MOST_OF_AN_END = 300  # characters before a cut
BEGINNING = credentials.LEAST_OF_A_CREDENTIAL  # characters by which a known value is looked for
MOST_WORDS = 1000  # of a command line that is shown
LONGEST_COMMAND = dotenv.MOST_BYTES  # none is longer; of what is, each further word is taken for a secret
LONGEST_NAME = 256  # of a variable; nothing ordinary has a longer one
MOST_ESCAPES = 3  # of JSON inside JSON
MOST_LEVELS = 3  # of commands inside commands: `sh -c "sh -c '…'"`

# The name of a variable, flag or key that may say credential, and what stands between it and the value. A word is
# taken whole (the group of a lookahead is not tried again), and only from its beginning.
_NAMED = re.compile(
    rf"""(?<![\w.-])(?=[\w.-])(?=[\w.-]*?(?:{credentials.PERHAPS}))(?=([\w.-]+))\1"""
    r"""(\\?["']?\s{0,8}(?:=>|:=|[=:])\s{0,8}|["'],\s{0,8}(?=["'])|[ \t]{1,8})""",
    re.I,
)
# What is said of a credential, and what follows a count of tokens.
_TOLD = {
    "required", "missing", "invalid", "expired", "incorrect", "denied", "unknown", "unset", "empty", "wrong", "revoked",
    "rejected", "malformed",
}  # fmt: skip
_COUNTED = re.compile(r" ?(?:tokens?\b|/ ?\d|of \d|per )")
# llama.cpp: `EOS token = 128009`.
LONGEST_WORD_BEFORE = 8
_WORD_BEFORE = re.compile(rf"(?<![\w-])({'|'.join(sorted(credentials.OF_TOKENS))})[ _]\Z", re.I)
_VALUE = re.compile(
    r"""\\(["'])(.*?)\\\1|"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)'|["'](.*)|([^\s,;&)}\]]+)""",
)
# A short value, or one of digits, is a whole word: it is no piece of a longer word or figure.
_DIGITS = re.compile(r"[\d.]+")
_BEGINS_ALONE, _ENDS_ALONE = re.compile(r"(?<![A-Za-z0-9])(?<!\d\.)"), re.compile(r"(?![A-Za-z0-9]|\.\d)")
# Beginnings of the tokens of well-known services.
_TOKENS = (
    "hf_", "sk-", "sk_", "pk_", "rk_", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "glpat-", "xoxa-",
    "xoxb-", "xoxe-", "xoxp-", "xoxr-", "xoxs-", "xapp-", "npm_", "pypi-", "gsk_", "r8_", "nvapi-", "dop_v1_", "tskey-",
    "hvb.", "hvs.", "whsec_", "ya29.", "aiza", "eyj",
)  # fmt: skip
_WORD = r"""(?:"[^"\n]*"?|'[^'\n]*'?|\S+)"""  # of a shell
# What a text must hold for a look to be tried, the look, and what is shown instead.
_LOOKS = (
    # systemd quotes what it does not understand of a unit's file.
    (
        ("ignoring: ", "correcting: ", "escape sequences: "),
        r"(?<!\w)((?:ignoring|correcting|escape sequences): ).+",
        rf"\1{MASK}",
    ),
    (("-----begin",), r"(-----BEGIN [\w ]{1,64}-----)(?:[^-]|-(?!----END))*", rf"\1{MASK}"),
    # A line of a PEM file by itself.
    (("",), r"(?<![^\s\"'])(?!/)[a-z0-9+/]{64}(?![^\s\"'\\])", MASK),
    (("cookie",), r"\b((?:set-)?cookie\\?[\"']?\s{0,8}[=:]\s{0,8}\\?[\"']?)[^\"'\n]+", rf"\1{MASK}"),
    (
        ("bearer", "basic"),
        r"\b(bearer|basic)\s{1,8}(?!(?:auth|authentication|tokens?)\b)[^\s\"',;]+",
        rf"\1 {MASK}",
    ),
    (
        ("authorization",),
        r"\b(authorization\\?[\"']?\s{0,8}[=:]\s{0,8}\\?[\"']?)"
        r"(?:digest[ \t].+|(?:\w{1,64}[ \t]{1,8})?[^\s\"',;]+)",
        rf"\1{MASK}",
    ),
    # Of a registry in a file of Docker's; elsewhere it is a word such as `none`.
    (("auth",), r"(\"auth\\?\"\s{0,8}:\s{0,8}\\?\")(?![a-z]{1,32}\\?\")[^\"\s\\]+", rf"\1{MASK}"),
    # A user and a password without a scheme, as proxies and curl -u have it. A model's digest stands after an @ too.
    (("@",), r"(?<![\w.%+@:/-])(?=([\w.%+-]+))\1:[^\s:@/\"']{1,256}@(?!sha256)", f"{MASK}@"),
    (
        ("-u",),
        r"(?<!\S)(-u[ \t]{0,8}|--(?:proxy-)?user[ =])(?=([^\s:\"']+))\2:(?!\d{1,10}(?!\S))\S+",
        rf"\1\2:{MASK}",
    ),
    # Elsewhere -p is followed by a number, a port or a path.
    (("-p",), rf"(?<!\S)(-p[ \t]{{1,8}})(?![-/~.]|\d[\d:.,/-]*(?:tcp|udp)?(?!\S)){_WORD}", rf"\1{MASK}"),
    (("mysql", "mariadb", "sshpass"), rf"(?<!\S)((?-i:-p))(?=\S){_WORD}", rf"\1{MASK}"),
    (("redis-cli",), rf"(?<!\S)(-a[ \t]{{1,8}}){_WORD}", rf"\1{MASK}"),
    (("machine", "login"), rf"(?<!\S)(login\s{{1,8}}\S{{1,256}}\s{{1,8}}password\s{{1,8}}){_WORD}", rf"\1{MASK}"),
    # ~/.pgpass
    (
        (":",),
        r"(?<!\S)((?:\*|localhost|[a-z][\w-]{0,63}(?:\.[\w-]{1,63}){1,8}):(?:\*|\d{1,5}):[^\s:]{1,63}:[^\s:]{1,63}:)"
        r"\S+",
        rf"\1{MASK}",
    ),
    (
        ("identified", "password"),
        r"\b((?:identified\s{1,8}by|password)\s{1,8})(?:'[^'\n]*'?|\"[^\"\n]*\"?)",
        rf"\1{MASK}",
    ),
    # Between semicolons a password may have blanks.
    ((";",), r"(?<![^\s;\"'])((?:password|pwd)\s{0,8}=\s{0,8})[^;\"'\n]{1,256}(?=;)", rf"\1{MASK}"),
    # The query of a path.
    (("?",), r"\?(?=[\w.%\[\]-]{1,64}=)[^\s\"']+", f"?{MASK}"),
    (
        ("hooks.slack.com", "/webhooks/", "telegram.org/bot"),
        r"(hooks\.slack\.com/|/api/webhooks/|telegram\.org/bot)[^\s\"']+",
        rf"\1{MASK}",
    ),
    (_TOKENS, rf"(?<![a-z0-9])(?:{'|'.join(map(re.escape, _TOKENS))})[\w.~+/-]{{10,}}", MASK),
    # Long, of letters and digits: a key. GPUs and the files of models go by such names too, and those are no secrets.
    (("",), r"(?<![a-z0-9])(?<!sha256[-:])(?=[a-z0-9]*\d)(?=\d*[a-z])[a-z0-9+]{16,}={0,2}", MASK),
    (("-",), r"(?<!GPU-)(?<!MIG-)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", MASK),
)
_MASKS = [(needed, re.compile(look, re.I), masked) for needed, look, masked in _LOOKS]
_URL = re.compile(r"://[^\s\"']+")
_WORD_OF_URL = re.compile(r"://\S+")
# In a text that ends with an @. A colon is followed by a port, or by a password, in which any other character may be.
_USER_OF_URL = re.compile(
    r"""(?<=//)(?:[^/?#"']*@|(?!\[)[^/@:?#"']{0,256}:(?!\d{1,5}(?![^/?#\s"',;)}\]]))(?:[^/]|/(?!/))*@)"""
)
_SYSTEMD = re.compile(r"^(?:\S{1,4096}:\d{1,9}: |Ignoring invalid environment).*$", re.M)
_QUOTED = re.compile(r"'([^'\n]*)'")
_DIRECTIVE = re.compile(r"[A-Z][A-Za-z]{1,40}|=")  # one that systemd does not know is told, as is a section

_QUOTED_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.S)
_ESCAPED_BYTE = re.compile(r"%[0-9A-F]{2}")
_LINE_END = re.compile(r"\r?\n|\\n")
# Between pieces that may be `user:password@host`; the password may hold a comma, or end before it.
_BETWEEN_HOSTS = (re.compile(r"\s|://"), re.compile(r"[\s,;]|://"))
_ASSIGNED = re.compile(r"""(?<![\w/$.-])([A-Za-z_]\w{0,127})=(?:"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)'|([^\s"';&|()`]+))""")
# A quote that is not closed reaches to the end of the line.
_SHELL_WORD = re.compile(r"""(?:[^\s"';&|]|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?)+""")
_SAID = re.compile(r"[# \t]*(?:export[ \t]+)?([A-Za-z_][\w.-]*)=(.+)")
_ONE_ASSIGNMENT = re.compile(r"#?[ \t]*[A-Za-z_]\w{0,127}=[\w.,/+%@=-]+|#")
_ONE_WORD = re.compile(r"[\w./+-]*")  # has no parts
_BLANK, _VARIABLE = re.compile(r"\s"), re.compile(r"[A-Za-z_]\w*")
_USER_FLAG = re.compile(r"-u|--(?:proxy-)?user")
_ASKED_WITH_P = {"sshpass", "login"}  # docker, podman: the word after -p is a password; elsewhere a port, a path
_ASKED_WITHIN_P = {"sshpass", "mysql", "mysqladmin", "mysqldump", "mariadb", "mariadb-admin", "mariadb-dump"}


def without_secrets(text: str, known: Iterable[str] = ()) -> str:
    """`text` with every value of `known`, and all that looks like a credential, masked."""
    known = frozenset(known)
    if len(known) > MOST_KNOWN:
        return f"{MASK} (not shown: this host keeps more than {MOST_KNOWN} values that must not be)"
    for value in known:
        if len(value) > LONG:
            text = text.replace(value, MASK)
    if known:
        text = _without_values(text, known, _without_pieces)
    text = _SYSTEMD.sub(lambda line: _QUOTED.sub(_quoted, line[0]), text)
    text = _WORD_OF_URL.sub(lambda word: _without_user(word[0]), text)
    text = _URL.sub(lambda url: _without_query(url[0]), text)
    lower = text.lower()
    for needed, look, masked in _MASKS:
        if any(part in lower for part in needed):
            text = look.sub(masked, text)
    return _without_named(text) if credentials.may_say_credential(lower) else text


def without_known(text: str, known: Iterable[str]) -> str:
    """`text` with these values masked, and nothing else."""
    return _without_values(text, frozenset(known), _without_forms)


def _without_values(text: str, known: frozenset[str], masked: Callable[[str, frozenset[str]], str]) -> str:
    """`text` without these values, however they are escaped: where one was, the whole text is shown without escapes."""
    shown = masked(text, known)
    plain, values = escapes.unescaped(shown), _unescaped_values(known)
    if plain == shown and values <= known:
        return shown
    masked_plain = masked(plain, values)
    return shown if masked_plain == plain else masked_plain


@functools.lru_cache(maxsize=4)
def _unescaped_values(known: frozenset[str]) -> frozenset[str]:
    return frozenset(filter(None, (escapes.unescaped(value) for value in known if len(value) <= LONG)))


def _without_pieces(text: str, known: frozenset[str]) -> str:
    """`text` without these values, and without their beginnings where it was cut off."""
    *cut, last = _without_forms(text, known).split(CUT, MOST_CUTS)
    cut = [_without_short_beginning(_without_beginning(piece, known), known) for piece in cut]
    return CUT.join([*cut, _without_beginning(last, known)])


def _without_forms(text: str, known: frozenset[str]) -> str:
    """`text` without these values however they are printed; of two that share a piece of it nothing stays."""
    shown, shown_to = [], 0
    for begin, end in sorted(_places(text, known)):
        if begin >= shown_to:
            shown += [text[shown_to:begin], MASK]
        shown_to = max(shown_to, end)
    return "".join([*shown, text[shown_to:]])


def _places(text: str, known: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Where forms of these values stand; the text is gone through once, however many there are."""
    begun, short = _by_beginning(known)
    for form in short:
        at = text.find(form)
        while at >= 0:
            if _stands(text, form, at):
                yield at, at + len(form)
            at = text.find(form, at + 1)
    for at in range(len(text) - BEGINNING + 1):
        for length, forms in begun.get(text[at : at + BEGINNING], ()):
            form = text[at : at + length]
            if form in forms and _stands(text, form, at):
                yield at, at + length


def _stands(text: str, form: str, at: int) -> bool:
    """Whether a form is there, and is no piece of something else."""
    if len(form) >= credentials.LEAST and not _DIGITS.fullmatch(form):
        return True
    return bool(_BEGINS_ALONE.match(text, at) and _ENDS_ALONE.match(text, at + len(form)))


@functools.lru_cache(maxsize=4)
def _by_beginning(known: frozenset[str]) -> tuple[dict[str, list[tuple[int, set[str]]]], list[str]]:
    """The forms of these values by their first characters and then by their length; and those that are shorter."""
    found: dict[str, dict[int, set[str]]] = {}
    short = []
    for form in _forms(known):
        if len(form) < BEGINNING:
            short.append(form)
        else:
            found.setdefault(form[:BEGINNING], {}).setdefault(len(form), set()).add(form)
    return {beginning: list(by_length.items()) for beginning, by_length in found.items()}, short


def _without_beginning(text: str, known: frozenset[str]) -> str:
    """`text`, which may have been cut off in the middle of a value, without what of one stands at its end."""
    for form in _long_forms(known):
        at = text.find(form[:MOST_OF_AN_END], max(0, len(text) - len(form)))
        if at >= 0 and form.startswith(text[at:]):
            return text[:at] + MASK
    begun, _unused = _by_beginning(known)
    for at in range(max(0, len(text) - MOST_OF_AN_END), len(text) - credentials.LEAST + 1):
        end = text[at:]
        for length, forms in begun.get(end[:BEGINNING], ()):
            if length > len(end) and any(form.startswith(end) for form in forms):
                return text[:at] + MASK
    return text


def _without_short_beginning(text: str, known: frozenset[str]) -> str:
    """`text`, which was cut off for sure, without the first few characters of a value at its end."""
    begin = next((at for at in range(-credentials.LEAST + 1, 0) if text[at:] in _short_beginnings(known)), len(text))
    return text[:begin] + MASK * (begin < 0)


@functools.lru_cache(maxsize=4)
def _short_beginnings(known: frozenset[str]) -> set[str]:
    return {form[:length] for form in _forms(known) for length in range(1, credentials.LEAST)}


@functools.lru_cache(maxsize=4)
def _long_forms(known: frozenset[str]) -> list[str]:
    return [form for form in _forms(known) if len(form) > MOST_OF_AN_END]


def _quoted(found: re.Match[str]) -> str:
    return found[0] if _DIRECTIVE.fullmatch(found[1]) else f"'{MASK}'"


def _without_user(word: str) -> str:
    last = word.rfind("@") + 1
    return _USER_OF_URL.sub(f"{MASK}@", word[:last]) + word[last:]


def _without_query(url: str) -> str:
    before, mark, query = url.partition("?")
    return before + (mark + MASK if query else mark)


def _without_named(text: str) -> str:
    """`text` without what follows the name of a credential, quoted or not."""
    shown, at = [], 0
    for value, end, begin in _named(text):
        if value.strip() and value != MASK:
            shown += [text[at:begin], MASK]
            at = end
    return "".join([*shown, text[at:]])


def _named(text: str) -> Iterator[tuple[str, int, int]]:
    """What follows a name that says credential: the value, where it ends, and where it begins with its quotes."""
    at = 0
    for found in _NAMED.finditer(text):
        name, between = found.groups()
        flag = name.startswith("-")
        if found.start() < at or (not flag and not between.strip(" \t\"',\\")):
            continue
        value = _VALUE.match(text, found.end())
        if value:
            plain = next(filter(None, value.groups()[1:]), "")
            before = _WORD_BEFORE.search(text, max(0, found.start() - LONGEST_WORD_BEFORE), found.start())
            about = f"{before[1]}_{name}" if before else name
            if (
                _hides(about, plain)
                and not _is_told(name, between, plain, text[value.end() : value.end() + 8])
                and not (between.isspace() and plain.startswith("-"))
            ):
                at = value.end()
                yield plain, at, value.start()


def _is_told(name: str, between: str, value: str, after: str) -> bool:
    """Whether a line tells of a credential, or counts: `password: required`, `secrets: 3`, `token: 4096 tokens`."""
    if value.isdigit():
        return bool(_COUNTED.match(after)) or name[-1:] in "sS" and len(value) < credentials.LEAST_OF_A_CREDENTIAL
    return between in (":", ": ") and value in _TOLD


def _hides(name: str, value: str) -> bool:
    """Whether a text's `name=value` is masked. `key=tokenizer.ggml.model` and `code: 500` are none."""
    bare = name.strip(".-")
    name = name if name.startswith("-") else bare
    is_count = value.isdigit() and len(value) < credentials.LEAST_OF_A_CREDENTIAL
    if credentials.STEM.search(name) or credentials.ALONE.match(bare) and not is_count:
        return not credentials.is_ordinary_of_a_credential(name, value)
    return bool(name.startswith("-") or name.isupper() and "_" in name) and (
        credentials.says_credential(name) and credentials.is_secret(name, value)
    )


@functools.lru_cache(maxsize=4)
def _forms(known: frozenset[str]) -> list[str]:
    """These values however they are printed; the longest first, since one may be a part of another."""
    forms = {form for value in known if len(value) <= LONG for form in _as_printed(value) if form}
    return sorted(forms, key=len, reverse=True)


def _as_printed(value: str) -> Iterator[str]:
    """A value as programs write it: as it is, escaped up to three times, quoted for a shell, in a URL, encoded, or in
    another case or normal form.
    """
    content = value.encode("utf-8", "surrogatepass" if _has_lone_surrogates(value) else "surrogateescape")
    yield value
    yield content.decode(errors="replace")
    for ascii_only in (False, True):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        for _time in range(MOST_ESCAPES):
            yield escaped
            escaped = json.dumps(escaped)[1:-1]
    yield from (
        repr(value)[1:-1],
        repr(content)[2:-1],
        value.replace("'", r"'\''"),
        value.replace("'", "'\"'\"'"),
        html.escape(value),
    )
    for quoted in (quote(content), quote(content, safe=""), quote(content, safe="!'()*"), quote_plus(content)):
        yield from (quoted, _ESCAPED_BYTE.sub(lambda escaped: escaped[0].lower(), quoted), quote(quoted, safe=""))
    yield from (value.lower(), value.upper()) if len(value) >= credentials.LEAST else ()
    yield content.decode("latin-1")
    yield from (unicodedata.normalize(form, value) for form in ("NFC", "NFD"))
    for hexadecimal in (content.hex(), content.hex(" "), content.hex(":")):
        yield from (hexadecimal, hexadecimal.upper())
    numbers = list(map(str, content))
    yield from (",".join(numbers), ", ".join(numbers), " ".join(numbers))
    yield quopri.encodestring(content).decode().replace("=\n", "")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(content).decode().rstrip("=")
        yield from _inside_base64(content, encode)


def _inside_base64(content: bytes, encode: Callable[[bytes], bytes]) -> Iterator[str]:
    """What is sure to stand in the base64 of a longer text, which has it 0, 1 or 2 bytes into a group of three."""
    for before in range(3):
        begin, end = -(-before * 8 // 6), (before + len(content)) * 8 // 6
        sure = encode(bytes(before) + content)[begin:end].decode()
        if len(sure) >= credentials.LEAST:
            yield sure


def secrets_in_headers(headers: Mapping[str, str]) -> set[str]:
    """What of a request's headers must not be shown: each value, its token, the user's password, and each cookie.

    What is quoted there, or encoded as in a URL, also as a server takes it.
    """
    found = set()
    for value in headers.values():
        token = value.rpartition(" ")[2]
        parts = {value, token, *(pair.partition("=")[2].strip() for pair in value.split(";"))}
        parts |= {*_QUOTED_STRING.findall(value)}
        bare = {part.strip('"') for part in parts if len(part) <= LONG}
        found |= parts | {form for part in bare for form in (escapes.of_quoted_string(part), unquote(part))}
        with contextlib.suppress(ValueError):
            found.add(base64.b64decode(token, validate=True).decode().partition(":")[2])
    return {value for value in found if len(value) >= credentials.LEAST_OF_A_CREDENTIAL}


def _has_lone_surrogates(value: str) -> bool:
    """Whether there are others than those for a byte that is no UTF-8."""
    return any("\ud800" <= char <= "\udfff" and not "\udc80" <= char <= "\udcff" for char in value)


def shown_command(words: Sequence[str]) -> list[str]:
    """A runner's command line: its flags, with the values that are numbers, short words or files; the rest masked."""
    shown = list(words[:1])
    for before, word in zip(words, words[1:MOST_WORDS]):
        flag, equals, value = word.partition("=") if word.startswith("-") else (before, "", word)
        private = flag.startswith("-") and _hides(flag, value) or flag in ("-hft", "-hf")
        if word.startswith("-") and not equals:
            shown.append(without_secrets(word))
        else:
            shown.append(f"{flag}{equals}" * bool(equals) + (MASK if private else without_secrets(value)))
    return shown if len(words) <= MOST_WORDS else [*shown, CUT]


def secrets_in(variables: Mapping[str, str | None], names: Collection[str] = ()) -> set[str]:
    """The values of an environment that must not be shown: of a URL its credentials and query, else the whole value.

    `names`: see `credentials.is_secret`, here and below.
    """
    return _secrets_of({(name, value) for name, value in variables.items() if value}, names)


def _secrets_of(variables: Collection[tuple[str, str]], names: Collection[str]) -> set[str]:
    """As `secrets_in`; what a text says a thousand times is looked at once."""
    named = {(name if len(name) <= LONGEST_NAME else "password", value) for name, value in variables}
    parts = {part for name, value in named for part in _parts(name, value)}
    return {part for about, part in parts if credentials.is_secret(about, part, names)}


def _parts(name: str, value: str) -> Iterator[tuple[str, str]]:
    """A value and those parts of it that a program may print alone, each with the name that says what it is."""
    if _ONE_WORD.fullmatch(value):
        yield name, value
        return
    url = _url_parts(value)
    yield from url or ()
    private = credentials.says_credential(name)
    if url is None or private and not set(credentials.words_of(name)[-1:]) & credentials.OF_URLS:
        yield name, value
        # A line of a log is one line, and has no blanks at its end.
        yield from ((name, line.strip()) for line in _LINE_END.split(value))
    if private and url is None and not credentials.is_ordinary_of_a_credential(name, value):
        yield from ((name, part) for part in re.split(r"[,;]", value))
        yield from ((name, part) for part in value.split(":", maxsplit=1)[1:])
    value = value[:LONG]
    if "@" in value:
        yield from (("password", password) for password in _before_hosts(value))
    if credentials.may_say_credential(value):
        yield from (("password", part) for part, _end, _begin in _named(value))
    pairs = (pair.partition("=") for pair in value.split(";") if "=" in pair)
    yield from (_of_key(about.strip(), part.strip(" {}\"'")) for about, equals, part in pairs if equals)
    if value.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            yield from _leaves(name, json.loads(value, strict=False))


def _before_hosts(value: str) -> Iterator[str]:
    """What may be the password in each `user:password@host`: up to the last @, and up to the first."""
    for piece in {piece for between in _BETWEEN_HOSTS for piece in between.split(value) if "@" in piece}:
        password = piece.partition(":")[2].rpartition("@")[0]
        yield from (password, password.partition("@")[0])


def _leaves(name: str, content: object) -> Iterator[tuple[str, str]]:
    """The texts and numbers of a JSON value, each with the key that it stands under."""
    if isinstance(content, dict):
        for key, inside in content.items():
            yield from _leaves(key, inside)
    elif isinstance(content, list):
        for inside in content:
            yield from _leaves(name, inside)
    elif content is not None and not isinstance(content, bool):
        yield from _url_parts(str(content)) or [_of_key(name, str(content))]


def _of_key(key: str, value: str) -> tuple[str, str]:
    """Inside a value a name is no variable of the system's, as PWD would be."""
    return ("password" if credentials.says_credential(key) else key), value


def _url_parts(value: str) -> list[tuple[str, str]] | None:
    """The user's part and the query of a URL, each part with its name; None where the value is none."""
    if "://" not in value:
        return None
    try:
        url = urlsplit(value)
        user, password = url.username or "", url.password or ""
    except ValueError:
        return None
    if not url.scheme or not url.netloc:
        return None
    pairs = [pair.partition("=") for pair in url.query.split("&")]
    parts = [("password", password), *((name, part or name) for name, _equals, part in pairs)]
    if not password:
        parts.append(("user or token", user))
    return [(name, form) for name, part in parts for form in (part, unquote(part))]


def secrets_in_text(text: str, names: Collection[str] = ()) -> set[str]:
    """The values of an env file's text that must not be shown, as any reader would take them, and its comments.

    Of one that is too large for readers what its lines say by themselves.
    """
    lines = set(text.splitlines())
    comments = {line[line.index("#") :].strip() for line in lines if "#" in line}
    said = filter(None, map(_SAID.fullmatch, lines | comments))  # what is taken out may still be in use elsewhere
    variables = {(one[1], one[2].strip("\"' \t")) for one in said}
    for reader in dotenv_readers.READERS:
        for reading in dotenv_readers.readings(text, reader):
            variables |= {(one.key, one.value) for one in reading.assignments if one.value}
    return {comment for comment in comments if len(comment) >= credentials.LEAST} | _secrets_of(variables, names)


def secrets_in_command(words: Sequence[str], names: Collection[str] = (), levels: int = MOST_LEVELS) -> set[str]:
    """What of a command line must not be shown: what follows a flag that says so, its assignments, URLs and scripts."""
    ends = itertools.accumulate(len(word) + 1 for word in words)
    read = next((number for number, end in enumerate(ends) if end > LONGEST_COMMAND), len(words))
    rest = {word for word in words[read:] if len(word) >= credentials.LEAST}
    return _secrets_of(set(_said_in_command(words[:read], levels)), names) | rest


def secrets_in_script(text: str, names: Collection[str] = (), levels: int = MOST_LEVELS) -> set[str]:
    """The same of a shell script, or of the command lines that `systemctl show` prints."""
    return _secrets_of(set(_said_in_script(text, levels)), names)


def _said_in_command(words: Sequence[str], levels: int) -> Iterator[tuple[str, str]]:
    """What a command line says that may be private, each value with the name that it goes by."""
    programs = {word.rpartition("/")[2] for word in words}
    scripts = []
    by_curl = "curl" in programs  # elsewhere -u says other things
    by_password, within_p = bool(programs & _ASKED_WITH_P), bool(programs & _ASKED_WITHIN_P)
    for before, word in set(zip(["", *words], words)):
        assigned, equals, said = word.partition("=")
        name, value = (assigned, said) if equals and assigned.startswith("-") else (before, word)
        if name.startswith("-") and "=" not in name and credentials.says_credential(name):
            yield name, value
        elif by_curl and _USER_FLAG.fullmatch(name) and ":" in value or by_password and name == "-p":
            yield "PASSWORD", value
        if within_p and word.startswith("-p"):
            yield "PASSWORD", word[2:]
        is_script = levels and _BLANK.search(word)
        if "://" in word and not is_script:
            yield "URL", value
        if equals and _VARIABLE.fullmatch(assigned) and _may_be_private(assigned, said):
            yield assigned, said
        if is_script:
            scripts.append(word)
    if scripts:
        yield from _said_in_script("\n".join(scripts), levels - 1)


def _said_in_script(text: str, levels: int) -> Iterator[tuple[str, str]]:
    for name, double, single, plain in set(_ASSIGNED.findall(text)):
        value = double or single or plain
        if _may_be_private(name, value):
            yield name, value
    for line in set(text.splitlines()):
        if _ONE_ASSIGNMENT.fullmatch(line):
            continue  # which is found already
        yield from _said_in_command([_unquoted(word) for word in _SHELL_WORD.findall(line)], levels)


def _unquoted(word: str) -> str:
    """A word of a shell's line; one that has blanks is a script of its own, or a value, and keeps its quotes inside."""
    return word.strip("\"'") if " " in word else re.sub("[\"']", "", word)


def _may_be_private(name: str, value: str) -> bool:
    """A script's own variables are words of it, unless their names say more; what it reads or counts is no value."""
    return (name.isupper() or credentials.says_credential(name)) and not value.startswith(("$", "`"))

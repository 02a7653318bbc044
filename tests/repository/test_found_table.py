"""The table of found hosts is complete in itself."""

from __future__ import annotations

import re
from collections import Counter

from tests.integration.found.condition import KNOWN_FROM
from tests.integration.found.table import FOUND


def test_every_row_has_a_name_of_its_own_and_a_public_source() -> None:
    assert [name for name, times in Counter(found.name for found in FOUND).items() if times > 1] == []
    assert [found.name for found in FOUND if not re.fullmatch(KNOWN_FROM, found.known_from)] == []


def test_every_refusal_names_a_cause_and_a_cure() -> None:
    assert [found.name for found in FOUND if found.verdict == "refused" and len(found.says) < 2] == []

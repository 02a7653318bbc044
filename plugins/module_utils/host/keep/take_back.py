# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file goes back to: a file that this collection writes as a whole goes back as a whole; of an env file only the
keys that this collection has set do. What somebody else has written into it since stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv

Manifest = Mapping[str, Any]
Kept = tuple[dict[str, Any], bytes]  # a state as in `_file_state`, and its content


def keys_of(manifests: Iterable[Manifest]) -> dict[str, dict[str, Any]]:
    """By path of an env file: all `keys` that this collection has set in it, oldest first, and the file's `readers`."""
    ours: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        for path, env in manifest.get("env", {}).items():
            known = ours.setdefault(path, {"keys": [], "readers": env["readers"]})
            known["keys"] += [key for key in env["keys"] if key not in known["keys"]]
    return ours


def goal(now: Kept, kept: Kept, keys: list[str], readers: list[str]) -> Kept:
    """An env file as it is now, with our keys as they were kept, or gone if they were not there."""
    (now_state, now_content), content = now, kept[1]
    if now_state["kind"] != "file":
        return kept
    before, text = dotenv.decode(content), dotenv.decode(now_content)
    edit = dotenv.set_keys(text, *_apart(before, keys, readers), readers)
    # The very file that was kept, quotes and time included, where nobody else has written into it; and where it is
    # such a wreck that no key can be set, which no run of ours has left.
    only_ours = dotenv.set_keys(before, *_apart(text, keys, readers), readers).text == text
    made_by_us = kept[0]["kind"] == "absent" and not _sets_anything(edit.text)
    if edit.problems or only_ours or edit.text == before or made_by_us:
        return kept
    new = dotenv.content_of(edit.text)
    return {**now_state, "sha256": hashlib.sha256(new).hexdigest(), "mtime_ns": None}, new


def _sets_anything(text: str) -> bool:
    """Whether there is more in a text than blanks and comments, such as the header of a profile's own file."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _apart(text: str, keys: list[str], readers: list[str]) -> tuple[dict[str, str], list[str]]:
    """The values of those keys that a text sets, and the keys that it does not."""
    found = dotenv.get_keys(text, keys, readers)
    values = {key: value for key, value in found.items() if value is not None}
    return values, [key for key in keys if key not in values]

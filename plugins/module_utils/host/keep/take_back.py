# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What files go back to: a file that this collection writes as a whole goes back as a whole, but for what somebody has
written into it; of an env file only the keys that this collection has set do, in the file that is read under its name
now. What somebody else has made of it since stays: other lines, its mode and owner, a link. One that somebody has
deleted is not made again.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, env_lines
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import file_state, what_is_ours
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files, held_path

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        FileState,
        KeysOfFile,
        Manifest,
    )


Kept = tuple["FileState", bytes]  # a state, and its content
# The comment that begins a profile's own file (roles/backend/templates/profile.env.j2).
_OWN_HEADER = re.compile(r"\A# Profile [^\n]* of selo\.gpu_memory, from the inventory\.[^\n]*\n")


@dataclass
class WayBack:
    """The states that paths go into, with contents by SHA-256; and what does not go back.

    `env_files`: which of them are env files that somebody reads. `missing`: env files that somebody has deleted.
    `left`: drop-ins of ours that somebody else has written into, who keeps that.
    `lost`: why a place is not there to be written any more, or why a key stays.
    """

    states: list[FileState] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    env_files: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, state: FileState, content: bytes) -> None:
        self.states.append(state)
        self.contents[state.get("sha256", "")] = content

    def unwritable(self) -> list[str]:
        """Why what differs could not be written, as far as that can be seen without writing."""
        problems = []
        for state in self.states:
            path = state["path"]
            if file_state.different(state):
                # A link is replaced, not followed; so it is the directory that counts.
                place = os.path.join(os.path.dirname(path), ".new") if os.path.islink(path) else path
                try:
                    if os.path.isdir(os.path.dirname(path)):
                        atomic_files.check(place)
                except atomic_files.CannotWrite as problem:
                    problems.append(str(problem))
        return problems


def way_back(manifest: Manifest, contents: Mapping[str, bytes], manifests: Collection[Manifest]) -> WayBack:
    """The way back to a generation. `manifests`: of all, that tell what this collection has set."""
    way, ours = WayBack(), what_is_ours.keys_of(manifests)
    kept = {state["path"]: state for state in manifest["files"]}
    names: dict[str, list[str]] = {}
    for path in kept:
        names.setdefault(_led_to(path, kept), []).append(path)
    for path, state in kept.items():
        leads_to = _led_to(path, kept)
        env = ours.get(leads_to) or _of_an_older_release(state, ours)
        if not env or what_is_ours.is_drop_in(leads_to):
            problem = _lost(state)
            if problem:
                way.lost.append(problem)
            else:
                _add_file(way, (state, contents.get(state.get("sha256", ""), b"")), manifests)
        elif path == leads_to:
            _add_env_file(way, (state, contents.get(state.get("sha256", ""), b"")), names[path], env)
    return way


def _of_an_older_release(kept: FileState, ours: Mapping[str, KeysOfFile]) -> KeysOfFile | None:
    """A profile's own file that was not there, of which an older release has kept nothing else: it wrote there what it
    has set in the backend's files. None for any other file.
    """
    if kept["kind"] != "absent" or what_is_ours.is_drop_in(kept["path"]):
        return None
    try:
        text = dotenv.decode(file_state.read(kept["path"])[1])
    except OSError:
        return None
    files = [env for path, env in ours.items() if not what_is_ours.is_drop_in(path)]
    keys = {key: None for env in files for key in env["keys"]}
    readers = [reader for env in files for reader in env["readers"] or []]
    is_own = _OWN_HEADER.match(text)
    return {"keys": list(keys), "readers": list(dict.fromkeys(readers)), "profile": "any"} if is_own else None


def _add_file(way: WayBack, kept: Kept, manifests: Iterable[Manifest]) -> None:
    """A file that goes back as a whole; of a drop-in what somebody has written into it since stays."""
    path = kept[0]["path"]
    if not what_is_ours.is_drop_in(path) or kept[0]["kind"] == "link":
        way.add(*kept)
        return
    try:
        now, content = file_state.read(path)
    except OSError:
        now, content = kept
    text, before = dotenv.decode(content), dotenv.decode(kept[1])
    is_ours = unit_text.writer_of(text) is None
    own = what_is_ours.variables_of(manifests, path, text)
    added = unit_text.added(text, own) if is_ours else text.strip("\0")
    as_kept = content == kept[1] and (is_ours or not file_state.differences(now, kept[0]))
    if now["kind"] != "file" or as_kept or not added:
        way.add(*kept)
        return
    new = dotenv.content_of(before + added if is_ours else text)
    way.add({**now, "sha256": hashlib.sha256(new).hexdigest(), "mtime_ns": None}, new)
    way.left.append(path)


def _led_to(path: str, kept: Mapping[str, FileState]) -> str:
    """Where a kept path led to when it was kept, link by link."""
    for _unused in range(held_path.LINKS):
        state = kept.get(path)
        if state is None or state["kind"] != "link":
            break
        # An older collection has kept no more than the link's own text.
        path = state.get("leads_to") or os.path.normpath(os.path.join(os.path.dirname(path), state["target"]))
    return path


def _lost(state: FileState) -> str | None:
    """Why a file that goes back as a whole has no place any more; systemd's own directories are made again."""
    directory = os.path.dirname(state["path"])
    if state["kind"] == "absent" and not os.path.lexists(state["path"]):
        return None
    if what_is_ours.is_drop_in(state["path"]) and unit_text.section_of(state["path"]) != unit_text.NO_SECTION:
        try:
            unit_files.check_links(directory)
        except atomic_files.CannotWrite as problem:
            return str(problem)
        directory = os.path.dirname(directory)
    return None if os.path.isdir(directory) else _no_directory(directory, state["path"])


def _no_directory(directory: str, path: str) -> str:
    return (
        f"the directory {directory} is missing, so that {os.path.basename(path)} has no place to go back to; put it "
        "back, or a link to where it is now, and run again"
    )


def _add_env_file(way: WayBack, kept: Kept, names: Iterable[str], env: KeysOfFile) -> None:
    """The files that are read now under any of an env file's names, each once."""
    path = kept[0]["path"]
    found: dict[str, Kept] = {}
    for name in names:
        try:
            target = atomic_files.target_of(name)
            now = file_state.read(target)
        except atomic_files.CannotWrite as problem:
            way.lost.append(str(problem))
            return
        except OSError as problem:
            way.lost.append(f"{name}: {problem.strerror}; move it away, and put the file back that was there")
            return
        if now[0]["kind"] == "file":
            found[target] = now
    for now in found.values():
        state, content, problems = goal(now, kept, env)
        way.add(state, content)
        way.env_files += [] if env.get("profile") else [state["path"]]
        way.lost += [f"{state['path']}: {'; '.join(problems)}"] if problems else []
    if not found and kept[0]["kind"] == "file":
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            way.lost.append(_no_directory(directory, path))
        elif _sets_anything(dotenv.set_keys(dotenv.decode(kept[1]), {}, env["keys"], env["readers"]).text):
            way.missing.append(path)
        else:  # a profile's own file, which a rollback to before it has taken away
            way.add(*kept)
            way.env_files += [] if env.get("profile") else [path]


def goal(now: Kept, kept: Kept, env: KeysOfFile) -> tuple[FileState, bytes, list[str]]:
    """An env file as it is now, with our keys as they were kept, or gone if nobody else has written into it.

    And what of our keys stays, with the reason.
    """
    (now_state, now_content), (kept_state, content) = now, kept
    if kept_state["kind"] == "file" and now_content == content:
        return *now, []
    before, text = dotenv.decode(content), dotenv.decode(now_content)
    is_the_file = now_state["path"] == file_state.place_of(kept_state["path"])
    readers = env["readers"] or list(dotenv.DEFAULT_READERS)
    ours = {key: env.get("values", {}).get(key, []) for key in env["keys"]}
    edit = env_lines.taken_back(text, before, ours, readers)
    if kept_state["kind"] == "absent" and is_the_file and not _OWN_HEADER.sub("", edit.text, count=1).strip():
        return *kept, []
    # The very text that was kept, quotes and time included, where nobody else has written into it; and where a crash
    # of the host has left nothing but NUL bytes.
    is_large = len(text) > dotenv.MOST_BYTES
    only_ours = not is_large and dotenv.set_keys(before, *_apart(text, env["keys"], readers), readers).text == text
    if kept_state["kind"] == "file" and (only_ours or edit.text == before or text and not text.strip("\0")):
        mtime_ns = kept_state["mtime_ns"] if is_the_file else None
        return {**now_state, "sha256": kept_state["sha256"], "mtime_ns": mtime_ns}, content, []
    new = dotenv.content_of(edit.text)
    return {**now_state, "sha256": hashlib.sha256(new).hexdigest(), "mtime_ns": None}, new, edit.problems


def _sets_anything(text: str) -> bool:
    """Whether there is more in a text than blanks and comments, such as the header of a profile's own file."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _apart(text: str, keys: list[str], readers: list[str] | None) -> tuple[dict[str, str], list[str]]:
    """The values of those keys that a text sets, and the keys that it does not."""
    found = dotenv.get_keys(text, keys, readers)
    values = {key: value for key, value in found.items() if value is not None}
    return values, [key for key in keys if key not in values]

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts' files on the controller, `<report_dir>/<host>.json`, and how a host's name makes a file name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import cast
from urllib.parse import quote

from ansible.errors import AnsibleActionFail
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import change_list
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, report_page
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import verdicts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import fleet_report, host_record

TAKEN = re.compile(r"(all|status|.*\.(plan|tune))\Z", re.IGNORECASE)  # names of other files of a report
MOST_BYTES = 200  # most file systems take 255 for a name


def file_name(host: str, ending: str = ".json") -> str:
    """The name of a host's file: an inventory may call a host anything, `../../x` and `all` too."""
    name = quote(host, safe=" !#$&'()+,;=@[]{}^~:")
    if name.startswith(".") or TAKEN.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) > MOST_BYTES:
        name = f"{name[:MOST_BYTES]}-{hashlib.sha256(host.encode()).hexdigest()[:16]}"
    return f"{name}{ending}"


class Unreadable(Exception):
    """A record that this release cannot show; the text says in which file, what is wrong, and what to do."""


def read(directory: Path, host: str) -> Record | None:
    """None where there is no file; `Unreadable` where there is one that has no record of the host."""
    path = directory / file_name(host)
    cure = "an apply of this host writes it anew; or put a copy back, or remove it"
    try:
        record = controller.read_json(path)
        schema = record.get("schema") if isinstance(record, dict) else None
        if isinstance(schema, int) and schema > verdicts.SCHEMA:
            cure = "install the release of the collection that wrote it, or a later one"
            raise ValueError(f"its schema is {schema}, and this release knows {verdicts.SCHEMA}")
        return _checked(record, host)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise Unreadable(f"{path} cannot be read: {problem.strerror}; make it readable for whoever runs this") from None
    except KeyError as problem:
        raise Unreadable(f"{path} has no record that can be read: it lacks {problem}; {cure}") from None
    except (ValueError, RecursionError, TypeError, AttributeError, IndexError) as problem:
        raise Unreadable(f"{path} has no record that can be read: {problem}; {cure}") from None


def _checked(content: object, host: str) -> Record:
    """Any error where it is no record of the host that can be shown in each form that there is."""
    if not isinstance(content, dict) or content.get("schema") != verdicts.SCHEMA:
        raise ValueError("it has no schema of one")
    if content.get("host") != host:
        raise ValueError(f"it is of {content.get('host')}")
    record = cast(Record, content)
    change_list.changes(change_list.remembered(record), record)
    host_record.block(record)
    host_record.one_line(record)
    report_page.page(fleet_report.fleet([record], 0))
    return record


def dated(directory: Path, record: Record, at: float) -> Record:
    """The record with its time (Unix, s), what the host's last one said, and what changed since."""
    first = record.get("first")  # what this run tried before is not the last run
    notes = record["notes"]
    try:
        before = first.get("previous") if first else change_list.remembered(read(directory, record["host"]))
    except Unreadable as problem:
        before, notes = None, [*notes, f"what changed since the last record is not known: {problem}"]
    return {**record, "notes": notes, "at": at, "previous": before, "changes": change_list.changes(before, record)}


def written(directory: Path, record: Record) -> tuple[Record, str | None]:
    """The record and its file. Where that cannot be written there is none, and the record says why."""
    path = directory / file_name(record["host"])
    try:
        controller.write_json(path, record)
    except AnsibleActionFail as problem:
        return {**record, "notes": [*record["notes"], f"no file has this record. {problem}"]}, None
    return record, str(path)

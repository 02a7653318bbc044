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
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import verdicts

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


def read(directory: Path, host: str) -> Record | None:
    """None where there is none, or none that this release can read."""
    record = controller.read_json(directory / file_name(host))
    return (
        cast(Record, record)
        if record and record.get("schema") == verdicts.SCHEMA and record.get("host") == host
        else None
    )


def dated(directory: Path, record: Record, at: float) -> Record:
    """The record with its time (Unix, s), what the host's last one said, and what changed since."""
    first = record.get("first")  # what this run tried before is not the last run
    before = first.get("previous") if first else change_list.remembered(read(directory, record["host"]))
    return {**record, "at": at, "previous": before, "changes": change_list.changes(before, record)}


def written(directory: Path, record: Record) -> tuple[Record, str | None]:
    """The record and its file. Where that cannot be written there is none, and the record says why."""
    path = directory / file_name(record["host"])
    try:
        controller.write_json(path, record)
    except AnsibleActionFail as problem:
        return {**record, "notes": [*record["notes"], f"no file has this record. {problem}"]}, None
    return record, str(path)

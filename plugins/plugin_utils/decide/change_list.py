# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed on a host between two of its records. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import (
    Change,
    Record,
    Remembered,
    RememberedRow,
    Row,
)

FIGURES = {"profile": "profile", "max_used_mib": "threshold (MiB)", "peak_used_mib": "peak (MiB)"}


def remembered(record: Record | None) -> Remembered | None:
    """What the next record keeps of this one: enough to say what changed."""
    if record is None:
        return None
    return {
        "at": record.get("at"),
        "verdict": record.get("verdict"),
        "profile": record.get("profile"),
        "max_used_mib": record.get("max_used_mib"),
        "peak_used_mib": record.get("peak_used_mib"),
        "speed": record.get("speed"),
        "versions": record.get("versions"),
        "generation": record.get("generation"),
        "settings": [
            {"name": row["name"], "wanted": row["wanted"], "effect": row["effect"], "state": row["state"]}
            for row in record["settings"]
        ],
    }


def changes(before: Remembered | None, now: Record) -> list[Change]:
    """Rows of `what`, `before` and `now`, in words; None where a setting was not, or is not any more.

    What one of the two runs did not measure or read back is not compared, so that an unread host shows no change.
    """
    if before is None:
        return []
    rows = [_row("verdict", before["verdict"], now["verdict"])]
    figures = [(what, before.get(name), now.get(name)) for name, what in FIGURES.items()]
    rows += [_row(what, was, is_now) for what, was, is_now in figures if _known(was, is_now)]
    if before["settings"] and now["settings"]:
        earlier = {row["name"]: _in_words(row) for row in before["settings"]}
        present = {row["name"]: _in_words(row) for row in now["settings"]}
        rows += [_row(name, earlier.get(name), present.get(name)) for name in {**earlier, **present}]
    versions: Mapping[str, object] = before["versions"] or {}
    for name, version in now["versions"].items():
        if _known(versions.get(name), version):
            rows.append(_row(f"{name} version", versions[name], version))
    return [row for row in rows if row["before"] != row["now"]]


def _known(*values: object) -> bool:
    return all(value is not None for value in values)


def _row(what: str, before: object, now: object) -> Change:
    return {"what": what, "before": _text(before), "now": _text(now)}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _in_words(row: RememberedRow | Row) -> str:
    return f"{row['wanted']}, {row['state']}: {row['effect']}"

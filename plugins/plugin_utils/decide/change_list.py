# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed on a host between two of its records. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REMEMBERED = ("at", "verdict", "profile", "max_used_mib", "peak_used_mib", "speed", "versions", "generation")
FIGURES = {"profile": "profile", "max_used_mib": "threshold (MiB)", "peak_used_mib": "peak (MiB)"}


def remembered(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the next record keeps of this one: enough to say what changed."""
    if record is None:
        return None
    return {
        **{name: record.get(name) for name in REMEMBERED},
        "settings": [{name: row[name] for name in ("name", "wanted", "effect", "state")} for row in record["settings"]],
    }


def changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[dict[str, str | None]]:
    """Rows of `what`, `before` and `now`, in words; None where a setting was not, or is not any more.

    What one of the two runs did not measure or read back is not compared, so that an unread host shows no change.
    """
    if before is None:
        return []
    rows = [_row("verdict", before["verdict"], now["verdict"])]
    rows += [_row(what, before[name], now[name]) for name, what in FIGURES.items() if _known(before[name], now[name])]
    if before["settings"] and now["settings"]:
        was = {row["name"]: _in_words(row) for row in before["settings"]}
        is_now = {row["name"]: _in_words(row) for row in now["settings"]}
        rows += [_row(name, was.get(name), is_now.get(name)) for name in {**was, **is_now}]
    versions = before["versions"] or {}
    for name, version in now["versions"].items():
        if _known(versions.get(name), version):
            rows.append(_row(f"{name} version", versions[name], version))
    return [row for row in rows if row["before"] != row["now"]]


def _known(*values: Any) -> bool:
    return all(value is not None for value in values)


def _row(what: str, before: Any, now: Any) -> dict[str, str | None]:
    return {"what": what, "before": _text(before), "now": _text(now)}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _in_words(row: Mapping[str, Any]) -> str:
    return f"{row['wanted']}, {row['state']}: {row['effect']}"

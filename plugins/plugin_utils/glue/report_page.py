# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as one HTML file that needs nothing else: no network, no other file.

What hosts say reaches the page as JSON and from there the screen as text, never as markup. The page's own policy
forbids every other script and style and any connection, should that ever fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
import string
from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import Fleet
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import chart
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import budget_svg, fleet_report, memory_parts

# As in the pictures of plans; but there the others are those of now.
KINDS = {
    **budget_svg.KINDS,
    memory_parts.OLLAMA: (memory_parts.NAMES[memory_parts.OLLAMA], "#4f83e6"),
    memory_parts.OTHERS: ("others", budget_svg.KINDS["others"][1]),
    memory_parts.RESERVED: (memory_parts.NAMES[memory_parts.RESERVED], "#c3c7ce"),
    memory_parts.UNKNOWN: (memory_parts.UNKNOWN, "#e08fd0"),
    memory_parts.FREE: (memory_parts.NAMES[memory_parts.FREE], "#dfe3e8"),
}
SOURCE = Path(__file__).with_name("page")


def page(fleet: Fleet, undo: str | None = None) -> str:
    """`fleet` comes from `fleet_report.fleet`; in `undo`, a command, `{host}` stands for the host."""
    style, script = (_source(name) for name in ("report.css", "report.js"))
    data = {
        "at": fleet["at"],
        "kinds": {kind: {"name": name, "colour": colour} for kind, (name, colour) in KINDS.items()},
        "charts": chart.HAS_PYGAL,
        "hosts": [_host(record, undo) for record in fleet["hosts"]],
    }
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return string.Template(_source("report.html")).substitute(
        policy=policy, style=style, script=script, data=as_json_in_html(data)
    )


def as_json_in_html(value: object) -> str:
    """JSON that no HTML parser takes for the end of its element or the start of another, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _host(record: Record, undo: str | None) -> dict[str, object]:
    expected = fleet_report.expected_mib(record)
    return {
        **fleet_report.row(record, undo),
        "chart": chart.timeline_svg(record, expected),
        "series": chart.series(record, expected),
    }


def _source(name: str) -> str:
    return (SOURCE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

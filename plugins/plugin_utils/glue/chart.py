# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The curve of a host's GPU memory under load, drawn by pygal where the controller has it.

pygal gives the geometry alone; what it looks like is the page's style sheet, for light, dark and paper alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record

try:
    import pygal
    from pygal.etree import etree

    etree.to_etree()  # what is made here is read here; pygal takes lxml where that is installed, too
    HAS_PYGAL = True
except ImportError:
    HAS_PYGAL = False

WIDTH, HEIGHT = 720, 260
# Room for the labels as large as a phone needs them.
MARGINS = {"margin_left": 34, "margin_right": 22, "margin_top": 14, "margin_bottom": 8}
LABELS = 5
STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_KEPT = {
    "svg": {"viewBox"},
    "g": {"class", "transform"},
    "path": {"class", "d"},
    "text": {"class", "x", "y"},
}
_FRACTION = re.compile(r"(\d+\.\d)\d+")
_SVG = "http://www.w3.org/2000/svg"


def timeline_svg(record: Record, expected_mib: int | None) -> str | None:
    """An SVG picture without style, script or any text but numbers; None without a timeline or without pygal.

    A `g` of class `serie-N` each: first the GPUs, then `threshold` and `expected`, which are named in `series`.
    """
    lines = [gpu["timeline"] for gpu in record["gpus"] if gpu.get("timeline")]
    if not lines or not HAS_PYGAL:
        return None
    end = max(points[-1][0] for points in lines) or 1
    levels = [level for level in (record["max_used_mib"], expected_mib) if level is not None]
    top = max(
        [gpu["total_mib"] or 0 for gpu in record["gpus"]] + levels + [used for line in lines for _unused, used in line]
    )
    marks = _ticks(top, [1024 * 2**power for power in range(12)])
    chart = pygal.XY(
        width=WIDTH, height=HEIGHT, range=(0, marks[-1]), xrange=(0, end), show_dots=False, show_legend=False,
        js=(), css=(), formatter=_whole, x_value_formatter=_whole, **MARGINS,
    )  # fmt: skip
    chart.y_labels = marks
    chart.x_labels = _ticks(end, STEPS_S)[:-1]
    for points in lines:
        chart.add("", points)
    for level in levels:
        chart.add("", [(0, level), (end, level)])
    return _bare(chart.render_tree())


def series(record: Record, expected_mib: int | None) -> list[dict[str, object]]:
    """What each line of the picture is, in order: `kind` (gpu, threshold, expected), `name`, and its level in MiB."""
    rows: list[dict[str, object]] = [
        {"kind": "gpu", "name": f"GPU {gpu['index']}, peak", "mib": gpu["peak_used_mib"]}
        for gpu in record["gpus"]
        if gpu.get("timeline")
    ]
    levels = (("threshold", "threshold", record["max_used_mib"]), ("expected", "predicted", expected_mib))
    return rows + [{"kind": kind, "name": name, "mib": mib} for kind, name, mib in levels if mib is not None]


def _ticks(top: float, steps: Sequence[int]) -> list[int]:
    """From 0 to the first at or over `top`, in the smallest of the steps that makes at most `LABELS` intervals."""
    step = next((step for step in steps if top / step <= LABELS), steps[-1])
    return list(range(0, step * math.ceil(top / step) + 1, step))


def _whole(number: float) -> str:
    return f"{number:.0f}"


def _bare(element: ElementTree.Element) -> str:
    """The picture without all that is not geometry: scripts, styles, titles, what is empty, and needless digits."""
    ElementTree.register_namespace("", _SVG)
    svg = ElementTree.fromstring(ElementTree.tostring(element))
    _strip(svg)
    return ElementTree.tostring(svg, encoding="unicode")


def _strip(element: ElementTree.Element) -> None:
    name = element.tag.rpartition("}")[2]
    for attribute in set(element.attrib) - _KEPT[name]:
        del element.attrib[attribute]
    for attribute in {"d", "x", "y"} & set(element.attrib):
        element.set(attribute, _FRACTION.sub(r"\1", element.get(attribute, "")))
    for child in list(element):
        kept = isinstance(child.tag, str) and child.tag.rpartition("}")[2] in _KEPT
        if kept:
            _strip(child)
        if not kept or (child.tag.endswith("}g") and not len(child)):
            element.remove(child)

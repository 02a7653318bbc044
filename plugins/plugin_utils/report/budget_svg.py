# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's plan as one self-contained SVG picture: a stacked bar of GPU memory for each profile. Pure."""

from __future__ import annotations

import re
from html import escape

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import Column, HostPlan

WIDTH = 980
BAR_LEFT, BAR_WIDTH, BAR_HEIGHT = 20, 940, 34
HEAD_HEIGHT, ROW_HEIGHT, FOOT_HEIGHT = 96, 92, 40
# kind -> (name, colour); colours that both a light and a dark page carry, told apart also by lightness
KINDS = {
    "weights_mib": ("weights", "#7397f0"),
    "kv_mib": ("KV cache", "#efb118"),
    "compute_mib": ("compute", "#3ca951"),
    "op_offload_mib": ("copies for host layers", "#a463f2"),
    "runtime_mib": ("CUDA runtime", "#6cc5b0"),
    "others": ("others now", "#9498a0"),
    "backend": ("backend", "#ff725c"),
}
STYLE = """
  .page { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, sans-serif }
  .title { font-size: 17px; font-weight: 600 }
  .label { font-weight: 600 } .quiet { fill: #59636e } .end { text-anchor: end }
  .inside { fill: #14171a; font-size: 12px; text-anchor: middle }
  .card { fill: #eceff2; stroke: #8c959f } .limit { stroke: #cf222e; stroke-width: 2.5; stroke-dasharray: 5 3 }
  .over { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #9198a1 } .inside { fill: #0a0c10 }
    .card { fill: #21262d; stroke: #6e7681 } .limit { stroke: #ff7b72 } .over { fill: #ff7b72 }
  }
"""
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def budget_svg(plan: HostPlan) -> str:
    """The picture of a plan (`_compare.compare`, with its `host`); one without figures gives its problems as text."""
    profiles = [profile for profile in plan["profiles"] if not profile["problems"]]
    height = HEAD_HEIGHT + ROW_HEIGHT * max(len(profiles), 1) + FOOT_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escaped("GPU memory planned for " + plan["host"])}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        label(BAR_LEFT, 30, clipped(f"{plan['host']}: GPU memory by profile, predicted", 90), "title"),
    ]
    gpu = plan["gpu"]
    if not profiles or not gpu:
        problems = plan["problems"] or [text for profile in plan["profiles"] for text in profile["problems"]]
        parts.append(label(BAR_LEFT, 62, clipped("; ".join(problems) or "nothing could be planned", 130)))
        return "\n".join([*parts, "</svg>\n"])
    models = ", ".join(plan["models"])
    parts.append(label(BAR_LEFT, 50, clipped(f"{gpu['name']}, {gpu['total_mib']} MiB; {models}", 130), "quiet"))
    parts += _legend(plan, profiles)
    card = gpu["total_mib"] - (gpu["reserved_mib"] or 0)
    # Of several GPUs a bar is that of the tightest.
    cards = [profile["tightest"]["card_mib"] if "tightest" in profile else card for profile in profiles]
    scale = BAR_WIDTH / max(*cards, *(profile["sum_mib"] for profile in profiles), 1)
    for index, profile in enumerate(profiles):
        parts += _bar(plan, profile, HEAD_HEIGHT + index * ROW_HEIGHT, cards[index], scale)
    unknown = [profile["label"] for profile in profiles if profile["backend_mib"] is None]
    foot = "Arithmetic from the model's own data; nothing was loaded."
    with_which = "" if len(unknown) == len(profiles) else f" with {', '.join(unknown)}"
    foot += f" Not known before a load and not in the bars: the backend{with_which}." if unknown else ""
    parts.append(label(BAR_LEFT, height - 16, clipped(foot, 140), "quiet"))
    return "\n".join([*parts, "</svg>\n"])


def _segments(plan: HostPlan, profile: Column) -> list[tuple[str, str, int]]:
    """(kind, name, MiB) of everything that a bar holds, from left to right."""
    terms, others = profile["terms"], plan["others"]
    if "tightest" in profile:
        terms, others = profile["tightest"]["terms"], profile["tightest"]["others"]
    rows = [(term, KINDS[term][0], mib) for term, mib in terms.items()]
    rows += [("others", f"now held by {other['name']}", other["used_mib"]) for other in others]
    rows.append(("backend", "backend, as measured before", profile["backend_mib"] or 0))
    return [row for row in rows if row[2] > 0]


def _legend(plan: HostPlan, profiles: list[Column]) -> list[str]:
    present = {segment[0] for profile in profiles for segment in _segments(plan, profile)}
    parts, x = [], BAR_LEFT
    for kind, (name, colour) in KINDS.items():
        if kind in present:
            parts.append(f'<rect x="{x}" y="66" width="12" height="12" rx="2" fill="{colour}"/>')
            parts.append(label(x + 17, 77, name))
            x += 38 + 7 * len(name)
    return parts


def _bar(plan: HostPlan, profile: Column, top: int, card: int, scale: float) -> list[str]:
    limit, left = profile["limit_mib"], profile["headroom_mib"]
    of = f"no threshold, the card has {card}" if profile["max_used_mib"] is None else f"threshold {limit}"
    state = f"headroom {left}" if left >= 0 else f"{-left} too much"
    where = f"GPU {profile['tightest']['index']}: " if "tightest" in profile else ""
    bar_top = top + 28
    parts = [
        label(BAR_LEFT, top + 18, clipped(profile["label"] + (" (chosen)" if profile["chosen"] else ""), 50), "label"),
        label(
            BAR_LEFT + BAR_WIDTH,
            top + 18,
            f"{where}{profile['sum_mib']} MiB, {of}, {state}",
            "end" if left >= 0 else "end over",
        ),
        f'<rect class="card" x="{BAR_LEFT}" y="{bar_top}" width="{card * scale:.1f}" height="{BAR_HEIGHT}"/>',
    ]
    x = float(BAR_LEFT)
    for kind, segment, mib in _segments(plan, profile):
        width = mib * scale
        parts.append(
            f'<rect x="{x:.1f}" y="{bar_top}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="{KINDS[kind][1]}">'
            f"<title>{escaped(segment)}: {mib} MiB</title></rect>"
        )
        if width > 7 * len(str(mib)) + 8:
            parts.append(label(x + width / 2, bar_top + 22, str(mib), "inside"))
        x += width
    at = BAR_LEFT + limit * scale
    if profile["max_used_mib"] is not None:
        parts.append(
            f'<line class="limit" x1="{at:.1f}" y1="{bar_top - 6}" x2="{at:.1f}" y2="{bar_top + BAR_HEIGHT + 6}">'
            f"<title>threshold {limit} MiB</title></line>"
        )
    return parts


def label(x: float, y: float, text: str, kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{of_kind}>{escaped(text)}</text>'


def clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def escaped(text: str) -> str:
    """Safe between tags and in attributes, whatever a host calls its processes."""
    return escape(_NOT_XML.sub("?", text))

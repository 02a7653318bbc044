# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tuning run as one self-contained SVG picture: peak and speed over the setting, with the threshold. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, log10
from typing import TypedDict

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import tune_search
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.tune import Tuned, TunedProbe
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import budget_svg

LEFT, RIGHT, PLOT_HEIGHT, FIRST_TOP, GAP = 76, 24, 190, 92, 62
COLOURS = {tune_search.HELD: "#3ca951", tune_search.OVER: "#ff725c", tune_search.OUT_OF_MEMORY: "#cf222e"}
CURVE = "#7397f0"
STYLE = """
  .axis { stroke: #8c959f; stroke-width: 1 } .grid { stroke: #8c959f; stroke-width: 0.4; stroke-dasharray: 2 4 }
  .middle { text-anchor: middle } .line { fill: none; stroke: #7397f0; stroke-width: 2 }
"""


class Point(TypedDict):
    """A probe at its place on the axis, with its number and what is said of it."""

    outcome: str
    peak_mib: int | None
    tokens_per_s: float | None
    x: int
    n: int
    about: str


def svg(result: Tuned) -> str:
    """Of a search: the curve over num_gpu, and every probe beside it. Of a ladder: its steps."""
    steps = result["mode"] != "search"
    width, height = budget_svg.WIDTH, FIRST_TOP + 2 * PLOT_HEIGHT + GAP + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{budget_svg.escaped("Tuning of " + result["model"] + " on " + result["host"])}">',
        f"<style>{budget_svg.STYLE}{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        budget_svg.label(LEFT - 56, 30, budget_svg.clipped(f"{result['host']}: {result['model']}", 90), "title"),
        budget_svg.label(LEFT - 56, 50, budget_svg.clipped(_about(result), 130), "quiet"),
    ]
    points = _steps(result) if steps else _points(result)
    curve = [] if steps else result["curve"]
    places = [point["x"] for point in points] + [row["num_gpu"] for row in curve]
    x_of = _scale(min(places), max(places), LEFT, width - RIGHT)
    limit = result["max_used_mib"]
    peaks = [point["peak_mib"] or 0 for point in points] + [row["peak_mib"] for row in curve] + [limit]
    parts += _plot(
        FIRST_TOP, "peak, MiB", x_of, max(peaks) * 1.08, [(row["num_gpu"], row["peak_mib"]) for row in curve],
        [(point, point["peak_mib"]) for point in points], limit,
    )  # fmt: skip
    speeds = [point["tokens_per_s"] or 0 for point in points] + [row["tokens_per_s"] for row in curve]
    second = FIRST_TOP + PLOT_HEIGHT + GAP
    parts += _plot(
        second, "tokens/s", x_of, max([*speeds, 1]) * 1.08, [(row["num_gpu"], row["tokens_per_s"]) for row in curve],
        [(point, point["tokens_per_s"]) for point in points], None,
    )  # fmt: skip
    for place in _ticks(places, steps):
        name = f"step {place}" if steps else str(place)
        parts.append(budget_svg.label(x_of(place), second + PLOT_HEIGHT + 18, name, "middle quiet"))
    if not steps:
        parts.append(budget_svg.label(LEFT - 56, second + PLOT_HEIGHT + 18, "num_gpu", "quiet"))
    foot = "Points were measured, by the number of the probe." + (
        "" if steps else " Lines: num_gpu beside the best setting, by the planner after the measurements."
    )
    parts.append(budget_svg.label(LEFT - 56, height - 12, foot, "quiet"))
    return "\n".join([*parts, "</svg>\n"])


def _about(result: Tuned) -> str:
    gpu, best = result["gpu"], result["best"]
    found = f"best: {tune_search.Setting(**best)}" if best else result["why"]
    return f"{gpu['name']}, {gpu['total_mib']} MiB; {found}"


def _points(result: Tuned) -> list[Point]:
    return [_point(probe, number, probe["setting"]["num_gpu"]) for number, probe in enumerate(result["probes"], 1)]


def _steps(result: Tuned) -> list[Point]:
    return [_point(probe, number, number) for number, probe in enumerate(result["probes"], 1)]


def _point(probe: TunedProbe, number: int, x: int) -> Point:
    about = f"{number}: {tune_search.Setting(**probe['setting'])}: {probe['outcome']}"
    return {
        "outcome": probe["outcome"],
        "peak_mib": probe["peak_mib"],
        "tokens_per_s": probe["tokens_per_s"],
        "x": x,
        "n": number,
        "about": about,
    }


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    pad = 24 if high > low else (end - start) / 2
    step = (end - start - 2 * pad) / ((high - low) or 1)
    return lambda value: start + pad + (value - low) * step


def _ticks(places: Sequence[int], steps: bool) -> list[int]:
    low, high = min(places), max(places)
    every = 1 if steps or high - low <= 12 else max(1, round((high - low) / 11))
    return list(range(low, high + 1, every))


def _round_step(least: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is not below `least`."""
    power = 10.0 ** floor(log10(least))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= least * 0.999)


def _plot(
    top: int, name: str, x_of: Callable[[float], float], most: float, line: Sequence[tuple[int, float]],
    points: Sequence[tuple[Point, float | None]], limit: float | None,
) -> list[str]:  # fmt: skip
    bottom, right = top + PLOT_HEIGHT, budget_svg.WIDTH - RIGHT

    def y_of(value: float) -> float:
        return bottom - value / most * PLOT_HEIGHT

    parts = [
        budget_svg.label(LEFT - 56, top - 10, name, "label"),
        f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>',
    ]
    step = _round_step(most / 5)
    for number in range(1, int(most / step) + 1):
        y = y_of(number * step)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(budget_svg.label(LEFT - 8, y + 4, f"{number * step:g}", "end quiet"))
    if line:
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        parts.append(f'<polyline class="line" points="{path}"/>')
    if limit is not None:
        y = y_of(limit)
        parts.append(
            f'<line class="limit" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}">'
            f"<title>threshold {limit:.0f} MiB</title></line>"
        )
        parts.append(budget_svg.label(right, y - 6, f"threshold {limit:.0f}", "end over"))
    for point, value in points:
        if value is None:
            continue
        x, y = x_of(point["x"]), y_of(value)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[point["outcome"]]}">'
            f"<title>{budget_svg.escaped(point['about'])}</title></circle>"
        )
        parts.append(budget_svg.label(x + 8, y + 15, str(point["n"])))
    return parts

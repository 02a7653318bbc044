# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' text format, as node_exporter's textfile collector reads it (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """A metric's name with its base unit, its kind (`gauge` or `counter`) and what it means."""

    name: str
    kind: str
    help: str


@dataclass(frozen=True)
class Sample:
    """One value of a metric. Labels may hold anything; names of labels are ours."""

    metric: Metric
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def render(samples: Iterable[Sample]) -> str:
    """The text: each metric once with HELP and TYPE, its samples below it, in the order of their first sample."""
    lines_of: dict[Metric, list[str]] = {}
    for sample in samples:
        lines_of.setdefault(sample.metric, []).append(f"{sample.metric.name}{_labels(sample.labels)} {sample.value!r}")
    lines = []
    for metric, rows in lines_of.items():
        about = metric.help.replace("\\", r"\\").replace("\n", r"\n")
        lines += [f"# HELP {metric.name} {about}", f"# TYPE {metric.name} {metric.kind}", *rows]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    """A label's value. What is no text, such as half a surrogate pair, becomes a question mark."""
    text = value.encode(errors="replace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

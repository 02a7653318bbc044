# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import metrics
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.metrics import Metric, Sample

USED = Metric("gpu_memory_used_bytes", "gauge", "Used.")
LOADS = Metric("gpu_memory_loads_total", "counter", "Loads.")


def test_each_metric_has_its_help_and_type_once_and_its_samples_below() -> None:
    samples = [Sample(USED, 1, {"gpu": "0"}), Sample(LOADS, 2), Sample(USED, 1.5, {"gpu": "1"})]
    assert metrics.render(samples) == (
        "# HELP gpu_memory_used_bytes Used.\n"
        "# TYPE gpu_memory_used_bytes gauge\n"
        'gpu_memory_used_bytes{gpu="0"} 1\n'
        'gpu_memory_used_bytes{gpu="1"} 1.5\n'
        "# HELP gpu_memory_loads_total Loads.\n"
        "# TYPE gpu_memory_loads_total counter\n"
        "gpu_memory_loads_total 2\n"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('"} 1\ngpu_memory_nvml_up 0', r"\"} 1\ngpu_memory_nvml_up 0"),
        ("a\\", r"a\\"),
        ("half \ud800", "half ?"),
        ("Größe", "Größe"),
    ],
)
def test_a_label_cannot_end_its_line_or_quotes(value: str, written: str) -> None:
    line = metrics.render([Sample(USED, 1, {"process": value})]).splitlines()[2:]
    assert line == [f'gpu_memory_used_bytes{{process="{written}"}} 1']


@hypothesis.given(st.text())
def test_whatever_a_process_calls_itself_makes_one_series_that_reads_back(name: str) -> None:
    text = metrics.render([Sample(USED, 1, {"process": name})])
    *_unused, line, end = text.split("\n")
    assert text.count("\n") == 3 and end == ""
    quoted = line[len('gpu_memory_used_bytes{process="') : -len('"} 1')]
    # As Prometheus reads it (prometheus/common, expfmt/text_parse.go): \\, \" and \n are all there is.
    pieces = [piece.replace(r"\"", '"').replace(r"\n", "\n") for piece in quoted.split(r"\\")]
    assert "\\".join(pieces) == name.encode(errors="replace").decode()

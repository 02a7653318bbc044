"""The alert rules and the dashboard of the role monitor speak of metrics that there are, and Prometheus takes them.

promtool is Prometheus' own; `script/setup test` brings it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import metrics
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.metrics import Sample
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor import watch_rules

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "monitor" / "files"
RULES = FILES / "gpu_memory.rules.yml"
RULE_TESTS = ROOT / "tests" / "data" / "monitor" / "gpu_memory.rules.test.yml"
DASHBOARD = json.loads((FILES / "gpu_memory.dashboard.json").read_text())
NODE_EXPORTERS_OWN = {"node_textfile_scrape_error"}

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool") and "CI" not in os.environ, reason="promtool is not installed"
)


def promtool(*arguments: object, **options: Any) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:gpu_memory|node)_\w+", expression))


def expressions(panel: dict[str, Any]) -> Iterator[str]:
    for target in panel["targets"]:
        yield target["expr"]


@needs_promtool
def test_promtool_finds_nothing_to_say_of_the_metrics() -> None:
    """`promtool check metrics` is silent for names, units, HELP and TYPE as Prometheus wants them."""
    text = metrics.render(Sample(metric, 1, {"process": 'x"\n\\'}) for metric in watch_rules.METRICS)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_promtool
def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    promtool("check", "rules", RULES)


@needs_promtool
def test_each_alert_comes_when_it_should_and_not_before(tmp_path: Path) -> None:
    for file in (RULES, RULE_TESTS):
        shutil.copy(file, tmp_path)
    promtool("test", "rules", RULE_TESTS.name, cwd=tmp_path)


def test_every_alert_is_tested_both_ways_or_at_least_when_it_comes() -> None:
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    comes = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert comes == {rule["alert"] for rule in rules()}


def test_every_alert_says_where_to_look() -> None:
    for rule in rules():
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_rules_and_dashboard_speak_of_metrics_that_there_are() -> None:
    known = {metric.name for metric in watch_rules.METRICS} | NODE_EXPORTERS_OWN
    for rule in rules():
        assert metrics_in(rule["expr"]) and metrics_in(rule["expr"]) <= known, rule["alert"]
    for panel in DASHBOARD["panels"]:
        for expression in expressions(panel):
            assert metrics_in(expression) and metrics_in(expression) <= known, panel["title"]
    for variable in DASHBOARD["templating"]["list"][1:]:
        assert metrics_in(variable["query"]["query"]) <= known


def test_the_dashboard_has_what_grafana_wants_of_one() -> None:
    assert DASHBOARD["title"] and DASHBOARD["uid"] and DASHBOARD["schemaVersion"] >= 36
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, f"{panel['title']} lies over another panel"
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}", "it must work with any data source"
        assert all('instance=~"$instance"' in expression for expression in expressions(panel))


@needs_promtool
def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    texts = sorted({expression for panel in DASHBOARD["panels"] for expression in expressions(panel)})
    filled = [text.replace("$__rate_interval", "1m").replace("$instance", ".*") for text in texts]
    group = {"name": "dashboard", "rules": [{"record": f"panel:{at}", "expr": text} for at, text in enumerate(filled)]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [group]}))
    promtool("check", "rules", "--lint=none", tmp_path / "rules.yml")

"""The monitor of a host that runs stable, with the action `unload`: what it may do, what it sees, what it does."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.scenarios import lab_host
from tests.integration.scenarios import monitored_host as monitor

FILES = Path(__file__).resolve().parents[4] / "roles" / "monitor" / "files"
MODEL = "llama3.1:8b-instruct-q8_0"
WORST_EXPOSURE = 1.5  # of 10, by `systemd-analyze security`


class Prometheus:
    """Debian's Prometheus on this machine's loopback, which scrapes the host's node_exporter every second."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        return [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]

    def ready(self) -> bool:
        try:
            return bool(self.values("gpu_memory_last_run_timestamp_seconds"))
        except OSError:
            return False


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FILES / "gpu_memory.rules.yml")],
        "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [f"{monitor.address()}:9100"]}]}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--web.listen-address={listen}"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--storage.tsdb.path={directory}/data"], stdout=log, stderr=log)
    try:
        server = Prometheus(f"http://{listen}")
        monitor.eventually(lambda: server.ready() or process.poll() is not None)
        assert process.poll() is None, (directory / "log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


# What it may do.


def main_pid(host: Any) -> str:
    return str(host.check_output(f"systemctl show {monitor.UNIT} -p MainPID --value"))


def test_systemd_finds_it_hardened(host: Any) -> None:
    text = host.check_output(f"systemd-analyze security --no-pager {monitor.UNIT}")
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    assert exposure and float(exposure[1]) <= WORST_EXPOSURE, text


def test_it_is_nobody_and_sees_nothing_of_what_is_kept(host: Any) -> None:
    pid = main_pid(host)
    status = host.check_output(f"cat /proc/{pid}/status")
    assert not re.search(r"^Uid:\s+0\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE) and re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert len(host.file("/var/lib/gpu-memory").listdir()) > 1
    assert host.check_output(f"ls /proc/{pid}/root/var/lib/gpu-memory") == "monitor"
    assert host.run(f"nsenter --target {pid} --mount touch /etc/x /var/lib/x /usr/x").rc != 0


def test_it_starts_at_boot(host: Any) -> None:
    assert host.service("gpu-memory-monitor").is_enabled
    assert host.service("gpu-memory-monitor").is_running


# What it sees.


def test_promtool_has_nothing_to_say_of_its_metrics(host: Any) -> None:
    monitor.promtool("check", "metrics", given=host.file(monitor.METRICS).content_string)


def test_all_is_well(host: Any) -> None:
    assert monitor.value(host, "nvml_up") == monitor.value(host, "journal_up") == 1
    assert monitor.value(host, "threshold_bytes") == 12288 * 2**20
    assert monitor.value(host, "over_threshold") == 0
    assert monitor.value(host, "log_read") == monitor.value(host, "judged") == 1
    drift = {name: value for name, value in monitor.metrics(host).items() if name.startswith("drift")}
    assert len(drift) >= 6 and not any(drift.values())
    assert monitor.value(host, "model_gpu_layers") == monitor.value(host, "model_layers") == 33


def test_prometheus_scrapes_it(host: Any, prometheus: Prometheus) -> None:
    (used,) = prometheus.values("gpu_memory_used_bytes")
    assert used == int(host.check_output(f"python3 {lab_host.SIMULATED_GPU} used").split()[0]) * 2**20
    assert prometheus.values("node_textfile_scrape_error") == [0]
    # Debian's collector leaves out a file that it cannot read, without a word in the metrics but this one.
    assert prometheus.get("query", query="node_textfile_mtime_seconds")["result"]


def test_prometheus_evaluates_every_rule_and_every_panel(host: Any, prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]]:
        (group,) = prometheus.get("rules")["groups"]
        return [] if any(rule["health"] == "unknown" for rule in group["rules"]) else group["rules"]

    rules = monitor.eventually(evaluated)
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == []
    for panel in json.loads((FILES / "gpu_memory.dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            found = prometheus.values(expression)
            # A counter may have no second value yet, and nothing drifts; every other panel shows something.
            assert found or "increase" in expression or panel["title"] == "Drift", expression


# What it does. These go on from one to the next.


def test_a_breach_is_seen_within_two_periods_and_the_alert_fires(host: Any, prometheus: Prometheus) -> None:
    assert monitor.loaded_models(host), "the load test has left a model"
    used = int(host.check_output(f"python3 {lab_host.SIMULATED_GPU} used").split()[0])
    assert monitor.periods_until(host, "over_threshold", 1, f"{monitor.STRANGER} {12289 - used}") <= 2
    monitor.eventually(lambda: prometheus.values('ALERTS{alertname="GpuMemoryOverThreshold",alertstate="firing"}'))


def test_it_has_ollama_unload_its_models_once(host: Any) -> None:
    monitor.periods_until(host, "actions_total", 1)
    monitor.eventually(lambda: monitor.loaded_models(host) == [])
    assert monitor.value(host, "action_failures_total") == 0
    monitor.periods_until(host, "over_threshold", "=0")


def test_it_does_not_act_again_within_the_interval(host: Any) -> None:
    monitor.periods_until(host, "over_threshold", 1, f"{monitor.STRANGER} 13000")
    breached = monitor.value(host, "samples_total")
    monitor.periods_until(host, "samples_total", breached + 20)  # four periods
    assert monitor.value(host, "over_threshold") == 1
    assert monitor.value(host, "actions_total") == 1
    assert monitor.value(host, "breaches_total") == 2


def test_a_failed_load_is_seen_in_the_journal(host: Any) -> None:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "options": {"num_gpu": 99}})
    chat = f"curl --silent --max-time 60 --output /dev/null --data '{body}' http://127.0.0.1:11434/api/chat"
    assert monitor.periods_until(host, 'journal_failures_total{severity="fatal"}', 1, chat) <= 2
    assert monitor.periods_until(host, "over_threshold", "=0", monitor.NO_STRANGER) <= 2


def test_a_drop_in_that_somebody_edits_is_drift(host: Any) -> None:
    setting = 'drift{setting="OLLAMA_NUM_PARALLEL"}'
    assert monitor.periods_until(host, setting, 1, monitor.DROP_IN_OF_ANOTHER) <= 2
    back = f"sed -i 's/OLLAMA_NUM_PARALLEL=3/OLLAMA_NUM_PARALLEL=2/' {lab_host.DROP_IN}"
    assert monitor.periods_until(host, setting, "=0", back) <= 2


def test_a_log_that_goes_elsewhere_is_not_read_and_has_no_number(host: Any) -> None:
    assert monitor.periods_until(host, "log_read", "=0", monitor.log_to("StandardError=null")) <= 2
    found = monitor.metrics(host)
    assert 'journal_failures_total{severity="recovered"}' not in found and 'drift{setting="num_ctx"}' not in found
    # It had begun to follow before there was this journal, and finds it within a minute.
    monitor.periods_until(host, "log_read", 1, monitor.log_to("LogNamespace=ai"))
    assert monitor.value(host, 'journal_failures_total{severity="recovered"}') == 0
    monitor.periods_until(host, "log_read", 1, monitor.log_to())


def test_it_says_each_thing_once_in_its_journal(host: Any) -> None:
    said = host.check_output(f"journalctl --unit {monitor.UNIT} --output cat --no-pager --identifier python3")
    assert said.count("action on a breach: unload") == 1
    assert len(re.findall(r"^GPU 0: \d+ of at most 12288 MiB used$", said, re.MULTILINE)) == 2
    assert len(re.findall(r"^ended: GPU 0: ", said, re.MULTILINE)) == 2


def test_a_gpu_that_is_lost_is_told_and_comes_back(host: Any) -> None:
    fault = f"python3 {lab_host.SIMULATED_GPU} fault --function 'nvmlDeviceGetMemoryInfo*' --code GpuIsLost"
    assert monitor.periods_until(host, "nvml_up", "=0", fault) <= 2
    assert monitor.periods_until(host, "nvml_up", 1, f"python3 {lab_host.SIMULATED_GPU} clear fault") <= 2

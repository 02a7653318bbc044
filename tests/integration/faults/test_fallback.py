# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fallback profile, and what an operator has done around a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration import records
from tests.integration.faults.fault_lab import ANSWERS, BACKEND, PICTURE, SETTLED, Host, playbook
from tests.integration.faults.table import ON_NEW, POSTED, patched_backend

FAILS_ON_STABLE = patched_backend(
    POSTED, f'if {ON_NEW}:\n            return 500, {{"detail": "too much"}}\n        {POSTED}'
)
LET_IN = """
- name: Note when users came back, and what was proven
  ansible.builtin.shell:
    cmd: "cut -d ' ' -f 1 /proc/uptime > /run/let-in; echo {{ gpu_memory_result.verdict }} > /run/verdict"
  changed_when: true
"""
STARTED = "systemctl show selo-backend --property ActiveEnterTimestampMonotonic --value"


def apply(host: Host, directory: Path, **variables: Any) -> tuple[int, dict[str, Any]]:
    run = playbook(host, directory, "playbooks/apply.yml", **variables)
    output, _ = run.communicate(timeout=600)
    print(output)
    return run.returncode, records.read(directory / f"{host.name}.json")


def hooks(directory: Path) -> dict[str, Any]:
    (directory / "let_in.yml").write_text(LET_IN)
    return {
        "gpu_memory_before_restart": {"commands": ["touch /run/drained", "cp /proc/uptime /run/drained"]},
        "gpu_memory_after_proof": {"tasks": str(directory / "let_in.yml")},
    }


def test_the_fallback_profile_is_proven_where_the_wanted_one_does_not_hold(host: Host, tmp_path: Path) -> None:
    host.read(FAILS_ON_STABLE)
    status, record = apply(host, tmp_path, gpu_memory_fallback_profile="conservative", **hooks(tmp_path))
    assert (status, record["verdict"], record["profile"]) == (0, "fell_back", "conservative")
    for words in ("stable: ", "3 of 3 requests failed", "conservative is proven instead"):
        assert words in record["reason"]
    assert (record["first"]["verdict"], record["first"]["profile"]) == ("rolled_back", "stable")
    assert record["peak_used_mib"] <= record["max_used_mib"] == 10240
    host.read(
        f"{SETTLED} && {ANSWERS} && grep -Eq '^CHAT_NUM_CTX=2048( |$)' {BACKEND}/.env && ! ls {BACKEND}/.env.stable*"
    )
    # Users stay away from before the first restart until the second profile is proven.
    drained, let_in = (float(host.read(f"cut -d ' ' -f 1 /run/{name}")) for name in ("drained", "let-in"))
    assert drained < float(host.read(STARTED)) / 1e6 < let_in
    assert host.read("cat /run/verdict").strip() == "fell_back"


def test_a_hook_that_fails_before_the_restart_leaves_the_host_as_it_was(host: Host, tmp_path: Path) -> None:
    before = host.read(PICTURE + STARTED)
    hook = {**hooks(tmp_path), "gpu_memory_before_restart": {"commands": ["ls /no/such/balancer"]}}
    status, record = apply(host, tmp_path, **hook)
    assert (status, record["verdict"]) == (2, "fail")
    assert "gpu_memory_before_restart" in record["reason"] and "/no/such/balancer" in record["reason"]
    host.read(SETTLED)
    assert host.read(PICTURE + STARTED) == before
    assert host.read("cat /run/verdict").strip() == "fail", "it may be half out of the balancer, and it serves"


def test_a_hook_that_fails_after_the_proof_fails_the_run_and_not_the_host(host: Host, tmp_path: Path) -> None:
    status, record = apply(host, tmp_path, gpu_memory_after_proof={"commands": ["false"]})
    assert (status, record["verdict"]) == (2, "pass")
    assert "gpu_memory_after_proof" in record["reason"] and "users may still be kept away" in record["reason"]
    host.read(f"{SETTLED} && {ANSWERS} && grep -q '\"proof\"' /var/lib/gpu-memory/pointers.json")

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which units go along with another one, by what systemctl says of each."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import dependents


def read(units: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    return dependents.read("ollama.service", lambda unit: {"ActiveState": "active", **units.get(unit, {})})


def test_those_that_run_are_followed_and_each_is_told_once() -> None:
    found = read(
        {
            "ollama.service": {"ConsistsOf": "a.service off.service", "RequiredBy": "b.service"},
            "a.service": {"ConsistsOf": "c.service ollama.service"},
            "b.service": {"ActiveState": "reloading", "BoundBy": "c.service"},
            "off.service": {"ActiveState": "inactive", "ConsistsOf": "never.service"},
        }
    )
    assert {one["unit"]: one["why"] for one in found} == {
        "a.service": "PartOf=ollama.service",
        "b.service": "Requires=ollama.service",
        "c.service": "BindsTo=b.service",
    }


def test_it_ends_where_there_is_no_end() -> None:
    def show(unit: str) -> dict[str, str]:
        return {"ActiveState": "active", "ConsistsOf": f"x{unit}"}

    assert len(dependents.read("ollama.service", show)) == dependents.MOST


def test_a_unit_that_nobody_knows_has_none() -> None:
    assert dependents.read("no-such-unit-here.service") == []

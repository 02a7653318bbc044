# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of the units that go along with another one."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import dependents


def test_each_kind_is_told_by_the_line_in_its_own_file() -> None:
    properties = {
        "ActiveState": "active",
        "RequiredBy": "a.service b.service",
        "BoundBy": "c.service",
        "ConsistsOf": "",
        "WantedBy": "multi-user.target",
    }
    assert dependents.named("ollama.service", properties) == {
        "a.service": "Requires=ollama.service",
        "b.service": "Requires=ollama.service",
        "c.service": "BindsTo=ollama.service",
    }

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The units that systemd stops or restarts along with another one. Pure.

`{unit, why}` is one of them: the unit's name, and what in its file makes it so, as `PartOf=ollama.service`.
"""

from __future__ import annotations

from collections.abc import Mapping

# Property of the one -> directive of the other.
DIRECTIVES = {
    "RequiredBy": "Requires",
    "RequisiteOf": "Requisite",
    "BoundBy": "BindsTo",
    "ConsistsOf": "PartOf",
    "PropagatesStopTo": "StopPropagatedFrom",
}
RUNNING = ("active", "reloading")


def named(unit: str, properties: Mapping[str, str]) -> dict[str, str]:
    """The units that go along with `unit` by its properties, and why."""
    return {
        other: f"{directive}={unit}"
        for name, directive in DIRECTIVES.items()
        for other in (properties.get(name) or "").split()
    }

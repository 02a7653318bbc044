# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which running units of this host systemd stops or restarts along with another one. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import dependents
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import service_properties

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Dependent

PROPERTIES = ",".join(["ActiveState", *dependents.DIRECTIVES])
MOST = 50  # that are followed

Show = Callable[[str], dict[str, str]]


def _show(unit: str) -> dict[str, str]:
    return service_properties.of(unit, PROPERTIES)


def read(unit: str, show: Show = _show) -> list[Dependent]:
    """The running units that go along with `unit`, and with those again, as `core.systemd.dependents` has them."""
    found: dict[str, str] = {}
    seen = {unit}
    named = list(dependents.named(unit, show(unit)).items())
    while named and len(seen) <= MOST:
        name, why = named.pop(0)
        if name in seen:
            continue
        seen.add(name)
        properties = show(name)
        if properties.get("ActiveState") in dependents.RUNNING:
            found[name] = why
            named += dependents.named(name, properties).items()
    return [{"unit": name, "why": why} for name, why in found.items()]

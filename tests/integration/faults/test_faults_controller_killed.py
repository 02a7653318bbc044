# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault again with the controller killed at its worst moment: the host alone is back, or proven, in 5 minutes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from tests.integration.faults.alone import WITHIN_S, Alone
from tests.integration.faults.table import Fault


def test_alone(
    written_fault: Fault, alone: dict[str, Future[Alone]], record_property: Callable[[str, object], None]
) -> None:
    host = alone[written_fault.name].result()
    print(host)
    record_property("after_s", host.after_s)
    assert list(host.problems) == []
    assert host.after_s <= WITHIN_S

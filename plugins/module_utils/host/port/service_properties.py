# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a service: a unit by systemd, one of Docker Compose by Docker, in the same words."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands, docker


def show(unit: str | None, names: str) -> str:
    """What `systemctl show` prints of a unit, or of systemd itself; `names`: the properties, with commas between.

    Nothing where it fails. It does not for a unit that is not there.
    """
    if compose.is_one(unit):
        return docker.show(str(unit), names)
    units = [] if unit is None else [unit]
    return commands.run(["systemctl", "show", *units, "--property", names]).stdout.decode(errors="replace")


def of(unit: str, names: str) -> dict[str, str]:
    """The same by name, where each has one line."""
    return dict(line.partition("=")[::2] for line in show(unit, names).split("\n") if line)

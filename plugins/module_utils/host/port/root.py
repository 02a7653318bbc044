# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a module has the rights that it needs, asked before anything else."""

from __future__ import annotations

import os
import pwd
from typing import Protocol


class Module(Protocol):
    def fail_json(self, *, msg: str) -> None: ...


def required(module: Module) -> None:
    """Fail the module where it does not run as root: it would read half, and report that."""
    if os.geteuid() != 0:
        module.fail_json(
            msg=f"this needs root on the host, but runs there as {_user()}; set become: true in the play, "
            "or ansible_become in the inventory, and see that become_user is root"
        )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"the user {os.geteuid()}"

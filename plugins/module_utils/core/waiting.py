# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a controller that waits for a job on a host shows that it does, and how it is told that it lost the host."""

from __future__ import annotations

NOT_HELD = "does not hold this host"  # in what fails of a run on a host that it has lost


def sign(progress_path: str) -> str:
    """The file whose time changes each time that somebody who waits looks at the figures of the moment."""
    return f"{progress_path}.waited"

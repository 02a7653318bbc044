# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module says that may meet secrets of the host's owner."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  show_secrets:
    description:
      - Shows lines of journals and errors of answers as they are, for debugging. By default the values that the host's
        env files and units keep are masked in them, and so is all that looks like a credential.
      - Headers of requests are never shown.
      - Set by the action plugin where the variable C(gpu_memory_show_secrets) is true.
    type: bool
    default: false
"""

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs this module on its host, and each that meta/runtime.yml sends here: see plugin_utils/glue/on_host.py."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue.on_host import ActionModule

__all__ = ["ActionModule"]

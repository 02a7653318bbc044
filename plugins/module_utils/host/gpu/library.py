# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPU library GPUs are read with."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library, port

LIBRARY: port.GpuLibrary = nvml_library

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller knows the host tool that a host would make of the same collection."""

from __future__ import annotations

import io
import zipfile

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import host_tool as on_host
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import host_tool


def test_it_is_the_digest_that_the_tool_bears() -> None:
    with zipfile.ZipFile(io.BytesIO(on_host.archive())) as tool:
        assert tool.comment.decode() == host_tool.digest()

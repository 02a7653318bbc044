# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the backend has read its env files as they are: by their time, and by what the last proof was of."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import backend_run
from ansible_collections.selo.gpu_memory.tests.unit.builders import ENV_PATH, env_file, read

OLD, NEW = "0" * 64, "1" * 64


def has_read(**changes: Any) -> bool:
    """Of a file that was touched after the backend's start: `changes` since a proof with `OLD` in it."""
    host = read(**{"backend__env_files": [env_file(modified_s=9000.0)], **changes})
    host["state"]["proof"] = {"backend": backend_run.of_proven(read())}
    return backend_run.has_read(host, host["backend"]["env_files"][0])


def test_what_was_written_before_the_start_was_read():
    assert backend_run.has_read(read(), env_file(modified_s=6001.0, sha256=NEW))
    assert not backend_run.has_read(read(), env_file(modified_s=6001.5))


def test_a_file_from_the_future_tells_nothing():
    assert backend_run.has_read(read(), env_file(modified_s=None, sha256=NEW))


def test_what_was_touched_and_says_what_the_proven_processes_have_read_was_read():
    assert has_read()
    assert has_read(backend__pids=[])  # one of several has ended


@pytest.mark.parametrize(
    "changes",
    [
        {"backend__env_files": [env_file(modified_s=9000.0, sha256=NEW)]},
        {"backend__env_files": [env_file(modified_s=9000.0, sha256=None)]},
        {"backend__env_files": [env_file(f"{ENV_PATH}.other", modified_s=9000.0)]},
        {"backend__started_s": 6001.5},  # started anew, with whatever was in it then
        {"backend__pids": [500, 501]},  # a worker that began later
        {"host__boot_id": "another"},
    ],
    ids=str,
)
def test_a_process_or_a_content_that_was_not_proven_may_differ(changes):
    assert not has_read(**changes)


def test_of_no_backend_there_is_nothing_to_keep():
    assert backend_run.of_proven(read(backend__pids=[], backend__started_s=None)) is None
    assert backend_run.of_proven(read(backend__env_files=[env_file(sha256=None)]))["files"] == {}

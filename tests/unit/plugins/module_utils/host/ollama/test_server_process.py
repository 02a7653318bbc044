# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who answers at an address, tried on sockets of this very process."""

from __future__ import annotations

import os
import socket

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_process

NO_UNIT = {"main_pid": 0, "active_state": "inactive", "control_group": None}


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1]


def test_who_listens_is_found(listening):
    found = server_process.read(NO_UNIT, f"http://127.0.0.1:{listening}", answers=True)
    assert found["server"]["pid"] == os.getpid()
    assert not found["server"]["ours"]


def test_the_units_own_process_is_ours(listening):
    unit = {**NO_UNIT, "main_pid": os.getpid(), "active_state": "active"}
    assert server_process.read(unit, f"http://127.0.0.1:{listening}", answers=True)["server"]["ours"]


def test_a_process_that_takes_connections(listening):
    assert server_process.listening([os.getpid(), 1, 2**22 + 1]) == [os.getpid()]


def test_nobody_listens(listening):
    found = server_process.read(NO_UNIT, "http://127.0.0.1:1", answers=True)["server"]
    assert found["pid"] is None
    assert server_process.read(NO_UNIT, "http://127.0.0.1:1", answers=False)["server"] is None


def test_where_a_silent_unit_listens(listening):
    unit = {**NO_UNIT, "main_pid": os.getpid(), "active_state": "active"}
    assert f"http://127.0.0.1:{listening}" in server_process.read(unit, "http://127.0.0.1:1", answers=False)["listens"]


def test_only_ollamas_are_other_ollamas():
    assert server_process.others([], [{"pid": os.getpid()}]) == []

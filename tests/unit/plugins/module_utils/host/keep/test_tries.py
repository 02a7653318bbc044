# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pauses between tries, and what is made of a file that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import going_back, tries
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import FakeHost


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(run=str(tmp_path))


def test_pauses_double_and_have_an_end() -> None:
    assert [going_back.pause_s(count) for count in (1, 2, 3, 7, 8, 10**6)] == [10, 20, 40, 600, 600, 600]


def test_what_an_older_release_has_noted_is_one_process_of_each_service(paths: Paths) -> None:
    going_back.write_json(paths.tries, {"count": 1, "again_s": 5.0, "old": {"backend": 12}}, mode=0o644)
    assert tries.of(paths)["old"] == {"backend": [12]}


def test_nothing_is_due_until_the_pause_is_over(paths: Paths) -> None:
    host = FakeHost()
    assert not tries.wait(paths, host)
    going_back.add_try(paths, host, {"backend": [12]})
    assert tries.wait(paths, host) and tries.of(paths)["old"] == {"backend": [12]}
    host.now += 10
    assert not tries.wait(paths, host)
    host.now -= 900  # of another boot
    assert not tries.wait(paths, host)
    assert going_back.add_try(paths, host, {}) == 20 and tries.of(paths)["count"] == 2
    assert os.stat(paths.tries).st_mode & 0o777 == 0o644  # for the monitor
    going_back.forget_tries(paths)
    assert not os.path.exists(paths.tries) and not tries.wait(paths, host)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}'])
def test_what_cannot_be_read_holds_nothing_up(paths: Paths, text: str) -> None:
    Path(paths.tries).write_text(text)
    assert not tries.wait(paths, FakeHost())

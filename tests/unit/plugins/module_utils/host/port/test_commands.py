# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real commands, and what is said of those that do not run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands

SHOW = "import os, sys; print(os.getcwd(), os.environ['LC_ALL'], os.environ['TZ'], os.environ['A']); sys.exit(3)"


def test_status_output_and_surroundings(tmp_path: Path) -> None:
    done = commands.run([sys.executable, "-c", SHOW], directory=str(tmp_path), environment={"A": "1"})
    assert done == (3, f"{tmp_path} C UTC 1\n".encode(), b"")


def test_what_does_not_run_says_why(tmp_path: Path) -> None:
    missing = commands.run([str(tmp_path / "no-such-command")])
    assert missing.status == commands.NO_SUCH_COMMAND and b"No such file" in missing.stderr
    endless = commands.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)
    assert endless.status == commands.TIMED_OUT and b"0.2 s" in endless.stderr


def test_following_writes_where_it_is_told() -> None:
    ours, theirs = os.pipe()
    process = commands.follow([sys.executable, "-c", "print('line')"], theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as output:
        assert output.read() == b"line\n"
    assert process.wait(timeout=20) == 0

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the host, run without a shell; also by the host's tool and the monitor, where there is no Ansible."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NO_SUCH_COMMAND, TIMED_OUT = 127, 124  # as a shell and timeout(1) have it


class Done(NamedTuple):
    """Exit status and output. Of a command that could not be run, `stderr` says why."""

    status: int
    stdout: bytes
    stderr: bytes


def run(
    arguments: Sequence[str],
    timeout_s: float = 30,
    *,
    directory: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Run a command in the C locale and in UTC, with `environment` on top."""
    try:
        # AnsibleModule.run_command, which ansible-test wants here, is only where a module runs.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            list(arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            cwd=directory,
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC", **(environment or {})},
            check=False,
        )
    except OSError as problem:
        return Done(NO_SUCH_COMMAND, b"", str(problem).encode())
    except subprocess.TimeoutExpired:
        return Done(TIMED_OUT, b"", f"it did not end within {timeout_s:g} s".encode())
    return Done(done.returncode, done.stdout, done.stderr)


def follow(arguments: Sequence[str], output: int) -> subprocess.Popen[bytes]:
    """Start a command that writes to the descriptor `output` for as long as it runs."""
    return subprocess.Popen(  # pylint: disable=ansible-bad-function
        list(arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL
    )

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for a load test that runs on the host, and show memory meanwhile.

Reads two small files with a plain command, which waits for the end on the host: that is known within a second, at few
commands. No module is sent. A connection that is lost for a moment is not a failure.
Where a wave has more hosts than Ansible has forks, most are waited for only after their load test has ended; nothing
of it depends on the waiting. Each look leaves a sign on the host: where all of a wave are waited for at once, a load
test renews its host's lease by these, so that the lease ends soon after a controller that died.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import waiting
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_record

POLL_S = 1.0
COMMANDS_A_SECOND = 4  # to all hosts of a wave
LONGEST_COMMAND_S = 15
SHOWN_EVERY_S = 2.0
LOST_FOR_S = 30.0
SILENT_FOR_S = 60.0  # the load test writes its progress twice a second, whatever Ollama does
SEPARATOR = "--gpu-memory--"


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        given = self._task.args
        host = (task_vars or {}).get("inventory_hostname", "")
        wave_mates = len((task_vars or {}).get("ansible_play_batch") or [])
        command_s = min(wave_mates // COMMANDS_A_SECOND, LONGEST_COMMAND_S)
        deadline = time.monotonic() + float(given["timeout_s"])
        answered = shown = moved = time.monotonic()
        last = None
        while time.monotonic() < deadline:
            asked = time.monotonic()
            try:
                progress, finished = self._poll(given, command_s)
                answered = time.monotonic()
            except AnsibleConnectionFailure as problem:
                if time.monotonic() - answered > LOST_FOR_S:
                    return {"failed": True, "lost_connection": True, "msg": f"lost the connection: {problem.message}"}
                progress, finished = None, None
            if finished is not None:
                self._clean_up(given)
                # The verdict is drawn from the whole picture, so a breach is a finding here and not yet a failure.
                return {**finished, "changed": False, "failed": False, "breached": bool(finished.get("failed"))}
            if progress and progress != last:
                last, moved = progress, time.monotonic()
            elif time.monotonic() - moved > SILENT_FOR_S:
                self._clean_up(given)
                self._clean_up_after_job(given)
                return {
                    "failed": True,
                    "msg": f"the load test has been silent for {SILENT_FOR_S:g} s: it was ended there",
                }
            if progress and time.monotonic() - shown >= SHOWN_EVERY_S:
                shown = time.monotonic()
                Display().display(host_record.progress_line(host, int(given.get("wave") or 1), progress))
            time.sleep(max(0.0, asked + POLL_S - time.monotonic()))
        self._clean_up_after_job(given)
        return {"failed": True, "msg": f"the load test did not end within {given['timeout_s']} s"}

    def _clean_up(self, given: dict[str, Any]) -> None:
        """Leave nothing of the job behind; a connection lost just now is the next task's finding."""
        quote = self._connection._shell.quote
        files = " ".join(
            map(quote, (given["results_file"], given["progress_path"], waiting.sign(given["progress_path"])))
        )
        with contextlib.suppress(AnsibleConnectionFailure):
            self._low_level_execute_command(
                f"rm -f {files}; rmdir {quote(os.path.dirname(given['results_file']))} 2>/dev/null; true"
            )

    def _clean_up_after_job(self, given: dict[str, Any]) -> None:
        """What a job that was killed has left: the headers, which are root's, and the directory of the login's user."""
        quote = self._connection._shell.quote
        with contextlib.suppress(AnsibleConnectionFailure):
            if given.get("headers_path"):
                self._low_level_execute_command(f"rm -f {quote(given['headers_path'])}")
            if given.get("tmpdir"):
                self._low_level_execute_command(f"rm -rf {quote(given['tmpdir'])}", sudoable=False)

    def _poll(self, given: dict[str, Any], seconds: int) -> tuple[dict[str, object] | None, dict[str, object] | None]:
        """Progress and result, if there are any; the result at once if it comes within so many seconds."""
        quote = self._connection._shell.quote
        progress, results = quote(given["progress_path"]), quote(given["results_file"])
        # While the load test runs its progress is the newer file; after that nothing but the result is written.
        wait = f"n=0; until [ {results} -nt {progress} ] || [ $n -ge {seconds} ]; do sleep 1; n=$((n + 1)); done"
        sign = f"touch {quote(waiting.sign(given['progress_path']))}"
        commands = [sign, wait, f"cat {progress}", f"echo {SEPARATOR}", f"cat {results}"]
        output = self._low_level_execute_command("{ " + "; ".join(commands) + "; } 2>/dev/null; true")
        shown, _unused, result = output["stdout"].partition(SEPARATOR)
        finished = _json(result)
        # While a job runs its file says `started`; at the end the module's own result stands there instead.
        return _json(shown), None if finished is None or "started" in finished else finished


def _json(text: str) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

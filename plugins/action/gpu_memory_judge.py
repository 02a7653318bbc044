# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge a host and write its record. Contacts no host."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.decision import Judged
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, record_files
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import ending, lasting, verdicts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import sizes
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import backend_run
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_record


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        host = (task_vars or {})["inventory_hostname"]
        if self._task.args["at"] == "begin":
            return {**result, "changed": False, **self._begin(host)}
        # A task that was skipped is registered as well; for the record it did not happen.
        self.given = {name: value for name, value in self._task.args.items() if not _skipped(value)}
        problem = controller.begun_in_the_middle(self.given.get("declared"), self.given.get("gate"))
        if problem and self.given["at"] == "end":
            raise AnsibleActionFail(problem)
        self.given["declared"] = sizes.sized(self.given["declared"], _succeeded(self.given.get("read")))
        self.meanwhile = self._changed_meanwhile()
        return {
            **result,
            "changed": False,
            **(self._after_load(host) if self.given["at"] == "load" else self._end(host)),
        }

    def _changed_meanwhile(self) -> lasting.Changed:
        """What was changed while the host was loaded; from here on `after` is as the services have read their files."""
        before, after = (_succeeded(self.given.get(name)) for name in ("read", "after"))
        decision = self.given.get("decision")
        if not decision or decision["problems"] or not before or not after:
            return lasting.NOTHING
        restarted = self.given.get("restarted")
        found = lasting.changed(self.given["declared"], decision, before, restarted, after)
        self.given["after"] = lasting.as_started(decision, before, restarted, after, found)
        return found

    def _begin(self, host: str) -> Record:
        """Until its end has come, a host is one that was lost."""
        if any("gpu_memory_result" in str(condition) for condition in self._task.when):
            raise AnsibleActionFail(
                "a `when` of import_role or roles counts for each task of the role, which changes gpu_memory_result, "
                "and so may end it in the middle; nothing was changed; use include_role with that `when`"
            )
        return host_record.lost(host)

    def _record(self, host: str, verdict: str, reasons: list[str]) -> Record:
        given = self.given
        return host_record.record(
            host,
            given["declared"],
            verdict,
            reasons,
            decision=given.get("decision"),
            before=_succeeded(given.get("read")),
            load=given.get("load"),
            after=_succeeded(given.get("after")),
            restarted=given.get("restarted"),
            restored=given.get("restored"),
            generation=(given.get("kept") or {}).get("generation"),
        )

    def _after_load(self, host: str) -> Judged:
        """The judgement of a load. Where something was deployed, anything but a pass fails, so that it is put back.

        But for what an owner has written into an env file meanwhile: that stays, and would not go by a rollback.
        """
        given = self.given
        declared, after, meanwhile = given["declared"], given["after"], self.meanwhile
        verdict, reasons = verdicts.judge_load(declared, given["load"], after, _succeeded(given.get("read")), meanwhile)
        judged: Judged = {"verdict": verdict, "reasons": reasons}
        if verdict == "pass":
            key = decisions.key_of_proven(declared, given["decision"], after)
            record, run = self._record(host, verdict, reasons), backend_run.of_proven(after)
            return {**judged, "record": record, "proof_key": key, "proof_backend": run}
        if given.get("enforce") and not set(reasons) <= set(meanwhile.lines.values()):
            judged["failed"], judged["msg"] = True, "\n".join([f"{verdict}:", *(f"- {reason}" for reason in reasons)])
        return judged

    def _end(self, host: str) -> dict[str, object]:
        given = self.given
        decision = given.get("decision")
        ended = ending.end(
            given["declared"],
            given["gate"],
            decision=decision,
            judged=given.get("judged"),
            failure=given.get("failure"),
            restored=given.get("restored"),
            generation=(given.get("kept") or {}).get("generation"),
            first=given.get("first"),
            drained=bool(given.get("drained")),
            hook_failure=given.get("hook_failure"),
            check_mode=self._task.check_mode,
        )
        if ended.verdict == "pass" and decision and decision.get("proof") and not given.get("load"):
            record = host_record.of_proof(host, decision["proof"], decision["notes"])
        else:
            record = self._record(host, ended.verdict, ended.reasons)
        directory = controller.report_directory(given["report_dir"])
        record = {**record, "wave": given["gate"]["wave"], "ok": ended.ok, "first": given.get("first")}
        record, file = record_files.dated(directory, record, time.time()), None
        if not self._task.check_mode:
            record, file = record_files.written(directory, record)
        ends = {"falls_back": ended.falls_back, "drained": ended.drained, "serves": ended.serves}
        return {**record, **ends, "file": file}


def _succeeded(read: HostFacts | None) -> HostFacts | None:
    """A read that failed was registered all the same, without its content."""
    return read if read and not read.get("failed") else None


def _skipped(value: object) -> bool:
    return isinstance(value, dict) and bool(value.get("skipped"))

# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge a host and write its record. Contacts no host."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.declared import Declared
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, record_files
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import verdicts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import sizes
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
        return {
            **result,
            "changed": False,
            **(self._after_load(host) if self.given["at"] == "load" else self._end(host)),
        }

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

    def _after_load(self, host: str) -> dict[str, Any]:
        """The judgement of a load. Where something was deployed, anything but a pass fails, so that it is put back."""
        given = self.given
        verdict, reasons = verdicts.judge_load(
            given["declared"], given["load"], given["after"], _succeeded(given.get("read"))
        )
        judged: dict[str, Any] = {"verdict": verdict, "reasons": reasons}
        if verdict == "pass":
            key = decisions.key_of_proven(given["declared"], given["decision"], given["after"])
            return {**judged, "record": self._record(host, verdict, reasons), "proof_key": key}
        if given.get("enforce"):
            judged.update(failed=True, msg="\n".join([f"{verdict}:", *(f"- {reason}" for reason in reasons)]))
        return judged

    def _end(self, host: str) -> dict[str, Any]:
        given = self.given
        # A generation is kept also for a load alone; only with something to write is there something to put back.
        kept = bool((given.get("kept") or {}).get("generation") and given["decision"]["acts"])
        verdict, reasons, ok = verdicts.conclude(
            given["declared"],
            given["gate"],
            given.get("decision"),
            given.get("judged"),
            given.get("failure"),
            given.get("restored"),
            kept=kept,
            check_mode=self._task.check_mode,
        )
        first, drained = given.get("first"), bool(given.get("drained")) and not self._task.check_mode
        falls_back = not first and verdicts.may_fall_back(verdict, given["declared"], given.get("restored"))
        if first:
            verdict, reasons, ok = verdicts.with_first(first, given["declared"]["profile"]["label"], verdict, reasons)
        serves = verdicts.serves(verdict, kept)
        if drained and not (serves or falls_back) and _has_hook(given["declared"]):
            reasons = [*reasons, "users are still kept away: gpu_memory_after_proof was not done"]
        if given.get("hook_failure"):
            reasons, ok = [*reasons, given["hook_failure"], "users may still be kept away"], False
        proof = (given.get("decision") or {}).get("proof")
        if verdict == "pass" and proof and not given.get("load"):
            # The proof is the host's own; what it is called is this inventory's.
            of_load: Record = proof["record"]
            record: Record = {
                **of_load,
                "host": host,
                "acted": False,
                "restarts": None,
                "proven_at": proof["at"],
            }
            record["notes"] = given["decision"]["notes"]
        else:
            record = self._record(host, verdict, reasons)
        directory = controller.report_directory(given["report_dir"])
        record = {**record, "wave": given["gate"]["wave"], "ok": ok, "first": first}
        record = record_files.dated(directory, record, time.time())
        if not self._task.check_mode:
            record_files.write(directory, record)
        return {**record, "falls_back": falls_back, "drained": drained, "serves": serves}


def _has_hook(declared: Declared) -> bool:
    """Whether the operator has said how users are kept away, or let in again."""
    hooks = (declared[name] for name in ("before_restart", "after_proof"))
    return any(hook["commands"] or hook["tasks"] for hook in hooks)


def _succeeded(read: HostFacts | None) -> HostFacts | None:
    """A read that failed was registered all the same, without its content."""
    return read if read and not read.get("failed") else None


def _skipped(value: object) -> bool:
    return isinstance(value, dict) and bool(value.get("skipped"))

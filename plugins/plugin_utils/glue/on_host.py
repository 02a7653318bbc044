# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of this collection on its host: the action plugin of every module that has an `ActionModule` from here.

It adds four things to what Ansible does by itself. A lost connection fails the task instead of dropping the host from
the play, because `rescue` does not run for an unreachable host and the report would have no line for it; so does a
host that does not let us become root, with the line of sudo that says why. And a host without good NVML bindings gets
the controller's copy of them. What gpu_memory_info is asked of a host it takes from what was declared. The headers of a
load are no arguments: those are in a file that a job leaves behind if it is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import masking
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration

# These may quote what somebody else wrote; the switch for debugging reaches them all from here.
QUOTES = ("gpu_memory_info", "gpu_memory_restart", "gpu_memory_assert")
READS_NVML = ("gpu_memory_info", "gpu_memory_assert", "gpu_memory_monitor", "gpu_memory_tune")
LIBRARY = "/run/gpu-memory/lib"
HAS_HEADERS = "gpu_memory_assert"
# In a file of whoever the module runs as, of a name that nobody can foretell.
PUT = 'umask 077; to=$(mktemp /run/gpu-memory-load.XXXXXX 2>/dev/null || mktemp) && cat {source}> "$to" && echo "$to"'
# Older ones misread the process list of driver 535 and have no memory v2.
OLDEST_BINDINGS = (12, 535, 108)

# What a program says that does not let a user become another: sudo, su, doas, and PAM in their name.
REFUSES = re.compile(
    r"^(?:sudo|su|doas|pam_\w+)\b.{0,20}:|sudoers|must have a tty|not allowed to (?:run|execute)", re.I
)
LINES_QUOTED = 3
CURES = (
    ("requiretty", r"\btty\b", "set ansible_pipelining: false for the host, or take requiretty out of its sudoers"),
    ("password", r"password", "give sudo's password with -K (--ask-become-pass) or ansible_become_password"),
    ("rights", r"", "let that user run all commands as root with sudo, or connect as one who may (ansible_user)"),
)


def controllers_bindings() -> Path | None:
    """The controller's own pynvml.py of nvidia-ml-py, or None where it has no good one."""
    try:
        version = importlib.metadata.version("nvidia-ml-py")
        spec = importlib.util.find_spec("pynvml")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if numbers < OLDEST_BINDINGS or spec is None or spec.origin is None or not spec.origin.endswith("pynvml.py"):
        return None
    return Path(spec.origin)


def asked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of gpu_memory_info; where they leave something open it is as `declared` among them says."""
    given = dict(arguments)
    declared = given.pop("declared", None)
    if declared is None:
        return given
    ollama = {name: declared["ollama"][name] for name in ("unit", "url")}
    return {"ollama": ollama, **{name: declared[name] for name in ("backend", "gpus", "env_keys", "models")}, **given}


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """A module's result; where no module answered, with what the host said instead of what was no JSON."""
    if not result.get("failed") or "module_stdout" not in result:
        return result
    lines = _lines(result)
    refusal = next((line for line in lines if REFUSES.search(line)), None)
    if refusal:
        return {**result, "msg": _refused(refusal)}
    said = " / ".join(lines[-LINES_QUOTED:])
    return {**result, "msg": f"the host did not run the module; it said: {said}" if said else result["msg"]}


def _lines(result: Mapping[str, object]) -> list[str]:
    text = f"{result.get('module_stdout') or ''}\n{result.get('module_stderr') or ''}"
    lines = (" ".join(line.split()) for line in text.splitlines()[-50:])
    shown = ("".join(sign for sign in masking.without_secrets(line)[:300] if sign.isprintable()) for line in lines)
    return [line for line in shown if line and not re.match(r"(?:Shared connection|Connection) to .* closed", line)]


def _refused(line: str) -> str:
    cure = next(cure for _name, words, cure in CURES if re.search(words, line, re.I))
    return f"the host does not let us become root: {line.rstrip('. ')}; {cure}"


class ActionModule(ActionBase):
    _supports_async = True
    _supports_check_mode = True
    _supports_diff = True
    _tmpdir: str | None = None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        module = self._task.action.rpartition(".")[2]
        try:
            super().run(tmp, task_vars)
            if module == "gpu_memory_info":
                self._task.args = asked(self._task.args)
            if module in QUOTES and self._shows_secrets(task_vars or {}):
                self._task.args = {"show_secrets": True, **self._task.args}
            if module not in READS_NVML:
                return plain(self._execute(self._task.args, task_vars))
            return plain(self._execute_with_bindings(task_vars))
        except AnsibleActionFail:
            raise
        except AnsibleConnectionFailure as problem:
            host = self._play_context.remote_addr or "the host"
            return {
                "failed": True,
                "lost_connection": True,
                "msg": f"lost the connection to {host} during {module}: {problem.message}",
            }
        except AnsibleError as problem:  # "Missing sudo password" and the like, which ansible-core raises
            if not re.search(r"(?:password|privilege|become)", str(problem), re.I):
                raise
            return {"failed": True, "msg": _refused(str(problem))}

    def _shows_secrets(self, variables: dict[str, Any]) -> bool:
        return bool(declaration.boolean(self._templar.template(variables.get("gpu_memory_show_secrets", False))))

    def _execute(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        arguments = self._with_headers_apart(arguments)
        headers_path = arguments.get("headers_path")
        try:
            result: dict[str, Any] = self._execute_module(
                module_name=self._task.action,
                module_args=arguments,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
        except AnsibleConnectionFailure:  # also where what was to start a job was killed
            if headers_path:
                with contextlib.suppress(AnsibleConnectionFailure):
                    self._take_away(headers_path)
            raise
        if result.get("failed"):
            self._take_away(headers_path)
        elif self._task.async_val:  # for who waits for the job, which may be killed before it has tidied up
            return {**result, "headers_path": headers_path, "tmpdir": self._tmpdir}
        return result

    def _take_away(self, headers_path: str | None) -> None:
        """What a module has not taken, and the directory of a job that has not begun, so that nobody waits for it."""
        if headers_path:
            self._low_level_execute_command(f"rm -f {self._connection._shell.quote(headers_path)}")
        if self._task.async_val and self._tmpdir:
            self._remove_tmp_path(self._tmpdir, force=True)

    def _with_headers_apart(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments without the headers of a load, which are in a file that the module takes away at once."""
        load = arguments.get("load") if self._task.action.endswith(f".{HAS_HEADERS}") else None
        if not isinstance(load, Mapping) or not isinstance(load.get("headers"), Mapping) or not load["headers"]:
            return arguments
        rest = {**arguments, "load": {name: value for name, value in load.items() if name != "headers"}}
        if self._task.check_mode:
            return rest
        headers = {str(name): str(value) for name, value in load["headers"].items()}
        return {**rest, "headers_path": self._put(json.dumps(headers))}

    def _put(self, text: str) -> str:
        """Put a text into a file on the host, through standard input; where that is not to be had, by way of a copy."""
        try:
            done = self._low_level_execute_command(PUT.format(source=""), in_data=text.encode())
        except AnsibleConnectionFailure:
            raise
        except AnsibleError:  # of a connection plugin that has none
            done = {"rc": 1}
        if done["rc"] != 0:  # such as a sudo that wants a terminal
            self._need_tmpdir()
            quote, shell = self._connection._shell.quote, self._connection._shell
            sent = self._transfer_data(shell.join_path(shell.tmpdir, "headers"), text)
            self._fixup_perms2((shell.tmpdir, sent))
            try:
                done = self._low_level_execute_command(PUT.format(source=f"{quote(sent)} "))
            finally:
                self._low_level_execute_command(f"rm -f {quote(sent)}", sudoable=False)
        path = done["stdout"].strip().rpartition("\n")[2]
        if done["rc"] != 0 or not path.startswith("/"):
            said = masking.without_secrets(" ".join(f"{done['stdout']} {done['stderr']}".split()))[:300]
            raise AnsibleActionFail(f"cannot put the headers of the load on the host: {said}")
        return path

    def _make_tmp_path(self, remote_user: str | None = None) -> str:
        """As Ansible does it; that directory is a job's own, which Ansible then forgets."""
        self._tmpdir = super()._make_tmp_path(remote_user)
        return self._tmpdir

    def _need_tmpdir(self) -> None:
        if self._connection._shell.tmpdir is None:
            # Not in the user's home, where the directory for such directories would stay.
            self._connection._shell.set_option("remote_tmp", "/tmp")
            self._make_tmp_path()

    def _execute_with_bindings(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        source = controllers_bindings()
        if source is None or self._task.args.get("bindings_path"):
            return self._execute(self._task.args, task_vars)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        arguments = {**self._task.args, "bindings_path": f"{LIBRARY}/{digest}"}
        result = self._execute(arguments, task_vars)
        if (result.get("nvml") or {}).get("status") not in ("bindings_missing", "bindings_bad"):
            return result
        arguments["bindings_path"] = self._send(source, arguments["bindings_path"])
        try:
            return self._execute(arguments, task_vars)
        finally:
            if self._task.check_mode:  # python has compiled them there, as another user
                self._low_level_execute_command(f"rm -rf {self._connection._shell.quote(arguments['bindings_path'])}")

    def _send(self, source: Path, directory: str) -> str:
        """Put the bindings where the module looks for them; in check mode, where they vanish with the task."""
        self._need_tmpdir()
        sent = self._transfer_file(
            str(source), self._connection._shell.join_path(self._connection._shell.tmpdir, "pynvml.py")
        )
        self._fixup_perms2((self._connection._shell.tmpdir, sent))
        if self._task.check_mode:
            return self._connection._shell.tmpdir
        quote = self._connection._shell.quote
        done = self._low_level_execute_command(f"install -D -m 0644 {quote(sent)} {quote(directory + '/pynvml.py')}")
        if done["rc"] != 0:
            # With a terminal all that a command says is in `stdout`, and `stderr` is SSH's.
            said = " ".join(f"{done['stdout']} {done['stderr']}".split())
            said = masking.without_secrets(said)
            raise AnsibleActionFail(f"cannot put the NVML bindings into {directory}: {said}; run as root (become)")
        return directory

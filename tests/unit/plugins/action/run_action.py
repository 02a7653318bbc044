"""Running an action plugin as a play does, but for the play: task, connection and display are fakes."""

from __future__ import annotations

import importlib
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleConnectionFailure
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.plugins.shell.sh import ShellModule
from ansible.template import Templar
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller

COLLECTION = "selo.gpu_memory"
ROUTING = yaml.safe_load((Path(controller.__file__).parents[3] / "meta" / "runtime.yml").read_text())["plugin_routing"]


def plugin_of(module: str) -> type[ActionBase]:
    """The action plugin that runs a module, by its own name or as meta/runtime.yml says."""
    name = ROUTING["modules"].get(module, {}).get("action_plugin", f"{COLLECTION}.{module}").rpartition(".")[2]
    found: type[ActionBase] = importlib.import_module(
        f"ansible_collections.{COLLECTION}.plugins.action.{name}"
    ).ActionModule
    return found


class FakeConnection:
    """Runs commands here, in the order of `commands`; `lost` is for how many commands from now on nobody answers."""

    def __init__(self) -> None:
        self._shell = ShellModule()
        self._shell.tmpdir = "/nonexistent"
        self.commands: list[str] = []
        self.lost = 0

    def execute(self, command: str, in_data: bytes | None = None, **_unused: Any) -> dict[str, Any]:
        if self.lost:
            self.lost -= 1
            raise AnsibleConnectionFailure("timed out")
        self.commands.append(command)
        text = None if in_data is None else in_data.decode()
        done = subprocess.run(["sh", "-c", command], input=text, capture_output=True, text=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


class Act:
    """`act(name, variables, **arguments)` is the task's result.

    `shown`: what the user was shown, as (text, colour). `extra`: what was given with `-e`. `executed`: the arguments of
    each execution of a module on the host, which answers with the next of `answers`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.shown: list[tuple[str, str | None]] = []
        self.extra: dict[str, Any] = {}
        self.connection = FakeConnection()
        self.executed: list[dict[str, Any]] = []
        self.removed: list[str] = []
        self.answers: list[dict[str, Any] | Exception] = []
        self.play_vars: dict[str, Any] = {}
        self.strategy = "linear"
        self.when: list[str] = []
        self.async_val = 0
        self.play_uuid = str(uuid.uuid4())
        monkeypatch.setattr(Display, "display", lambda _self, text, color=None: self.shown.append((text, color)))
        monkeypatch.setattr(controller, "load_extra_vars", lambda _loader: self.extra)

    def __call__(
        self, name: str, variables: Mapping[str, Any] | None = None, /, check_mode: bool = False, **arguments: Any
    ) -> dict[str, Any]:
        task = SimpleNamespace(
            action=f"{COLLECTION}.{name}",
            args=arguments,
            check_mode=check_mode,
            async_val=self.async_val,
            when=self.when,
            get_play=lambda: SimpleNamespace(vars=self.play_vars, strategy=self.strategy, _uuid=self.play_uuid),
            get_path=lambda: f"{name}.yml:1",
            _role=None,
        )
        loader = DataLoader()
        play_context = SimpleNamespace(remote_addr="gpu01.example.net")
        variables = {"inventory_hostname": "gpu01", **(variables or {})}
        action = plugin_of(name)(task, self.connection, play_context, loader, Templar(loader, variables))
        self.monkeypatch.setattr(action, "_low_level_execute_command", self.connection.execute)
        self.monkeypatch.setattr(action, "_execute_module", self._execute_module)
        self.monkeypatch.setattr(action, "_remove_tmp_path", lambda path, force=False: self.removed.append(path))
        result: dict[str, Any] = action.run(None, variables)
        return result

    def _execute_module(self, module_args: Mapping[str, Any], **_unused: Any) -> dict[str, Any]:
        self.executed.append(dict(module_args))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def text(self) -> str:
        return "\n".join(text for text, _unused in self.shown)

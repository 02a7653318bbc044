# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker with one project of Compose, by what its commands say; the project's files are real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands

UNIT = "compose:llm/ollama"
IDENTITY = "3f1c2ab90d5e" + "0" * 52


def container(directory: str = "/srv/llm", **changes: Any) -> dict[str, Any]:
    """What `docker inspect` says of a container, as far as it is read."""
    labels = {
        "project": "llm",
        "service": "ollama",
        "project.working_dir": directory,
        "project.config_files": f"{directory}/compose.yaml",
    }
    return {
        "Id": IDENTITY,
        "Name": "/ollama",
        "Created": "2026-12-01T03:01:06.5Z",
        "Image": "sha256:abc",
        "RestartCount": 0,
        "State": {"Status": "running", "Running": True, "Pid": 0, "StartedAt": "2026-12-01T03:01:08.25Z"},
        "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}, "LogConfig": {"Type": "json-file"}},
        "Mounts": [{"Destination": "/root/.ollama"}],
        "Config": {
            "Env": ["OLLAMA_KEEP_ALIVE=24h", "OLLAMA_HOST=0.0.0.0:11434"],
            "Labels": {f"com.docker.compose.{name}": value for name, value in labels.items()},
        },
        **changes,
    }


class Docker:
    """`asked`: every command. `environment`: the service's `environment:`; `env_files`: its `env_file:`.

    `would`: what `up` says with `--dry-run`, with the files of the labels and `plainly`. `fails`: by the word that
    tells a command, what it says as it fails.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file, self.own = directory / "compose.yaml", directory / unit_text.ENV_FILE
        self.file.write_text("services:\n  ollama:\n    environment:\n      - OLLAMA_KEEP_ALIVE=24h\n")
        self.environment = {"OLLAMA_KEEP_ALIVE": "24h"}
        self.env_files = [str(self.own)]
        self.containers = [container(str(directory))]
        self.beside: list[dict[str, Any]] = []
        self.would = self.plainly = "Container ollama  Running"
        self.fails: dict[str, str] = {}
        self.log = ""
        self.asked: list[list[str]] = []

    def run(self, arguments: list[str], *_rest: object, **_named: object) -> commands.Done:
        self.asked.append(list(arguments))
        failing = next((said for word, said in self.fails.items() if word in arguments), None)
        if failing is not None:
            return commands.Done(1, b"", failing.encode())
        return commands.Done(0, *(text.encode() for text in self._says(arguments)))

    def _says(self, words: list[str]) -> tuple[str, str]:
        if words[:2] == ["docker", "ps"]:
            found = self.containers if "--all" in words else [*self.containers, *self.beside]
            return "\n".join(one["Id"] for one in found), ""
        if words[:3] == ["docker", "image", "inspect"]:
            return json.dumps([{"Config": {"Env": ["OLLAMA_HOST=0.0.0.0:11434"]}}]), ""
        if words[:3] == ["docker", "container", "inspect"]:
            known = [*self.containers, *self.beside]
            return json.dumps([one for one in known if any(one["Id"].startswith(word) for word in words[3:])]), ""
        if words[:2] == ["docker", "logs"]:
            return "", self.log
        if "config" in words:
            written = "--no-interpolate" in words
            given = self.environment if written else {**self._of_env_files(), **self.environment}
            service: dict[str, Any] = {"environment": given}
            service.update({"env_file": [{"path": path} for path in self.env_files]} if written else {})
            return json.dumps({"services": {"ollama": service}}), ""
        if "up" in words:
            return "", self.would if "--file" in words else self.plainly
        return "", ""

    def _of_env_files(self) -> dict[str, str]:
        lines = [line for path in self.env_files if Path(path).exists() for line in Path(path).read_text().splitlines()]
        return dict(line.split("=", maxsplit=1) for line in lines if "=" in line)

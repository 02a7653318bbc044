"""What the pure logic works on, whole and healthy, so that a test states only what matters to it.

The operator's side comes from the role's own defaults and vars. The host's side has the shape of `gpu_memory_info` and
`gpu_memory_assert`; its figures are those of the guide's host on the profile `stable`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.selo.gpu_memory.plugins.module_utils import _declare

ROLE = Path(__file__).resolve().parents[2] / "roles" / "gpu_memory"
MODEL = "llama3.1:8b-instruct-q8_0"
DIRECTORY = "/mnt/local/Projects/SELODSP/selo-ai/backend"
ENV_PATH = f"{DIRECTORY}/.env"
PROFILE_FILE = f"{DIRECTORY}/.env.stable-16gb"
DROP_IN_PATH = "/etc/systemd/system/ollama.service.d/zz-gpu-memory.conf"
UUID = "GPU-38079876-a1c8-5fa0-92ea-8efc513d7869"
NOW = 1_769_890_500.0
RUNNER = ["/usr/lib/ollama/llama-server", "--model", "/blobs/a", "-c", "8192", "-np", "2", "-ngl", "40", "-b", "512"]


@functools.cache
def _role_file(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROLE / path).read_text(encoding="utf-8"))


def role_file(path: str) -> dict[str, Any]:
    return copy.deepcopy(_role_file(path))


def built_in_profiles() -> dict[str, Any]:
    return role_file("vars/main.yml")["__gpu_memory_built_in_profiles"]


def presets() -> dict[str, Any]:
    return role_file("vars/main.yml")["__gpu_memory_backend_presets"]


def variables(**changes: Any) -> dict[str, Any]:
    """The role's variables as an operator who sets only `changes` has them (names without `gpu_memory_`)."""
    return {
        **role_file("defaults/main.yml"),
        **role_file("vars/main.yml"),
        **{f"gpu_memory_{name}": value for name, value in changes.items()},
    }


def declared(**changes: Any) -> dict[str, Any]:
    return _declare.resolve(variables(**changes), [])


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` with `changes`, given as {"dotted.path": value}; numbers in a path index lists."""
    result = copy.deepcopy(dict(base))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = result
        for name in parents:
            place = place[int(name) if isinstance(place, list) else name]
        place[int(last) if isinstance(place, list) else last] = value
    return result

"""What inventories/example shows is valid, and means what its comments say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration

ROOT = Path(__file__).resolve().parents[2]


def role_variables() -> dict[str, Any]:
    role = ROOT / "roles" / "gpu_memory"
    files = [role / "defaults" / "main.yml", role / "vars" / "main.yml"]
    return {name: value for file in files for name, value in yaml.safe_load(file.read_text()).items()}


def inventory() -> dict[str, Any]:
    command = [sys.executable, "-m", "ansible", "inventory", "-i", "inventories/example", "--list"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    listed: dict[str, Any] = json.loads(done.stdout)
    return listed


@pytest.fixture(scope="module")
def declared() -> dict[str, Any]:
    hosts = inventory()["_meta"]["hostvars"]
    return {host: declaration.declared_of({**role_variables(), **variables}, []) for host, variables in hosts.items()}


def test_every_host_is_declared_well(declared: dict[str, Any]) -> None:
    assert {host: found["problems"] for host, found in declared.items()} == dict.fromkeys(declared, [])


def test_the_own_profile_follows_its_intents(declared: dict[str, Any]) -> None:
    profile = declared["research01.example.net"]["profile"]
    assert (profile["name"], profile["max_used_mib"], profile["env"]["CHAT_NUM_CTX"]) == ("roomy", 18432, "8192")


def test_the_canary_comes_first(declared: dict[str, Any]) -> None:
    assert next(iter(declared)) == "canary.example.net"


def test_the_backend_is_the_guide_s_at_another_place(declared: dict[str, Any]) -> None:
    backend = declared["canary.example.net"]["backend"]
    assert backend["unit"] == "chat-backend.service"
    assert [file["path"] for file in backend["env_files"]] == ["/srv/chat/backend/.env"]
    assert declared["chat03.example.net"]["backend"]["kind"] == "none"
